"""Many rows from disk at once: only the columns and rows that are asked for.

Texts that repeat are read as dictionaries, so that a million of them cost little. The rows are
those that `store.read` gives.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from kt_cli.errors import first_line
from kt_cli.rows.condition import Literal, Name, Node, columns_of
from kt_cli.rows.schema import TABLES
from kt_cli.rows.store import OK, RUN, TYPES, OnSkip, list_parts, newest_ok

# Texts of which nearly every row has its own; all others repeat.
OWN_TEXTS = frozenset({"run_id", "created", "error", "warning", "path"})
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge, "+": pc.add, "-": pc.subtract, "*": pc.multiply,
    "/": pc.divide,
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Rows of one table, and how many finished ones the condition left out."""

    rows: pd.DataFrame
    left_out: int


def scan(
    folders: Iterable[Path],
    table: str,
    columns: Sequence[str],
    where: Node | None = None,
    on_skip: OnSkip | None = None,
) -> Found:
    """The rows of `table` in the folders of one sweep, one per run: the newest `ok`, else newest.

    Args:
        columns: the columns wanted; one that an old part lacks is null. Texts that repeat are
            ordered categories, sorted.
        where: a condition on columns of the table. A failed run, which has no results, is left
            out only if it surely does not hold.
        on_skip: called with path and reason for each part that cannot be read.
    """
    parts = _Parts([folder / table for folder in folders], table, on_skip)
    wanted = list(dict.fromkeys([*columns, *RUN]))
    if where is None:
        return Found(_frame(newest_ok(parts.read(wanted)), columns), 0)
    runs = parts.read(RUN)
    kept = newest_ok(runs)
    condition = holds(where)
    if kept.num_rows == runs.num_rows:
        rows = newest_ok(parts.read(wanted, condition))
    else:
        # Only among all rows of a run can be told which one counts.
        needed = list(dict.fromkeys([*wanted, *columns_of(where)]))
        rows = newest_ok(parts.read(needed)).filter(condition)
    before, after = (pc.sum(pc.equal(t["status"], OK)).as_py() or 0 for t in (kept, rows))
    return Found(_frame(rows, columns), max(0, before - after))


def count(folder: Path, on_skip: OnSkip | None = None) -> int:
    """Rows of the parts in a table's folder, superseded ones too; reads none of them."""
    return sum(_rows(part, on_skip) for part in list_parts(folder))


def has_rows(folder: Path, on_skip: OnSkip | None = None) -> bool:
    """Whether any part in a table's folder has rows."""
    return any(_rows(part, on_skip) for part in list_parts(folder))


def _rows(part: Path, on_skip: OnSkip | None) -> int:
    try:
        return int(pq.read_metadata(part).num_rows)
    except FileNotFoundError:
        return 0
    except (OSError, pa.ArrowException) as error:
        if on_skip is not None:
            on_skip(part, first_line(error))
        return 0


def holds(where: Node) -> pc.Expression:
    """The condition as an expression of pyarrow, lenient with failed runs."""
    expression, failed = _expression(where), pc.field("status") != OK
    return expression | (failed & expression.is_null())


def meets(rows: pd.DataFrame, where: Node) -> np.ndarray:
    """Where a condition on columns of a data frame holds, as `scan` takes it: bool (n,)."""
    names = list(dict.fromkeys([*columns_of(where), "status"]))
    taken = pa.Table.from_pandas(rows[names], preserve_index=False)
    place = pa.array(np.arange(len(rows)))
    kept = taken.append_column("row number", place).filter(holds(where))
    mask = np.zeros(len(rows), dtype=bool)
    mask[kept["row number"].to_numpy()] = True
    return mask


