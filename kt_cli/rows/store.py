"""Results on disk: immutable Parquet parts under `results/<sweep>/<table>/`.

A part is written to a temporary name, fsynced and renamed to one that ends with the CRC-32 of its
bytes; it is never appended to or changed.
The directory listing is the truth: a row is finished when it can be read. Readers skip a part
that they cannot read, and keep one row per `run_id`: the newest `ok`, else the newest.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kt_cli.files import atomic_file, escaped
from kt_cli.rows.parts import OK, OnSkip, Parts, list_parts, newest_ok, one_of, schema
from kt_cli.rows.schema import RUN, TABLES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FAILED", "OK", "OnSkip", "Outcomes", "list_parts", "merge", "read", "settle", "write"]

FAILED = "failed"
FEW_ROWS = 100
PART_ROWS = 50_000  # a part opens in a millisecond, so many small ones would take minutes


def read(
    folders: Iterable[Path], table: str, columns: Sequence[str] | None = None,
    on_skip: OnSkip | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The rows of `table` in the folders of a sweep, one per run.

    Args:
        columns: the columns wanted; None for all. A column that an old part lacks is null.
        on_skip: called with path and reason for each part that cannot be read.
    """
    wanted = list(TABLES[table] if columns is None else columns)
    rows = Parts(list(folders), table, on_skip).read(list(dict.fromkeys([*wanted, *RUN])))
    frame: pd.DataFrame = newest_ok(rows).select(wanted).to_pandas()
    return frame


def write(folder: Path, table: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write `rows` as one new part of `folder/table` and return its path.

    Columns that a row does not have become null; a key that is no column is an error.
    """
    unknown_keys = {key for row in rows for key in row} - TABLES[table].keys()
    if unknown_keys:
        raise KeyError(f"not columns of {table}: {sorted(unknown_keys)}")
    texts = [{k: escaped(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
    return _write_part(folder / table, pa.Table.from_pylist(texts, schema=schema(table)))


def write_columns(folder: Path, table: str, columns: Mapping[str, Any]) -> None:
    """As `write`, from whole columns (arrays, or scalars that hold for every row)."""
    rows = len(columns["run_id"])
    arrays = []
    for field in schema(table):
        value = columns.get(field.name)
        value = escaped(value) if isinstance(value, str) else value
        if value is None or isinstance(value, (str, int, float, bool)):
            arrays.append(pa.repeat(pa.scalar(value, field.type), rows))
        elif getattr(value, "ndim", 1) == 2:
            offsets = np.arange(0, value.size + 1, value.shape[1], dtype=np.int32)
            arrays.append(pa.ListArray.from_arrays(offsets, value.reshape(-1)))
        else:
            arrays.append(pa.array(value, field.type, from_pandas=True))
    _write_part(folder / table, pa.Table.from_arrays(arrays, schema=schema(table)))


def _write_part(folder: Path, rows: pa.Table) -> Path:
    # Of few rows it makes a part longer, and slower for whoever opens thousands of them.
    many = rows.num_rows > FEW_ROWS
    written = pa.BufferOutputStream()
    pq.write_table(rows, written, compression="zstd" if many else "none", use_dictionary=many,
                   write_statistics=many, store_schema=many, write_page_checksum=True)  # fmt: skip
    content = written.getvalue()
    part = folder / f"part-{uuid.uuid4().hex[:16]}-{zlib.crc32(content):08x}.parquet"
    with atomic_file(part) as temporary:
        temporary.write_bytes(content)
    return part


def merge(folder: Path, table: str, parts: Sequence[Path]) -> None:
    """Replace `parts` of one writer by a single one; readers see their rows all along."""
    found = _readable(table, parts, TABLES[table])
    if len(found) > 1:
        _replace(folder / table, found, pa.concat_tables(found.values()))


def settle(folder: Path, table: str) -> None:
    """Leave few parts, and one row per run where a killed writer left more.

    Only superseded rows go. Safe beside other writers: what they add meanwhile is not touched.
    """
    parts = list_parts(folder / table)
    found = _readable(table, parts, RUN)
    runs = pa.concat_tables([*found.values(), schema(table).empty_table().select(RUN)])
    if newest_ok(runs).num_rows == runs.num_rows:
        for together in _gathered({part: len(rows) for part, rows in found.items()}):
            merge(folder, table, together)
    elif found := _readable(table, parts, TABLES[table]):  # unless another process settled them
        _replace(folder / table, found, newest_ok(pa.concat_tables(found.values())))


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


def _replace(folder: Path, parts: Iterable[Path], rows: pa.Table) -> None:
    _write_part(folder, rows)
    for old in parts:
        old.unlink(missing_ok=True)


def _readable(table: str, parts: Iterable[Path], columns: Iterable[str]) -> dict[Path, pa.Table]:
    reader = Parts((), table)
    return {p: rows for p in parts if (rows := reader.one(p, list(columns))) is not None}


class Outcome(NamedTuple):
    status: str
    attempt: int
    error: str | None = None


UNTRIED = Outcome("", 0)
_outcome = lru_cache(maxsize=1024)(Outcome)  # millions of runs share a few


class Outcomes:
    """What is known of each run of a table; `refresh` reads only parts that are new to it.

    With `only_new`, what is on disk at the start does not count. Only runs whose rows have one of
    the values of `of`, or none, in each of its columns are in `counts`, `took` and `seconds`.
    """

    def __init__(
        self, folder: Path, table: str, on_skip: OnSkip | None = None, only_new: bool = False,
        of: Mapping[str, Sequence[Any]] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self._of = of
        self._parts = Parts([folder], table, on_skip)
        self._seen = set(list_parts(folder / table)) if only_new else set()
        self.by_id: dict[str, Outcome] = {}
        self._others: set[str] = set()  # which do not count
        self.took, self._timed = 0.0, 0  # seconds of what is done
        self.refresh()

    def refresh(self) -> None:
        """Also looks again at parts that could not be read: perhaps only for a moment."""
        columns = ["run_id", "status", "attempt", "error", "seconds"]
        rows = self._parts.read([*columns, *self._of], seen=self._seen)
        values = (rows[name].to_pylist() for name in columns)
        counted = one_of(rows, self._of)
        for run_id, status, attempt, error, seconds, counts in zip(*values, counted, strict=True):
            known = self.by_id.get(run_id, UNTRIED)
            again = known.status == OK  # as in a folder that others were copied into
            if not again and (status == OK or (attempt or 1) >= known.attempt):
                self.by_id[run_id] = _outcome(status, attempt or 1, error)
            if not counts:
                self._others.add(run_id)
            elif status == OK and seconds and not again:
                self.took, self._timed = self.took + seconds, self._timed + 1

    @property
    def counts(self) -> tuple[int, int]:
        """Runs that are done, and runs that failed."""
        done = sum(o.status == OK for run, o in self.by_id.items() if run not in self._others)
        return done, len(self.by_id) - len(self._others) - done

    @property
    def seconds(self) -> float | None:
        """About what one takes that is done; None where no row says it."""
        return self.took / self._timed if self._timed else None

    def done(self, run_id: str) -> bool:
        return self.by_id.get(run_id, UNTRIED).status == OK

    def failed(self, run_id: str) -> bool:
        return run_id in self.by_id and not self.done(run_id)

    def attempts(self, run_id: str) -> int:
        return self.by_id.get(run_id, UNTRIED).attempt
