"""Many rows from disk at once: only the columns and rows that are asked for.

Texts that repeat are read as dictionaries, so that a million of them cost little. The rows are
those that `store.read` gives.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kt_cli.progress import silent
from kt_cli.rows.condition import Condition, columns_of
from kt_cli.rows.parts import OK, POOL, OnSkip, Parts, list_parts, newest_ok, readable
from kt_cli.rows.schema import RUN, TABLES

# Texts of which nearly every row has its own; all others repeat.
OWN_TEXTS = frozenset({"run_id", "created", "error", "warning", "path"})


class Found(NamedTuple):
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
        rows, left_out = newest_ok(parts.read(wanted)), 0
    else:
        runs = parts.read(RUN)
        kept = newest_ok(runs)
        if kept.num_rows == runs.num_rows:
            rows = newest_ok(parts.read(wanted, _holds(where)))
        else:
            # Only among all rows of a run can be told which one counts.
            needed = dict.fromkeys([*wanted, *columns_of(where)])
            rows = newest_ok(parts.read(list(needed))).filter(_holds(where))
        before, after = (pc.sum(pc.equal(t["status"], OK)).as_py() or 0 for t in (kept, rows))
        left_out = max(0, before - after)
    taken = {name: rows[name] for name in columns}
    del rows  # what is taken is freed column by column
    frame = {name: _values(taken.pop(name)) for name in columns}
    return Found(pd.DataFrame(frame, copy=False), left_out)


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


def count(folder: Path) -> int:
    """Rows of the parts in a table's folder, superseded ones too."""
    return sum(map(_rows, readable(list_parts(folder), silent)))


def has_rows(folder: Path, on_skip: OnSkip) -> bool:
    """Whether any part in a table's folder has rows."""
    return any(_rows(part) for p in list_parts(folder) for part in readable([p], on_skip))


def _rows(part: Path) -> int:
    try:
        return int(pq.read_metadata(part).num_rows)
    except FileNotFoundError:
        return 0


def _values(column: pa.ChunkedArray) -> pd.Series[Any]:
    """A column for pandas, curves as Arrow's: an object for each of millions would take as much
    again. Of texts that repeat, the categories are those that occur, in order, so that they sort
    and compare as the texts do."""
    if pa.types.is_list(column.type) and pa.types.is_floating(column.type.value_type):
        return pd.Series(pd.arrays.ArrowExtensionArray(column))
    if not pa.types.is_dictionary(column.type):
        return _once(column.to_pandas(memory_pool=POOL))
    whole = column.combine_chunks(POOL)
    texts = whole.dictionary.to_pylist()
    if len(texts) < 2 and whole.null_count in (0, len(whole)):  # as of most settings
        everywhere = np.full(len(whole), -1 if whole.null_count else 0, dtype=np.int8)
        dtype = texts_dtype(() if whole.null_count else texts)
        return pd.Series(pd.Categorical.from_codes(everywhere, dtype=dtype))
    codes = whole.indices.fill_null(-1).to_numpy()
    occurs = np.bincount(codes + 1, minlength=len(texts) + 1)[1:] > 0
    dtype = texts_dtype(itertools.compress(texts, occurs))
    places = np.append(dtype.categories.get_indexer(pd.Index(texts, dtype=str)), -1)
    return pd.Series(pd.Categorical.from_codes(places[codes], dtype=dtype))


def _once(values: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers; where all are the same, as in most settings, one in memory for all of them."""
    numbers = values.to_numpy()
    if not len(numbers) or numbers.dtype not in (np.int64, np.float64):
        return values
    bits = numbers.view(np.int64)  # so that NaN are the same
    if bits[0] != bits[-1] or (bits != bits[0]).any():
        return values
    return pd.Series(np.broadcast_to(numbers[0], numbers.shape), copy=False)


def is_one_number(values: pd.Series[Any]) -> bool:
    """Whether a column is one number in memory, the same in all rows."""
    return isinstance(values.dtype, np.dtype) and values.to_numpy().strides == (0,)


def stacked(curves_: pd.Series[Any]) -> NDArray[np.float64]:
    """Curves, a column of lists, by epoch (n, epochs); NaN where one has ended.

    Nulls are left out.
    """
    column = pa.array(curves_, type=pa.list_(pa.float64()), from_pandas=True)
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    known = whole.drop_null()
    lengths = pc.list_value_length(known).to_numpy()
    epochs = int(lengths.max(initial=0))
    together = known.flatten().to_numpy(zero_copy_only=False)
    if (lengths == epochs).all():  # as nearly always, and far quicker
        return np.asarray(together.reshape(len(known), epochs))
    values = np.full((len(known), epochs), np.nan)
    values[np.arange(epochs) < lengths[:, None]] = together
    return values


def is_texts(values: pd.Series[Any]) -> bool:
    """Whether a column is texts that repeat."""
    return isinstance(values.dtype, pd.CategoricalDtype)


def texts_dtype(texts: Iterable[str]) -> pd.CategoricalDtype:
    return pd.CategoricalDtype(pd.Index(sorted(set(texts)), dtype=str), ordered=True)
