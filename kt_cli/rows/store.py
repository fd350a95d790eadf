"""Results on disk: immutable Parquet parts under `results/<sweep>/<table>/`.

A part is written to a temporary name, fsynced and renamed; it is never appended to or changed.
The directory listing is the truth: a row is finished when it can be read. Readers skip a part
that they cannot read, and keep one row per `run_id`: the newest `ok`, else the newest.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kt_cli.errors import first_line
from kt_cli.files import atomic_file
from kt_cli.rows.schema import TABLES

if TYPE_CHECKING:
    import pandas as pd

OK, FAILED = "ok", "failed"
RUN = ("run_id", "status", "created")  # what decides which row of a run counts
PART_ROWS = 50_000  # a part opens in a millisecond, so many small ones would take minutes

OnSkip = Callable[[Path, str], None]


TYPES = {
    "string": pa.string(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "list<int32>": pa.list_(pa.int32()),
    "list<double>": pa.list_(pa.float64()),
    "list<string>": pa.list_(pa.string()),
}


def schema(table: str) -> pa.Schema:
    return pa.schema([pa.field(name, TYPES[column.type]) for name, column in TABLES[table].items()])


def write(folder: Path, table: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write `rows` as one new part of `folder/table` and return its path.

    Columns that a row does not have become null; a key that is no column is an error.
    """
    unknown_keys = {key for row in rows for key in row} - TABLES[table].keys()
    if unknown_keys:
        raise KeyError(f"not columns of {table}: {sorted(unknown_keys)}")
    return _write_part(folder / table, pa.Table.from_pylist(list(rows), schema=schema(table)))


def write_columns(folder: Path, table: str, columns: Mapping[str, Any]) -> Path:
    """As `write`, from whole columns (arrays, or scalars that hold for every row)."""
    rows = len(columns["run_id"])
    arrays = []
    for name, column in TABLES[table].items():
        value = columns.get(name)
        if value is None or isinstance(value, (str, int, float, bool)):
            arrays.append(
                pa.array([value], TYPES[column.type]).take(pa.array([0] * rows, pa.int32()))
            )
        elif getattr(value, "ndim", 1) == 2:
            offsets = np.arange(0, value.size + 1, value.shape[1], dtype=np.int32)
            arrays.append(pa.ListArray.from_arrays(offsets, value.reshape(-1)))
        else:
            arrays.append(pa.array(value, TYPES[column.type], from_pandas=True))
    return _write_part(folder / table, pa.Table.from_arrays(arrays, schema=schema(table)))


def merge(folder: Path, table: str, parts: Sequence[Path]) -> Path | None:
    """Replace `parts` of one writer by a single one; readers see their rows all along."""
    read_parts, rows = _read_whole(table, parts)
    return _replace(read_parts, folder / table, rows) if len(read_parts) > 1 else None


def settle(folder: Path, table: str) -> int:
    """Leave few parts, and one row per run where a killed writer left more; how many rows went.

    Only superseded rows go. Safe beside other writers: what they add meanwhile is not touched.
    """
    parts = list_parts(folder / table)
    read = {p: rows for p in parts if (rows := _read_part(p, RUN, None)) is not None}
    runs = [_aligned(rows, table, RUN) for rows in read.values()]
    if not runs or newest_ok(pa.concat_tables(runs)).num_rows == sum(map(len, runs)):
        for together in _gathered({part: len(rows) for part, rows in read.items()}):
            merge(folder, table, together)
        return 0
    read_parts, rows = _read_whole(table, parts)
    kept = newest_ok(rows)
    _replace(read_parts, folder / table, kept)
    return int(rows.num_rows - kept.num_rows)


def _gathered(sizes: Mapping[Path, int]) -> list[list[Path]]:
    """Parts that are small, put together to parts of PART_ROWS rows and not much more."""
    batches: list[list[Path]] = [[]]
    rows = 0
    for part, size in sizes.items():
        if size < PART_ROWS:
            batches[-1].append(part)
            rows += size
            if rows >= PART_ROWS:
                batches.append([])
                rows = 0
    return [batch for batch in batches if len(batch) > 1]


def _read_whole(table: str, parts: Sequence[Path]) -> tuple[list[Path], pa.Table]:
    """Those of `parts` that can be read, and all their rows with all columns."""
    found = {part: rows for part in parts if (rows := _read_part(part, None, None)) is not None}
    aligned = [_aligned(rows, table) for rows in found.values()]
    return list(found), pa.concat_tables([schema(table).empty_table(), *aligned])


def _replace(parts: Sequence[Path], folder: Path, rows: pa.Table) -> Path:
    """Write `rows` as one part in place of `parts`."""
    part = _write_part(folder, rows)
    for old in parts:
        old.unlink(missing_ok=True)
    return part


