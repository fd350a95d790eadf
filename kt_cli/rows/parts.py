"""Reading the parts of a table: all together where that works, and which row of a run counts.

A part's name ends with the CRC-32 of its bytes, so that whoever reads any column of it, or only
counts its rows, finds out about damage anywhere in it: all agree on which parts can be read.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from kt_cli.errors import first_line
from kt_cli.files import Status, may_change_unseen, status_of
from kt_cli.rows.alike import alike, everywhere
from kt_cli.rows.schema import ESSENTIAL, TABLES

OK = "ok"
READ_AT_ONCE = 1 << 18  # bytes; what a processor's cache holds
THREADS = 8
# Others keep much of what is freed: of a million rows as much again as they need.
SPARING = "jemalloc" in pa.supported_memory_backends()
POOL = pa.jemalloc_memory_pool() if SPARING else pa.default_memory_pool()
if SPARING:  # by default what was freed a second ago is held
    pa.jemalloc_set_decay_ms(300)
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, and its bits are as good as random
TYPES = {
    "string": pa.string(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "list<int32>": pa.list_(pa.int32()),
    "list<double>": pa.list_(pa.float64()),
    "list<string>": pa.list_(pa.string()),
}

OnSkip = Callable[[Path, str], None]


def schema(table: str) -> pa.Schema:
    return pa.schema([pa.field(name, TYPES[column.type]) for name, column in TABLES[table].items()])


def list_parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


_sound: set[tuple[Path, Status]] = set()  # parts that were found to be


def readable(parts: Iterable[Path], on_skip: OnSkip) -> list[Path]:
    """The parts that are there and can be read, in their order; calls `on_skip` for the others."""
    parts = list(parts)
    with ThreadPoolExecutor(THREADS) as threads:
        faults = list((threads.map if len(parts) > 1 else map)(_fault, parts))
    for part, fault in zip(parts, faults, strict=True):
        if fault:
            on_skip(part, fault)
    return [part for part, fault in zip(parts, faults, strict=True) if fault == ""]


def _fault(part: Path) -> str | None:
    """Why a part cannot be read; empty where it can, None where it is gone into a merged one."""
    try:
        known = part, status_of(part.stat())
        if known not in _sound:
            _require_sound(part)
            if not may_change_unseen(known[1], time.time_ns()):
                _sound.add(known)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, pa.ArrowException) as error:
        return first_line(error)
    return ""


def _require_sound(part: Path) -> None:
    """Compare the bytes with the name; of a part whose name says nothing, read all columns."""
    said = re.search(r"-([0-9a-f]{8})\.parquet$", part.name)
    if said:
        if _checksum(part) != int(said[1], 16):
            raise ValueError("damaged: its bytes are not those that were written")
        return
    table = part.parent.name
    missing = [name for name in ESSENTIAL[table] if name not in pq.read_schema(part).names]
    if missing:
        raise ValueError(f"no rows of kt's {table}: no column {', '.join(missing)}")
    reader, columns = Parts((), table), list(TABLES[table])
    try:
        rows = reader.rows([part], columns)
    except pa.ArrowException as error:
        raise ValueError(reader.wrong(part, columns) or first_line(error)) from error
    if rows["run_id"].null_count or rows["status"].null_count:
        raise ValueError(f"no rows of kt's {table}: some have no run_id or status")


def _checksum(part: Path) -> int:
    found, buffer = 0, memoryview(bytearray(READ_AT_ONCE))
    with part.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            found = zlib.crc32(buffer[:count], found)
    return found


class Parts:
    """The parts of a table in several folders; a column that a part lacks is null.

    Args:
        on_skip: called with path and reason, once, for each part that cannot be read.
        texts: columns whose values repeat, and come as dictionaries.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        table: str,
        on_skip: OnSkip | None = None,
        texts: Collection[str] = (),
    ) -> None:
        self._folders, self._on_skip = [folder / table for folder in folders], on_skip
        self._skipped: set[Path] = set()
        self._table = table
        coded = pa.dictionary(pa.int32(), pa.string())
        fields = (f.with_type(coded) if f.name in texts else f for f in schema(table))
        self._schema = pa.schema(fields)
        self._format = ds.ParquetFileFormat(
            ds.ParquetReadOptions(dictionary_columns=texts),
            default_fragment_scan_options=ds.ParquetFragmentScanOptions(
                page_checksum_verification=True
            ),
        )
        self._files = LocalFileSystem()

    def read(
        self,
        columns: Sequence[str],
        where: pc.Expression | None = None,
        seen: set[Path] | None = None,
    ) -> pa.Table:
        """All rows; those of parts that a merge replaces meanwhile perhaps twice.

        Args:
            seen: parts to leave out; those that were read are added to it.
        """
        seen = set() if seen is None else seen
        tables = [pa.schema([self._schema.field(c) for c in columns]).empty_table()]
        tried = set(seen)
        while new := [p for f in self._folders for p in list_parts(f) if p not in tried]:
            tried.update(new)
            sound = readable(new, self._skip)
            try:  # all together, which is quickest; one by one where some are merged meanwhile
                tables.append(self.rows(sound, columns, where))
                seen.update(sound)
            except (OSError, pa.ArrowException):
                found = {part: self.one(part, columns, where) for part in sound}
                tables += [rows for rows in found.values() if rows is not None]
                seen.update(part for part, rows in found.items() if rows is not None)
        return pa.concat_tables(tables).unify_dictionaries()

    def one(
        self, part: Path, columns: Sequence[str], where: pc.Expression | None = None
    ) -> pa.Table | None:
        """The rows of one part; None where it cannot be read, or is gone into a merged one."""
        try:
            return self.rows([part], columns, where) if readable([part], self._skip) else None
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            self._skip(part, self.wrong(part, columns) or first_line(error))
            return None

    def wrong(self, part: Path, columns: Sequence[str]) -> str:
        """The first column that is of a type that cannot be read; empty where it is not that."""
        for name in columns:
            try:
                self.rows([part], [name])
            except OSError:  # noqa: PERF203
                continue  # or nothing of it can be read
            except pa.ArrowException:
                return f"its column {name} should be {TABLES[self._table][name].type}"
        return ""

    def _skip(self, part: Path, reason: str) -> None:
        if self._on_skip is not None and part not in self._skipped:
            self._on_skip(part, reason)
        self._skipped.add(part)

    def rows(
        self, parts: Sequence[Path], columns: Sequence[str], where: pc.Expression | None = None
    ) -> pa.Table:
        """The rows of parts, all of which can be read."""
        fragments = [self._format.make_fragment(str(p), filesystem=self._files) for p in parts]
        data = ds.FileSystemDataset(fragments, self._schema, self._format, self._files)
        same = alike((part.metadata for part in fragments), columns, self._schema)
        read = [name for name in columns if name not in same]
        found = data.to_table(columns=read, filter=where, memory_pool=POOL)
        for name, value in same.items():
            field = self._schema.field(name)
            found = found.append_column(field, everywhere(value, len(found), field.type, POOL))
        return found.select(list(columns))


