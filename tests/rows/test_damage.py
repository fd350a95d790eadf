"""Parts that are damaged, or are none: nobody reads a wrong value, and all agree on what is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kt_cli.rows import scan, store
from kt_cli.rows.parts import Parts
from kt_cli.rows.schema import TABLES

COLUMNS = list(TABLES["models"])


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"run_id": f"r{i}", "status": store.OK, "created": str(i), "attempt": 1, "n": 10 * i,
         "model": f"m{i % 3}", "model_key": f"k{i % 3}", "eval_data": "e", "accuracy": i / 7}
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 300])
def test_of_400_flipped_bits_none_changes_a_value_without_a_word(
    tmp_path: Path, count: int
) -> None:
    part = store.write(tmp_path, "models", rows(count))
    content, random = part.read_bytes(), np.random.default_rng(0)
    for at in random.integers(0, 8 * len(content), 400):
        damaged = bytearray(content)
        damaged[at // 8] ^= 1 << (at % 8)
        part.write_bytes(damaged)
        skipped: dict[Path, str] = {}
        found = store.read([tmp_path], "models", COLUMNS, skipped.__setitem__)
        assert found.empty and list(skipped) == [part], at
    part.write_bytes(content)
    assert len(store.read([tmp_path], "models")) == count


def test_pages_have_checksums_for_other_readers_and_for_parts_of_another_name(
    tmp_path: Path,
) -> None:
    part = store.write(tmp_path, "models", rows(2000))
    damaged = bytearray(part.read_bytes())
    column = pq.read_metadata(part).row_group(0).column(COLUMNS.index("accuracy"))
    damaged[column.dictionary_page_offset + 3000] ^= 1
    renamed = part.with_name("part-copy.parquet")
    renamed.write_bytes(damaged)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(renamed, page_checksum_verification=True)
    part.unlink()
    skipped: list[str] = []
    # Of columns that are whole, too: what is done and what is shown must be the same.
    read = store.read([tmp_path], "models", ["model"], lambda path, why: skipped.append(why))
    assert read.empty and "CRC" in skipped[0]


def _without(column: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([column])


def _with(column: str, values: Callable[[int], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        at = table.column_names.index(column)
        return table.set_column(at, column, pa.array(values(len(table))))

    return changed


@pytest.mark.parametrize(
    "change",
    [
        _without("run_id"), _without("status"), _without("created"), _without("accuracy"),
        _with("accuracy", lambda n: ["much"] * n), _with("attempt", lambda n: [[1]] * n),
        _with("status", lambda n: [None] * n), _with("run_id", lambda n: [{"x": 1}] * n),
        lambda table: pa.table({"image": [b"\xff\xd8"], "label": [3]}),
        lambda table: pa.table({}),
    ],
)  # fmt: skip
def test_what_is_no_part_is_skipped_by_all_alike(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table]
) -> None:
    kept, lost = (store.write(tmp_path, "models", [row]) for row in rows(2))
    other = lost.with_name("part-other.parquet")
    pq.write_table(change(pq.read_table(lost)), other)
    lost.unlink()
    skipped: list[Path] = []

    def skip(path: Path, why: str) -> None:
        assert why
        skipped.append(path)

    outcomes = store.Outcomes(tmp_path, "models", skip)
    assert list(outcomes.by_id) == ["r0"]
    assert list(store.read([tmp_path], "models", ["run_id"], skip)["run_id"]) == ["r0"]
    assert list(scan.scan([tmp_path], "models", ["run_id"], (), skip).rows["run_id"]) == ["r0"]
    assert scan.count(tmp_path / "models") == 1
    assert skipped == [other] * 3
    store.settle(tmp_path, "models")
    assert kept.exists() and other.exists()


def test_a_column_of_another_type_is_named(tmp_path: Path) -> None:
    """As pandas writes one of text that has nothing in it."""
    folder = tmp_path / "models"
    folder.mkdir()
    frame = pa.Table.from_pylist(rows(3)).drop(["model_key"])
    pq.write_table(frame.append_column("model_key", pa.nulls(3, pa.float64())),
                   folder / "part-0.parquet")  # fmt: skip
    skipped: dict[Path, str] = {}
    found = Parts([tmp_path], "models", skipped.__setitem__, texts=("model", "model_key"))
    assert found.read(["run_id", "model", "model_key"]).num_rows == 0
    assert skipped == {folder / "part-0.parquet": "its column model_key should be string"}


def test_so_is_one_of_a_part_that_another_tool_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    frame = (
        pa.Table.from_pylist(rows(3))
        .drop(["accuracy"])
        .append_column("accuracy", pa.array(["x"] * 3))
    )
    pq.write_table(frame, folder / "part-other.parquet")
    skipped: dict[Path, str] = {}
    found = Parts([tmp_path], "models", skipped.__setitem__)
    assert found.read(["run_id", "model"]).num_rows == 0
    assert skipped == {folder / "part-other.parquet": "its column accuracy should be double"}
