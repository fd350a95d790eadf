"""Reading the parts of a table: all together where that works, and which row of a run counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from kt_cli.errors import first_line
from kt_cli.rows.schema import TABLES

OK = "ok"
RUN = ("run_id", "status", "created")  # what decides which row of a run counts
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
        coded = pa.dictionary(pa.int32(), pa.string())
        fields = (f.with_type(coded) if f.name in texts else f for f in schema(table))
        self._schema = pa.schema(fields)
        options = ds.ParquetReadOptions(dictionary_columns=texts)
        self._format, self._files = ds.ParquetFileFormat(read_options=options), LocalFileSystem()

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
            try:  # all together, which is quickest; one by one where some cannot be read
                tables.append(self._table(new, columns, where))
                seen.update(new)
            except (OSError, pa.ArrowException):
                found = {part: self.one(part, columns, where) for part in new}
                tables += [rows for rows in found.values() if rows is not None]
                seen.update(part for part, rows in found.items() if rows is not None)
        return pa.concat_tables(tables).unify_dictionaries()

    def one(
        self, part: Path, columns: Sequence[str], where: pc.Expression | None = None
    ) -> pa.Table | None:
        """The rows of one part; None where it cannot be read, or is gone into a merged one."""
        try:
            return self._table([part], columns, where)
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            if self._on_skip is not None and part not in self._skipped:
                self._on_skip(part, first_line(error))
            self._skipped.add(part)
            return None

    def _table(
        self, parts: Sequence[Path], columns: Sequence[str], where: pc.Expression | None
    ) -> pa.Table:
        fragments = [self._format.make_fragment(str(p), filesystem=self._files) for p in parts]
        data = ds.FileSystemDataset(fragments, self._schema, self._format, self._files)
        return data.to_table(columns=list(columns), filter=where)


def newest_ok(rows: pa.Table) -> pa.Table:
    """One row per run_id: the newest `ok`, else the newest; in order of first appearance."""
    runs = pc.dictionary_encode(rows["run_id"]).combine_chunks().indices.to_numpy()
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
