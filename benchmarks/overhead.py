"""What a chunk adds to its runs: from the start of a run to its row on disk, without the work.

    python -m benchmarks.overhead [--runs 200] [--repeats 3]

Transfers of a sweep on digits whose work is replaced by nothing go through a whole chunk, as a job
does them: read from the manifest, data checked, rows written one run after the other and merged at
the end. Beside it stands a bare Parquet file of one row, written and fsynced.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import record
from kt_cli.data.sources import open_data
from kt_cli.progress import Progress
from kt_cli.runs.columns import Row
from kt_cli.runs.kinds import KINDS
from kt_cli.settings import DataSpec, TransferSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps import chunk
from kt_cli.sweeps.schedule import write_manifest
from kt_cli.sweeps.slots import Slot

DATA = DataSpec("digits")
LIMIT_MS = 50


def nothing(runs: Sequence[Run], folder: Path, progress: Progress) -> list[list[Row] | Exception]:
    return [[{"delta": 0.0, "created": "now"}] for _ in runs]


def chunk_seconds(folder: Path, count: int) -> float:
    """Seconds for each run of a chunk whose work is nothing."""
    data_id = open_data(DATA, training=True).transfer_id(False)
    models = [Model(f"m{i}", f"m{i}", f"m{i}") for i in range(count + 1)]
    runs = [Run("transfer", (models[0], student), data_id, TransferSpec(), DATA)
            for student in models[1:]]  # fmt: skip
    manifest = write_manifest(folder, runs)
    began = time.perf_counter()
    with (
        mock.patch.dict(KINDS, {"transfer": replace(KINDS["transfer"], execute=nothing)}),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        chunk.run_chunk(str(manifest), 0, count, Slot(None), alone=False)
    return (time.perf_counter() - began) / count


def bare_seconds(folder: Path, count: int) -> float:
    """Seconds to write one row with two columns and to fsync it."""
    row = pa.table({"run_id": ["x"], "delta": [0.0]})
    began = time.perf_counter()
    for i in range(count):
        path = folder / f"bare-{i}.parquet"
        pq.write_table(row, path)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    return (time.perf_counter() - began) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    whole, bare = [], []
    for _ in range(asked.repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            whole.append(1000 * chunk_seconds(folder / "sweep", asked.runs))
            bare.append(1000 * bare_seconds(folder, asked.runs))
    holds = record("overhead: of a run, ms", median(whole), LIMIT_MS)
    verdict = "within" if holds else "ABOVE"
    print(f"a run of a loaded chunk, without its work: {median(whole):.1f} ms, {verdict} the "
          f"limit of {LIMIT_MS} ms; a bare row on disk: {median(bare):.1f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
