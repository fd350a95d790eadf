"""Many rows from disk at once: only the columns and rows that are asked for.

Texts that repeat are read as dictionaries, so that a million of them cost little. The rows are
those that `store.read` gives.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kt_cli.rows.condition import Condition, columns_of
from kt_cli.rows.parts import OK, RUN, OnSkip, Parts, list_parts, newest_ok, readable
from kt_cli.rows.schema import TABLES

# Texts of which nearly every row has its own; all others repeat.
OWN_TEXTS = frozenset({"run_id", "created", "error", "warning", "path"})


@dataclass(frozen=True)
class Found:
    """Rows of one table, and how many finished ones the condition left out."""

    rows: pd.DataFrame
    left_out: int


def scan(
    folders: Sequence[Path],
    table: str,
    columns: Sequence[str],
    where: Sequence[Condition] = (),
    on_skip: OnSkip | None = None,
) -> Found:
    """The rows of `table` in the folders of one sweep, one per run: the newest `ok`, else newest.

    Args:
        columns: the columns wanted; one that an old part lacks is null. Texts that repeat are
            ordered categories, sorted.
        where: conditions on columns of the table. A failed run, which has no results, is left
            out only if they surely do not hold.
        on_skip: called with path and reason for each part that cannot be read.
    """
    texts = {name for name, column in TABLES[table].items() if column.type == "string"} - OWN_TEXTS
    parts = Parts(folders, table, on_skip, texts)
    wanted = list(dict.fromkeys([*columns, *RUN]))
    if not where:
        return Found(_frame(newest_ok(parts.read(wanted)), columns), 0)
    runs = parts.read(RUN)
    kept = newest_ok(runs)
    if kept.num_rows == runs.num_rows:
        rows = newest_ok(parts.read(wanted, _holds(where)))
    else:
        # Only among all rows of a run can be told which one counts.
        needed = dict.fromkeys([*wanted, *columns_of(where)])
        rows = newest_ok(parts.read(list(needed))).filter(_holds(where))
    before, after = (pc.sum(pc.equal(t["status"], OK)).as_py() or 0 for t in (kept, rows))
    return Found(_frame(rows, columns), max(0, before - after))


def _holds(where: Sequence[Condition]) -> pc.Expression:
    """All conditions as one, lenient with failed runs."""
    expression = functools.reduce(operator.and_, (part.expression for part in where))
    return expression | ((pc.field("status") != OK) & expression.is_null())


def meets(rows: pd.DataFrame, where: Sequence[Condition]) -> np.ndarray:
    """Where conditions on columns of a data frame hold, as `scan` takes them: bool (n,)."""
    names = list(dict.fromkeys([*columns_of(where), "status"]))
    taken = pa.Table.from_pandas(rows[names], preserve_index=False)
    kept = taken.append_column("row number", pa.array(np.arange(len(rows)))).filter(_holds(where))
    mask = np.zeros(len(rows), dtype=bool)
    mask[kept["row number"].to_numpy()] = True
    return mask


def count(folder: Path, on_skip: OnSkip = lambda part, reason: None) -> int:
    """Rows of the parts in a table's folder, superseded ones too."""
    return sum(map(_rows, readable(list_parts(folder), on_skip)))


def has_rows(folder: Path, on_skip: OnSkip) -> bool:
    """Whether any part in a table's folder has rows."""
    return any(_rows(part) for p in list_parts(folder) for part in readable([p], on_skip))


def _rows(part: Path) -> int:
    try:
        return int(pq.read_metadata(part).num_rows)
    except FileNotFoundError:
        return 0


def _frame(rows: pa.Table, columns: Sequence[str]) -> pd.DataFrame:
    # pandas copies one column after the other and frees what it has taken.
    rows = rows.select(list(columns))
    frame: pd.DataFrame = rows.to_pandas(split_blocks=True, self_destruct=True)
    texts = {name: _sorted_texts(frame[name]) for name in columns if is_texts(frame[name])}
    return frame.assign(**texts)


def is_texts(values: pd.Series[Any]) -> bool:
    """Whether a column is texts that repeat."""
    return isinstance(values.dtype, pd.CategoricalDtype)


def _sorted_texts(values: pd.Series[Any]) -> pd.Series[Any]:
    """Categories that occur, in order, so that they sort and compare as the texts do."""
    dtype = texts_dtype(values.cat.remove_unused_categories().cat.categories)
    return values.cat.set_categories(dtype.categories, ordered=True)


def texts_dtype(texts: Iterable[str]) -> pd.CategoricalDtype:
    return pd.CategoricalDtype(pd.Index(sorted(set(texts)), dtype=str), ordered=True)