class _Parts:
    """The parts of a table in several folders; those that cannot be read are named once."""

    def __init__(self, folders: Sequence[Path], table: str, on_skip: OnSkip | None) -> None:
        self._folders, self._on_skip = folders, on_skip
        self._skipped: set[Path] = set()
        self._schema = pa.schema([(c, _type(table, c)) for c in TABLES[table]])
        texts = {field.name for field in self._schema if pa.types.is_dictionary(field.type)}
        options = ds.ParquetReadOptions(dictionary_columns=texts)
        self._format, self._files = ds.ParquetFileFormat(read_options=options), LocalFileSystem()

    def read(self, columns: Sequence[str], where: pc.Expression | None = None) -> pa.Table:
        """All rows; those of parts that a merge replaces meanwhile perhaps twice."""
        seen: set[Path] = set()
        tables = [pa.schema([self._schema.field(c) for c in columns]).empty_table()]
        while True:
            listed = [part for folder in self._folders for part in list_parts(folder)]
            new = [part for part in listed if part not in seen]
            if not new:
                return pa.concat_tables(tables).unify_dictionaries()
            seen.update(new)
            tables += self._read(new, columns, where)

    def _read(
        self, parts: list[Path], columns: Sequence[str], where: pc.Expression | None
    ) -> list[pa.Table]:
        """All together, which is quickest; one by one where some cannot be read."""
        try:
            return [self._table(parts, columns, where)]
        except (OSError, pa.ArrowException):
            each = (self._one(part, columns, where) for part in parts)
            return [rows for rows in each if rows is not None]

    def _one(
        self, part: Path, columns: Sequence[str], where: pc.Expression | None
    ) -> pa.Table | None:
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
        self, parts: list[Path], columns: Sequence[str], where: pc.Expression | None
    ) -> pa.Table:
        fragments = [self._format.make_fragment(str(p), filesystem=self._files) for p in parts]
        data = ds.FileSystemDataset(fragments, self._schema, self._format, self._files)
        return data.to_table(columns=list(columns), filter=where)


def _type(table: str, column: str) -> pa.DataType:
    type_ = TYPES[TABLES[table][column].type]
    repeats = pa.types.is_string(type_) and column not in OWN_TEXTS
    return pa.dictionary(pa.int32(), type_) if repeats else type_


def _frame(rows: pa.Table, columns: Sequence[str]) -> pd.DataFrame:
    # pandas copies one column after the other and frees what it has taken.
    rows = rows.select(list(columns))
    frame: pd.DataFrame = rows.to_pandas(split_blocks=True, self_destruct=True)
    texts = {name: sorted_texts(frame[name]) for name in columns if is_texts(frame[name])}
    return frame.assign(**texts)


def is_texts(values: pd.Series[Any]) -> bool:
    """Whether a column is texts that repeat."""
    return isinstance(values.dtype, pd.CategoricalDtype)


def sorted_texts(values: pd.Series[Any]) -> pd.Series[Any]:
    """Categories that occur, in order, so that they sort and compare as the texts do."""
    dtype = texts_dtype(values.cat.remove_unused_categories().cat.categories)
    return values.cat.set_categories(dtype.categories, ordered=True)


def texts_dtype(texts: Iterable[str]) -> pd.CategoricalDtype:
    return pd.CategoricalDtype(pd.Index(sorted(set(texts)), dtype=str), ordered=True)


def _expression(node: Node) -> pc.Expression:
    if isinstance(node, Literal):
        return pc.scalar(node.value)
    if isinstance(node, Name):
        return pc.field(node.column)
    if node.op in ("+", "-", "*", "/"):
        # As floating point: pyarrow's integers would round and overflow, and know no x / 0.
        sides = (_expression(side).cast(pa.float64()) for side in node.arguments)
        return OPERATORS[node.op](*sides)
    first, *others = map(_expression, node.arguments)
    match node.op:
        case "and":
            return functools.reduce(operator.and_, others, first)
        case "or":
            return functools.reduce(operator.or_, others, first)
        case "not":
            return ~first
        case "null":
            return first.is_null(nan_is_null=True)
        case "in":
            # isin is never null, so that its opposite would hold of nulls.
            return functools.reduce(operator.or_, (first == value for value in others))
        case "contains":
            (part,) = _values(node.arguments[1:])
            return pc.match_substring(first.cast(pa.string()), part)
    return OPERATORS[node.op](first, *others)


def _values(nodes: Iterable[Node]) -> list[Any]:
    return [node.value for node in nodes if isinstance(node, Literal)]
