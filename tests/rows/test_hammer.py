"""Several processes in one folder of rows, or at one file of arrays: nothing is lost or torn."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from kt_cli.rows import arrays, scan, store
from tests.several import CONTEXT, hammer

SECONDS = 1.0
Counts = Any  # a dictionary that processes share


def _write_and_settle(me: int, folder: Path, counts: Counts) -> None:
    """Writes runs, merges its own parts as a chunk does, settles as the end of a sweep does."""
    skipped: list[str] = []
    end, number = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        parts = []
        for _ in range(3):
            row = {"run_id": f"{me}-{number}", "status": store.OK, "created": "1", "attempt": 1}
            parts.append(store.write(folder, "models", [row]))
            number += 1
        if number % 2:
            store.merge(folder, "models", parts)
        found = store.read([folder], "models", ["run_id"], lambda path, why: skipped.append(why))
        assert {f"{me}-{i}" for i in range(number)} <= set(found["run_id"])
        assert len(scan.scan([folder], "models", ["run_id"]).rows) >= number
        store.settle(folder, "models")
    assert not skipped
    counts[me] = number


def _replace_arrays(me: int, path: Path) -> None:
    """As two processes do that compute one entry of the cache."""
    end, number = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        arrays.write(path, {"x": np.full(5000, 10 * number + me)}, {"by": str(me)})
        (found, about), number = arrays.read(path), number + 1
        assert len(set(found["x"])) == 1 and found["x"][0] % 10 == int(about["by"])


def test_processes_that_write_merge_and_settle_lose_no_row(tmp_path: Path) -> None:
    with CONTEXT.Manager() as manager:
        shared = manager.dict()
        hammer(_write_and_settle, tmp_path, shared)
        counts = dict(shared)
    found = store.read([tmp_path], "models", ["run_id"])
    assert set(found["run_id"]) == {f"{me}-{i}" for me, n in counts.items() for i in range(n)}
    assert len(found) == sum(counts.values())
    assert not list(tmp_path.rglob("*.tmp"))


def test_processes_that_write_one_file_leave_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "predictions" / "entry.parquet"
    hammer(_replace_arrays, path)
    assert list(path.parent.iterdir()) == [path]