def one_of(rows: pa.Table, values: Mapping[str, Sequence[Any]]) -> list[bool]:
    """Which rows have one of these values, or none, in each of these columns."""
    found = np.ones(rows.num_rows, dtype=bool)
    for name, several in values.items():
        column = rows[name]
        known = pc.is_in(column, pa.array(several, column.type), skip_nulls=True)
        found &= pc.or_(known, pc.is_null(column)).to_numpy()
    return list(found.tolist())


def newest_ok(rows: pa.Table) -> pa.Table:
    """One row per run_id: the newest `ok`, else the newest; in order of first appearance."""
    if _surely_differ(rows["run_id"].combine_chunks(POOL)):
        return rows
    encoded = pc.dictionary_encode(rows["run_id"], memory_pool=POOL).combine_chunks()
    runs = encoded.indices.to_numpy()
    counts = np.bincount(runs)
    if len(counts) == rows.num_rows:
        return rows
    several = np.flatnonzero(counts[runs] > 1)
    keys = pa.table({
        "run": runs[several],
        "ok": pc.equal(rows["status"], OK).take(several).cast(pa.int8()),
        "created": rows["created"].take(several),
        "position": several,
    })  # fmt: skip
    order = [("ok", "descending"), ("created", "descending"), ("position", "ascending")]
    best = keys.sort_by(order).group_by("run", use_threads=False)
    first = best.aggregate([("position", "first")])
    kept = [np.flatnonzero(counts[runs] == 1), first["position_first"].to_numpy()]
    return rows.take(np.sort(np.concatenate(kept)))


def _surely_differ(texts: pa.Array) -> bool:
    """Whether no two are equal, by 64 bits of each; False where their lengths are not all equal.

    Much quicker than telling which are, and the answer is yes unless runs were repeated.
    """
    if texts.null_count or texts.offset or not len(texts):
        return False
    offsets, letters = (np.frombuffer(part, kind) for part, kind in
                        zip(texts.buffers()[1:], (np.int32, np.uint8), strict=True))  # fmt: skip
    offsets = offsets[: len(texts) + 1]
    width = int(offsets[1] - offsets[0])
    if width == 0 or width % 8 or (np.diff(offsets) != width).any():
        return False
    words = letters[offsets[0] : offsets[-1]].view(np.uint64).reshape(len(texts), -1)
    mixed = np.sort(words @ MIX ** np.arange(words.shape[1], dtype=np.uint64))
    return bool((mixed[1:] != mixed[:-1]).all())
