"""Files of predictions as named columns, whatever their format."""

from __future__ import annotations

import ast
import codecs
import csv
import gzip
import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kt_cli.data.labels import is_image
from kt_cli.errors import DataError, first_line, some_of

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, NDArray[Any]]
IDS = (
    "id", "filename", "file", "image", "path", "img", "image_path", "img_path", "filepath",
    "file_path", "file_name", "image_name", "image_id",
)  # fmt: skip
NAMED_IN_MESSAGE = 12
OF_ALL = {"prob": "probabilities", "logit": "logits"}  # of all classes, of the answer alone
# A quoted word of a printed list, as Python and NumPy write it, or a bare one.
WORD = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s,]+")

# A byte of a name that is not UTF-8, as Python's JSON has it; not the half of another sign.
RAW = re.compile(r"(?<!\\ud[89ab][0-9a-f]{2})\\udc([89a-f][0-9a-f])", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """Columns (n,) or (n, k) by lower-case name: numbers, or text as objects.

    Columns name_0, name_1 … without gaps are one, `name`.
    """

    path: Path
    columns: Columns

    @property
    def summary(self) -> str:
        return some_of([*self.columns], NAMED_IN_MESSAGE)

    def first(self, names: Sequence[str]) -> str | None:
        return next((name for name in names if name in self.columns), None)


def read_table(path: Path) -> Table:
    """Read a file of predictions.

    Raises:
        DataError: it is of no known format, damaged or empty.
    """
    ending = next((e for e in READERS if path.name.lower().endswith(e)), None)
    if ending is None:
        raise DataError(f"{path.name} is of no known format", f"Known: {', '.join(READERS)}.")
    try:
        columns = READERS[ending](path)
    except (MemoryError, DataError):
        raise
    except Exception as error:  # each format's library has errors of its own
        raise DataError(f"cannot read {path}: {first_line(error)}") from error
    if not any(len(values) for values in columns.values()):
        raise DataError(f"{path} has no rows")
    return Table(path, _gathered(columns))


def _gathered(columns: Columns) -> Columns:
    """`columns` with name_0, name_1 … as one, which is not that of an answer alone."""
    numbered: dict[str, dict[int, str]] = {}
    for key, values in columns.items():
        if values.ndim == 1 and (match := re.fullmatch(r"(.+)_([0-9]+)", key)):
            numbered.setdefault(match[1], {})[int(match[2])] = key
    gathered = dict(columns)
    for first, keys in numbered.items():
        name = OF_ALL.get(first, first) if first in columns else first
        if name not in columns and sorted(keys) == list(range(len(keys))):
            gathered[name] = np.stack([gathered.pop(keys[i]) for i in sorted(keys)], axis=1)
    return gathered


def _parquet(path: Path) -> Columns:
    import pandas as pd

    return _frame(pd.read_parquet(path))


def _opened(path: Path) -> IO[str]:
    """As text, unpacked; bytes that are not UTF-8 as `escaped` has them."""
    unpack = gzip.open if path.suffix.lower() == ".gz" else open
    with unpack(path, "rb") as file:
        start = file.read(2)
    if not start:
        raise DataError(f"{path} is empty", "docs/predictions.md says what it can hold.")
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise DataError(f"{path} is in UTF-16", "Save it in UTF-8.")
    return unpack(path, "rt", encoding="utf-8-sig", errors="backslashreplace")


def _csv(path: Path) -> Columns:
    with _opened(path) as lines:
        return _separated(lines)


def _separated(lines: IO[str]) -> Columns:
    """By what there is most of in the first line: commas, semicolons or tabs."""
    import pandas as pd

    header = lines.readline().rstrip("\r\n")
    lines.seek(0)
    by = max(",;\t", key=header.count)
    names = next(csv.reader([header], delimiter=by, skipinitialspace=True), [])
    return _frame(pd.read_csv(
        lines, sep=by, skipinitialspace=True,
        converters={name: str for name in names if name.lower() in IDS},  # 0012.png
        keep_default_na=False, na_values=["", "nan", "NaN"],  # a class may be called NA or None
        low_memory=False,  # guesses the type from all rows
    ))  # fmt: skip


def _json(path: Path) -> Columns:
    """By file name, as records, split, or one record a line: what pandas and timm write."""
    import pandas as pd

    with _opened(path) as lines:
        text = RAW.sub(r"\\\\x\1", lines.read())
    if text.lstrip()[:1] not in ("{", "["):
        return _separated(StringIO(text))  # what timm 1.0 makes of "json-record"
    try:
        content = json.loads(text)
    except ValueError:
        content = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(content, list):
        return _frame(pd.DataFrame(content))
    if {"schema", "data"} <= content.keys():
        return _frame(pd.DataFrame(content["data"]))
    if {"columns", "data"} <= content.keys():
        return _frame(pd.DataFrame(content["data"], columns=content["columns"]))
    if all(isinstance(value, list) for value in content.values()):
        return _frame(pd.DataFrame({name: pd.Series(value) for name, value in content.items()}))
    if all(map(is_image, content)) and not any(isinstance(v, dict) for v in content.values()):
        return _frame(pd.DataFrame({"filename": list(content), "pred": list(content.values())}))
    if not all(isinstance(value, dict) for value in content.values()):
        return _frame(pd.DataFrame([content]))  # a single line
    if all(list(value) == [*map(str, range(len(value)))] for value in content.values()):
        return _frame(pd.DataFrame({k: [*v.values()] for k, v in content.items()}))  # pandas' usual
    return _frame(pd.DataFrame(list(content.values())).assign(filename=list(content)))


def _npz(path: Path) -> Columns:
    with np.load(path, allow_pickle=False) as arrays:
        try:
            found = {name.lower(): arrays[name] for name in arrays.files}
        except ValueError as error:
            tip = "Save texts as np.array(texts, dtype=str): objects are not unpickled."
            raise DataError(f"cannot read {path}: {first_line(error)}", tip) from error
    return {
        name: v.astype(str).astype(object) if v.dtype.kind in "SU" else v
        for name, v in found.items()
        if v.ndim in (1, 2)
    }


def _frame(frame: pd.DataFrame) -> Columns:
    """Columns, and the index: without a name it is the images', unless it counts the rows."""
    known = {str(name).lower() for name in frame.columns}
    counts = frame.index.equals(frame.reset_index(drop=True).index)
    if frame.index.name is None and not counts and not known & set(IDS):
        frame = frame.rename_axis("id")
    if frame.index.name is not None:
        frame = frame.reset_index(drop=frame.index.name in frame.columns)
    return {str(name).lower(): _column(frame[name]) for name in frame.columns}


def _column(values: pd.Series[Any]) -> NDArray[Any]:
    """Lists become rows of a matrix; so do their printed forms, which CSV has of them."""
    if values.dtype.kind in "iufb":
        return values.to_numpy()
    cells = values.to_numpy(object)
    first = cells[0] if len(cells) else None
    if isinstance(first, str) and first.startswith("[") and first.endswith("]"):
        if not all(isinstance(cell, str) for cell in cells):
            raise ValueError(f"{values.name} has no list in some rows")
        return _printed([cell.strip("[]") for cell in cells])
    if isinstance(first, (list, tuple, np.ndarray)):
        return np.stack([np.asarray(row) for row in cells])
    return values.map(str, na_action="ignore").astype(object).where(values.notna(), None).to_numpy()


def _printed(inner: Sequence[str]) -> NDArray[Any]:
    if "'" in inner[0] or '"' in inner[0]:
        words = (WORD.findall(row) for row in inner)
        rows = [[ast.literal_eval(w) if w[0] in "'\"" else w for w in row] for row in words]
        return np.stack([np.array(row, dtype=object) for row in rows])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of numbers that are none
        numbers = np.stack([np.fromstring(row.replace(",", " "), sep=" ") for row in inner])
    whole = np.isfinite(numbers).all() and (numbers == numbers.round()).all()
    return numbers.astype(np.int64) if whole else numbers


READERS: dict[str, Callable[[Path], Columns]] = {
    ".parquet": _parquet, ".npz": _npz,
    **{e + gz: _csv for e in (".csv", ".tsv") for gz in ("", ".gz")},
    **{e + gz: _json for e in (".json", ".jsonl") for gz in ("", ".gz")},
}  # fmt: skip
