from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kt_cli.errors import WriteError
from kt_cli.files import atomic_file, atomic_folder
from kt_cli.rows import store
from kt_cli.rows.parts import newest_ok


def row(run_id: str, status: str = store.OK, created: str = "1", **more: Any) -> dict[str, Any]:
    return {"run_id": run_id, "status": status, "created": created, "attempt": 1, **more}


def test_rows_come_back_with_nulls_where_nothing_was_said(tmp_path: Path) -> None:
    store.write(tmp_path, "models", [row("a", accuracy=91.5), row("b", model="vit")])
    found = store.read([tmp_path], "models")
    assert list(found["run_id"]) == ["a", "b"]
    assert found["accuracy"][0] == 91.5 and np.isnan(found["accuracy"][1])


def test_a_part_of_few_rows_is_small_and_plain(tmp_path: Path) -> None:
    """Thousands are read in seconds: what compression and dictionaries add costs twice as much."""
    part = store.write(tmp_path, "transfer", [row("a", delta=1.0)])
    assert part.stat().st_size < 20_000
    column = pq.read_metadata(part).row_group(0).column(0)
    assert column.compression == "UNCOMPRESSED" and not column.has_dictionary_page
    many = store.write(tmp_path, "transfer", [row(str(i)) for i in range(store.FEW_ROWS + 1)])
    assert pq.read_metadata(many).row_group(0).column(0).compression == "ZSTD"


def test_a_key_that_is_no_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="accurracy"):
        store.write(tmp_path, "models", [row("a", accurracy=1.0)])


def test_one_row_per_run_the_newest_ok(tmp_path: Path) -> None:
    store.write(tmp_path, "models", [row("a", created="1", accuracy=1.0)])
    store.write(tmp_path, "models", [row("a", created="3", accuracy=3.0)])
    store.write(tmp_path, "models", [row("a", store.FAILED, created="4")])
    store.write(tmp_path, "models", [row("a", created="2", accuracy=2.0)])
    store.write(tmp_path, "models", [row("b", store.FAILED, created="1", error="first")])
    store.write(tmp_path, "models", [row("b", store.FAILED, created="2", error="second")])
    found = store.read([tmp_path], "models").set_index("run_id")
    assert found.loc["a", "accuracy"] == 3.0
    assert found.loc["b", "error"] == "second"
    assert len(found) == 2


@pytest.mark.parametrize("length", [8, 16, 5, 0])
@pytest.mark.parametrize("repeated", [0, 1, 30])
def test_of_runs_that_are_there_again_the_newest_counts(length: int, repeated: int) -> None:
    """Whatever their identities are: equal lengths, which are compared as numbers, or not."""
    rng = np.random.default_rng(length)
    ids = ["".join(rng.choice(list("0123456789abcdef"), length or i)) for i in range(9, 49)]
    ids = list(dict.fromkeys(ids)) + ids[:repeated]
    created = [str(int(n)) for n in rng.permutation(len(ids)) + 10]
    ok = rng.choice([store.OK, store.FAILED], len(ids))
    table = pa.table({"run_id": ids, "status": ok, "created": created})
    wanted = {
        name: max((i for i, other in enumerate(ids) if other == name),
                  key=lambda i: (ok[i] == store.OK, created[i]))
        for name in ids
    }  # fmt: skip
    found = newest_ok(table)
    assert found.equals(table.take(sorted(wanted.values())))
    assert newest_ok(table[7:]).num_rows == len(set(ids[7:]))


def test_merge_and_settle_keep_what_is_read(tmp_path: Path) -> None:
    parts = [store.write(tmp_path, "models", [row(i, accuracy=1.0)]) for i in "abc"]
    before = store.read([tmp_path], "models").sort_values("run_id").reset_index(drop=True)
    store.merge(tmp_path, "models", parts)
    (merged,) = store.list_parts(tmp_path / "models")
    assert merged not in parts
    store.write(tmp_path, "models", [row("a", store.FAILED)])
    store.settle(tmp_path, "models")
    (settled,) = store.list_parts(tmp_path / "models")
    assert pq.read_metadata(settled).num_rows == 3
    store.settle(tmp_path, "models")
    assert store.list_parts(tmp_path / "models") == [settled]
    after = store.read([tmp_path], "models").sort_values("run_id").reset_index(drop=True)
    assert before.equals(after)


def test_settle_puts_small_parts_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PART_ROWS", 5)
    large = store.write(tmp_path, "models", [row(f"large{i}") for i in range(5)])
    for i in range(13):
        store.write(tmp_path, "models", [row(f"small{i}", accuracy=float(i))])
    broken = tmp_path / "models" / "part-broken.parquet"
    broken.write_bytes(b"not parquet")
    before = store.read([tmp_path], "models").sort_values("run_id").reset_index(drop=True)
    store.settle(tmp_path, "models")
    after = store.read([tmp_path], "models").sort_values("run_id").reset_index(drop=True)
    assert before.equals(after)
    parts = store.list_parts(tmp_path / "models")
    assert large in parts and broken in parts
    sizes = sorted(pq.read_metadata(part).num_rows for part in parts if part != broken)
    assert sizes == [3, 5, 5, 5]


