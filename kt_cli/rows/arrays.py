"""Equally long arrays as one Parquet file: written batch by batch, atomically, with checksums.

Arrays are (n,) or (n, k).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from kt_cli.errors import DataError, first_line
from kt_cli.files import atomic_file, escaped, write_error

Array = Any  # of NumPy, or a list of strings
Arrays = dict[str, Array]
TEXT = "id"  # the column of names, which share their beginnings


class Info(NamedTuple):
    """What a file says of itself without reading its values."""

    rows: int
    columns: tuple[str, ...]
    about: dict[str, str]


@contextmanager
def writer(path: Path, about: Mapping[str, str]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields what appends a batch of arrays; the file is there when the block ends without error.

    Args:
        about: kept beside the arrays; read when the block ends, so it may be filled meanwhile.

    Raises:
        WriteError: the file could not be written; nothing is left behind.
    """
    with atomic_file(path) as temporary:
        opened: list[pq.ParquetWriter] = []

        def append(columns: Mapping[str, Any]) -> None:
            table = pa.table({name: _to_arrow(values) for name, values in columns.items()})
            try:
                if not opened:
                    opened.append(_open(temporary, table.schema))
                opened[0].write_table(table)
            except OSError as error:
                raise write_error(path, error) from error

        try:
            yield append
            opened[0].add_key_value_metadata({key: escaped(text) for key, text in about.items()})
        finally:
            for file in opened:
                file.close()


def write(path: Path, columns: Mapping[str, Any], about: Mapping[str, str]) -> None:
    """Write arrays as one file, atomically."""
    with writer(path, about) as append:
        append(columns)


def _open(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    encodings = {TEXT: "DELTA_BYTE_ARRAY"} if TEXT in schema.names else None
    return pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=False, column_encoding=encodings,
        write_page_checksum=True,
    )  # fmt: skip


def read(path: Path, columns: Sequence[str] | None = None) -> tuple[Arrays, dict[str, str]]:
    """Arrays by name, all or those of `columns` that there are, and what is said about them.

    Raises:
        DataError: the file cannot be read, or its content is not what was written.
    """
    with _opened(path) as file:
        present = [n for n in file.schema_arrow.names if columns is None or n in columns]
        table = file.read(present)
        return {name: _from_arrow(table.column(name)) for name in present}, _about(file)


def batches(path: Path, column: str, rows: int) -> Iterator[Any]:
    """One column in batches of `rows` rows.

    Raises:
        DataError: as `read`.
    """
    with _opened(path) as file:
        for batch in file.iter_batches(rows, columns=[column]):
            yield _from_arrow(batch.column(0))


def info(path: Path) -> Info:
    """Number of rows, columns and what is said about them.

    Raises:
        DataError: the file cannot be read.
    """
    with _opened(path) as file:
        return Info(file.metadata.num_rows, tuple(file.schema_arrow.names), _about(file))


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            yield file
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {first_line(error)}") from error


def _about(file: pq.ParquetFile) -> dict[str, str]:
    found = {k.decode(): v.decode() for k, v in (file.metadata.metadata or {}).items()}
    return {k: v for k, v in found.items() if k != "ARROW:schema"}


def _to_arrow(values: Any) -> pa.Array:
    if getattr(values, "ndim", 1) == 2:
        flat = pa.array(values.reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.array(values)


def _from_arrow(column: pa.ChunkedArray | pa.Array) -> Any:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_fixed_size_list(column.type):
        flat = whole.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(-1, column.type.list_size)
    return whole.to_numpy(zero_copy_only=False)
