"""All rows as columns of compressed numbers, each by itself, within a budget of bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kt_cli.report.page.blocks import zipped
from kt_cli.report.page.fields import BY_CLASS, LAST, MAX_ROWS, SORTED, Field, fields
from kt_cli.report.page.options import OPTIONS

# Numbers with fewer different values than one in so many rows are written once each.
REPEATED = 8
TINY = 4096
CLASSES = 6  # that changed most
SHOWN = ("key", "label", "meaning", "kind", "digits", "signed", "first")


@dataclass(frozen=True)
class Packed:
    """A column: whole numbers in base64 of gzip, first all their lowest bytes, then the next.

    With `values` (base64 of gzip of JSON) they are 1 + the place of the row's value among these;
    without, the row's value is (`low` + number − 1) / `scale`. 0 is missing in both.
    `width` are the bytes of a number.
    """

    numbers: str
    width: int
    values: str = ""
    low: int = 0
    scale: int = 1

    @property
    def size(self) -> int:
        return len(self.numbers) + len(self.values)


@dataclass
class Part:
    """The rows of one table as the page carries them."""

    table: str
    count: int
    found: list[Field] = field(default_factory=list)
    columns: dict[str, Packed] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)  # columns that found no room
    refused: str = ""  # why the rows are not in the page at all; empty where they are

    def as_json(self) -> dict[str, Any]:
        """What page.js reads."""
        columns = [
            {**{name: getattr(f, name) for name in SHOWN}, **asdict(self.columns[f.key])}
            for f in self.found
            if f.key in self.columns
        ]
        return {
            "table": self.table, "count": self.count, "columns": columns,
            "sorted": SORTED[self.table], "options": OPTIONS if self.table == "transfer" else [],
        }  # fmt: skip


def pack(frames: Mapping[str, Sequence[pd.DataFrame]], budget: int) -> list[Part]:
    """The rows of `frames`, which may come in pieces, in at most `budget` bytes of base64.

    What is shown at first goes first, for all tables; the other columns follow by importance as
    long as there is room. A table has all its rows in the page or none.
    """
    parts, rows = [], {}
    for table, pieces in frames.items():
        count = sum(map(len, pieces))
        if count > MAX_ROWS:
            parts.append(Part(table, count, refused=f"a page holds at most {MAX_ROWS:,}"))
        elif count:
            filled = [piece for piece in pieces if len(piece)]
            if len(filled) > 1:  # older pandas lets columns that say nothing decide about types
                filled = [piece.dropna(axis=1, how="all") for piece in filled]
            whole = pd.concat(filled, ignore_index=True).reindex(columns=pieces[0].columns)
            known = set(BY_CLASS) <= {*whole}
            rows[table] = pd.concat([whole, moved(whole)], axis=1) if known else whole
            parts.append(Part(table, count, fields(table, rows[table])))
    for part in [part for part in parts if not part.refused]:
        packed = {f.key: encode(rows[part.table][f.key], f) for f in part.found if f.first}
        size = sum(column.size for column in packed.values())
        if size > budget:
            part.refused = "they are larger than what a page holds"
            continue
        part.columns |= packed
        budget -= size
    _pack_rest([part for part in parts if not part.refused], rows, budget)
    return parts


def _pack_rest(parts: Sequence[Part], rows: Mapping[str, pd.DataFrame], budget: int) -> None:
    """Of all tables: first what takes next to nothing, then by importance, in turn."""

    def rank(one: tuple[Part, Field, Packed]) -> tuple[bool, int, int]:
        part, f, column = one
        last = LAST.index(f.key) + 1 if f.key in LAST else 0
        return column.size > TINY, last, part.found.index(f)

    waiting = [(part, f) for part in parts for f in part.found if not f.first]
    packed = [(part, f, encode(rows[part.table][f.key], f)) for part, f in waiting]
    for part, f, column in sorted(packed, key=rank):
        if column.size > budget:
            part.dropped.append(f.key)
        else:
            part.columns[f.key] = column
            budget -= column.size


def encode(values: pd.Series[Any], f: Field) -> Packed:
    """A column in the digits that `f` keeps; strings are sorted by code point."""
    if f.kind == "text":
        return _text(values)
    numbers = pd.to_numeric(values).to_numpy(dtype=float, na_value=np.nan)
    known = np.isfinite(numbers)
    exact = f.kind in ("p", "free")
    kept = numbers[known]
    kept = _significant(kept, f.decimals) if exact else np.round(kept, f.decimals)
    distinct, places = np.unique(kept, return_inverse=True)
    scaled = np.round(kept * 10**f.decimals)
    whole = np.zeros(len(numbers), dtype=np.int64)
    if exact or len(distinct) * REPEATED <= len(numbers) or np.ptp(scaled) >= 2**30:
        whole[known] = places + 1
        return _packed(whole, [int(v) if v.is_integer() else float(v) for v in distinct])
    low = int(scaled.min())
    whole[known] = scaled.astype(np.int64) - low + 1
    return _packed(whole, low=low, scale=10**f.decimals)


def _packed(
    whole: npt.NDArray[np.int64], values: Sequence[Any] | None = None, low: int = 0, scale: int = 1
) -> Packed:
    largest = int(whole.max(initial=0))
    width = next(n for n in (1, 2, 3, 4) if largest < 256**n)
    planes = whole.astype("<u4").view(np.uint8).reshape(-1, 4).T[:width]
    said = "" if values is None else zipped(json.dumps(values, ensure_ascii=False).encode())
    return Packed(zipped(planes.tobytes()), width, said, low, scale)


def _text(values: pd.Series[Any]) -> Packed:
    codes, distinct = pd.factorize(with_texts(values))
    texts = [str(v).lower() if isinstance(v, (bool, np.bool_)) else str(v) for v in distinct]
    order = sorted(range(len(texts)), key=texts.__getitem__)
    place = np.zeros(len(texts) + 1, dtype=np.int64)
    place[order] = np.arange(len(texts)) + 1
    return _packed(place[codes], [texts[i] for i in order])


def with_texts(values: pd.Series[Any]) -> pd.Series[Any]:
    """A column, lists as texts."""
    known = values.dropna()
    if len(known) and isinstance(known.iloc[0], (list, tuple, np.ndarray)):
        return values.map(listed, na_action="ignore")
    return values


def listed(values: Sequence[str | float | None]) -> str:
    """A list of names, or of numbers in short, so that it is a value like any other."""
    return ", ".join(
        v if isinstance(v, str) else "–" if v is None or v != v else f"{v:.5g}" for v in values
    )


def moved(rows: pd.DataFrame) -> pd.Series[Any]:
    """Of each row the classes that changed most, as text; None where there are no counts."""
    said = [
        None if np.ndim(gain) == 0 or np.ndim(loss) == 0
        else _changed(np.asarray(gain), np.asarray(loss))
        for gain, loss in zip(*(rows[column] for column in BY_CLASS), strict=True)
    ]  # fmt: skip
    return pd.Series(said, rows.index, dtype=object, name="moved")


def _changed(gain: npt.NDArray[np.int32], loss: npt.NDArray[np.int32]) -> str:
    net = gain - loss
    order = np.argsort(-np.abs(net), kind="stable")[:CLASSES]
    return ", ".join(f"{i}: +{gain[i]} −{loss[i]}" for i in order if net[i])


def _significant(numbers: npt.NDArray[np.float64], digits: int) -> npt.NDArray[np.float64]:
    """Finite numbers to so many significant digits; 0 stays 0."""
    size = np.abs(np.where(numbers != 0, numbers, 1.0))
    # A power of ten below 1e-308 is none that a float holds.
    power = np.clip(digits - 1 - np.floor(np.log10(size)), -300, 300)
    return np.asarray(np.round(numbers * 10.0**power) / 10.0**power)