def test_merge_removes_only_what_it_read(tmp_path: Path) -> None:
    parts = [store.write(tmp_path, "models", [row(i)]) for i in "abc"]
    content = parts[1].read_bytes()
    parts[1].write_bytes(b"for a moment unreadable")
    store.merge(tmp_path, "models", parts)
    parts[1].write_bytes(content)
    assert sorted(store.read([tmp_path], "models")["run_id"]) == ["a", "b", "c"]


def test_outcomes_look_again_at_what_they_could_not_read(tmp_path: Path) -> None:
    part = store.write(tmp_path, "models", [row("a")])
    content = part.read_bytes()
    part.write_bytes(b"for a moment unreadable")
    skipped: list[Path] = []
    outcomes = store.Outcomes(tmp_path, "models", lambda path, reason: skipped.append(path))
    outcomes.refresh()
    assert skipped == [part] and not outcomes.done("a")
    part.write_bytes(content)
    outcomes.refresh()
    assert outcomes.done("a")


def test_an_unreadable_part_is_skipped_and_named(tmp_path: Path) -> None:
    store.write(tmp_path, "models", [row("a")])
    broken = tmp_path / "models" / "part-broken.parquet"
    broken.write_bytes(b"PAR1 not at all")
    skipped: list[Path] = []
    found = store.read([tmp_path], "models", on_skip=lambda path, reason: skipped.append(path))
    assert list(found["run_id"]) == ["a"]
    assert skipped == [broken]


def test_outcomes_see_new_parts_and_count_attempts(tmp_path: Path) -> None:
    store.write(tmp_path, "models", [row("a", store.FAILED)])
    outcomes = store.Outcomes(tmp_path, "models")
    new = store.Outcomes(tmp_path, "models", only_new=True)
    assert outcomes.failed("a") and outcomes.attempts("a") == 1 and not new.by_id
    store.write(tmp_path, "models", [{**row("a", store.FAILED), "attempt": 2}])
    outcomes.refresh()
    assert outcomes.attempts("a") == 2
    store.write(tmp_path, "models", [{**row("a"), "attempt": 3}])
    store.write(tmp_path, "models", [{**row("a", store.FAILED), "attempt": 4}])
    outcomes.refresh()
    new.refresh()
    assert outcomes.done("a") and new.done("a")


def test_whole_columns_and_scalars(tmp_path: Path) -> None:
    store.write_columns(
        tmp_path,
        "complementarity",
        {
            "run_id": ["x", "y"],
            "teacher": np.array(["t1", "t2"]),
            "pos_flips": np.array([1.5, 2.5]),
            "top2_classes": np.array([3.0, np.nan]),
            "data": "digits",
            "limit": None,
            "status": store.OK,
        },
    )
    found = store.read([tmp_path], "complementarity")
    assert list(found["teacher"]) == ["t1", "t2"] and list(found["data"]) == ["digits"] * 2
    assert found["top2_classes"][0] == 3 and np.isnan(found["top2_classes"][1])


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="No space left"), atomic_file(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for text in ("one", "two"):
        with atomic_folder(target) as temporary:
            (temporary / "weights").write_text(text)
    assert (target / "weights").read_text() == "two"
    with pytest.raises(WriteError), atomic_folder(target) as temporary:
        (temporary / "weights").write_text("three")
        raise OSError(28, "No space left on device")
    assert (target / "weights").read_text() == "two"
    assert list(tmp_path.iterdir()) == [target]


def test_a_link_is_written_through_and_a_pipe_is_no_file(tmp_path: Path) -> None:
    real, link, pipe = tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    real.write_text("old")
    link.symlink_to(real.name)
    with atomic_file(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink() and real.read_text() == "new"
    os.mkfifo(pipe)
    reading = threading.Thread(target=lambda: heard.append(pipe.read_text()))
    heard: list[str] = []
    reading.start()
    with atomic_file(pipe) as itself:
        itself.write_text("said")
    reading.join()
    assert heard == ["said"] and pipe.is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe", "real"]


def test_outcomes_of_some_rows_only(tmp_path: Path) -> None:
    rows = [row(f"{i}", method=method, seed=i) for i, method in enumerate(["kl", "kl", "kl-dp"])]
    store.write(tmp_path, "transfer", [*rows, row("failed", status=store.FAILED, seed=0)])
    wanted = {"method": ["kl"], "seed": [0, 2]}
    assert store.Outcomes(tmp_path, "transfer", of=wanted).counts == (1, 1)  # nothing is no other
    assert store.Outcomes(tmp_path, "transfer").counts == (3, 1)