def list_parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def read(
    folders: Iterable[Path],
    table: str,
    columns: Sequence[str] | None = None,
    on_skip: OnSkip | None = None,
) -> pd.DataFrame:
    """The rows of `table` in the sweeps `folders`, one per run and sweep, with a column `sweep`.

    Args:
        columns: the columns wanted; None for all. A column that an old part lacks is null.
        on_skip: called with path and reason for each part that cannot be read.
    """
    wanted = list(TABLES[table]) if columns is None else list(columns)
    needed = list(dict.fromkeys([*wanted, *RUN]))
    found = []
    for folder in folders:
        tables = _read_parts(folder / table, needed, on_skip)
        if tables:
            rows = newest_ok(pa.concat_tables(_aligned(t, table, needed) for t in tables))
            rows = rows.select(wanted)
            found.append(
                rows.append_column("sweep", pa.array([folder.name] * rows.num_rows, pa.string()))
            )
    if not found:
        empty = pa.schema(
            [*[pa.field(c, TYPES[TABLES[table][c].type]) for c in wanted], ("sweep", pa.string())]
        )
        found = [empty.empty_table()]
    frame: pd.DataFrame = pa.concat_tables(found).to_pandas()
    return frame


@dataclass(frozen=True)
class Outcome:
    status: str
    attempt: int
    error: str | None = None


# Millions of runs share a few outcomes.
_outcome = lru_cache(maxsize=1024)(Outcome)


class Outcomes:
    """What is known of each run of a table; `refresh` reads only parts that are new to it.

    With `only_new`, what is on disk at the start does not count.
    """

    def __init__(
        self, folder: Path, table: str, on_skip: OnSkip | None = None, only_new: bool = False
    ) -> None:
        self._folder, self._on_skip = folder / table, on_skip
        self._seen: set[Path] = set(list_parts(self._folder)) if only_new else set()
        self._skipped: set[Path] = set()
        self.by_id: dict[str, Outcome] = {}
        self.refresh()

    def refresh(self) -> None:
        columns = ["run_id", "status", "attempt", "error"]
        for part in list_parts(self._folder):
            if part in self._seen:
                continue
            rows = _read_part(part, columns, None if part in self._skipped else self._on_skip)
            if rows is None:
                # Gone into a merged part, or unreadable: perhaps only for now, so look again.
                self._skipped.add(part)
                continue
            self._seen.add(part)
            for values in zip(*(rows[c].to_pylist() for c in columns), strict=True):
                self._learn(*values)

    def _learn(self, run_id: str, status: str, attempt: int | None, error: str | None) -> None:
        known, attempt = self.by_id.get(run_id), attempt or 1
        if known is None or (known.status != OK and (status == OK or attempt >= known.attempt)):
            self.by_id[run_id] = _outcome(status, attempt, error)

    def done(self, run_id: str) -> bool:
        outcome = self.by_id.get(run_id)
        return outcome is not None and outcome.status == OK

    def failed(self, run_id: str) -> bool:
        outcome = self.by_id.get(run_id)
        return outcome is not None and outcome.status != OK

    def attempts(self, run_id: str) -> int:
        outcome = self.by_id.get(run_id)
        return 0 if outcome is None else outcome.attempt


def _write_part(folder: Path, rows: pa.Table) -> Path:
    part = folder / f"part-{uuid.uuid4().hex[:16]}.parquet"
    with atomic_file(part) as temporary:
        pq.write_table(rows, temporary, compression="zstd")
    return part


def _read_parts(
    folder: Path, columns: Sequence[str] | None, on_skip: OnSkip | None
) -> list[pa.Table]:
    """All readable parts; those that a merge replaces while we read are read in their new place."""
    found: dict[Path, pa.Table | None] = {}
    while True:
        listed = list_parts(folder)
        new = [part for part in listed if part not in found]
        if not new:
            return [t for part in listed if (t := found[part]) is not None]
        found |= {part: _read_part(part, columns, on_skip) for part in new}


def _read_part(
    part: Path, columns: Sequence[str] | None, on_skip: OnSkip | None
) -> pa.Table | None:
    try:
        file = pq.ParquetFile(part)
        present = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
        return file.read(present)
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        if on_skip is not None:
            on_skip(part, first_line(error))
        return None


def _aligned(rows: pa.Table, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """`rows` with exactly the wanted columns and types of `table`; missing ones are null."""
    arrays, names = [], list(TABLES[table]) if columns is None else list(columns)
    for name in names:
        type_ = TYPES[TABLES[table][name].type]
        if name in rows.column_names:
            arrays.append(rows.column(name).cast(type_))
        else:
            arrays.append(pa.nulls(rows.num_rows, type_))
    return pa.table(arrays, names=names)


def newest_ok(rows: pa.Table) -> pa.Table:
    """One row per run_id: the newest `ok`, else the newest; in order of first appearance."""
    runs = pc.dictionary_encode(rows["run_id"]).combine_chunks().indices.to_numpy()
    counts = np.bincount(runs)
    if len(counts) == rows.num_rows:
        return rows
    several = np.flatnonzero(counts[runs] > 1)
    keys = pa.table(
        {
            "run": runs[several],
            "ok": pc.equal(rows["status"], OK).take(several).cast(pa.int8()),
            "created": rows["created"].take(several),
            "position": several,
        }
    )
    best = keys.sort_by(
        [("ok", "descending"), ("created", "descending"), ("position", "ascending")]
    )
    first = best.group_by("run", use_threads=False).aggregate([("position", "first")])
    kept = [np.flatnonzero(counts[runs] == 1), first["position_first"].to_numpy()]
    return rows.take(np.sort(np.concatenate(kept)))
