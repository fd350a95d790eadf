"""Columns that are the same in all rows, as most settings are: made without being read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def alike(
    parts: Iterable[pq.FileMetaData], wanted: Collection[str], schema: pa.Schema
) -> dict[str, Any]:
    """Of these columns those that have one value in all rows of the parts, and the value.

    By the statistics that a part of many rows has. Floats are told by null alone: those do not
    count NaN.
    """
    found: dict[str, Any] | None = None
    for part in parts:
        own = _alike(part, wanted if found is None else found, schema)
        found = own if found is None else {n: v for n, v in found.items() if own.get(n, own) == v}
        if not found:
            break
    return found or {}


def _alike(about: pq.FileMetaData, wanted: Iterable[str], schema: pa.Schema) -> dict[str, Any]:
    written = about.schema.to_arrow_schema()
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    # Statistics are of leaves: parts of other tools may have columns of several.
    places = {about.schema.column(i).path: i for i in range(about.num_columns)}
    found = {}
    for name in wanted:
        field, place = written.get_field_index(name), places.get(name)
        type_ = _plain(schema.field(name).type)
        if field < 0 or place is None or pa.types.is_nested(type_):
            continue
        if written.field(field).type != type_:
            continue
        said = {_value(group.column(place).statistics, type_) for group in groups}
        if len(said) == 1 and (value := said.pop()) is not Ellipsis:
            found[name] = value
    return found


def _value(said: pq.Statistics | None, type_: pa.DataType) -> Any:
    """The one value of a column in a group of rows, None for null; Ellipsis where not known."""
    if said is None or not said.has_null_count:
        return ...
    if not said.num_values:
        return None
    if said.null_count or pa.types.is_floating(type_) or not said.has_min_max:
        return ...
    return said.min if said.min == said.max else ...


def everywhere(value: Any, count: int, type_: pa.DataType, pool: pa.MemoryPool) -> pa.Array:
    """A column of `count` rows that have this value."""
    if value is None:
        return pa.nulls(count, type_, memory_pool=pool)
    if not pa.types.is_dictionary(type_):
        return pa.repeat(pa.scalar(value, type_), count, memory_pool=pool)
    texts = pa.array([value], type_.value_type)
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), texts)


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_
