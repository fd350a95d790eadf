"""Rows by what several columns have together, as one whole number each: quicker than by values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kt_cli.rows.scan import is_texts

SPARSE = 8  # possible codes for each row, beyond which they are sorted and not looked up

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


def compact(codes: Codes, size: int) -> tuple[Codes, Codes]:
    """Of codes (n,) below `size` those that occur (m,), in order, and the place among them (n,)."""
    if size > SPARSE * len(codes):
        found, places = np.unique(codes, return_inverse=True)
        return found, places
    occurs = np.zeros(size, dtype=bool)
    occurs[codes] = True
    found = np.flatnonzero(occurs)
    places = np.empty(size, dtype=np.intp)
    places[found] = np.arange(len(found))
    return found, places[codes]


@dataclass(frozen=True)
class Cells:
    """The combinations of values of some columns that rows have, sorted; missing values last.

    codes: of which each row is (n,). rows: one row of each (m,).
    """

    codes: Codes
    rows: Codes

    @classmethod
    def of(cls, rows: pd.DataFrame, columns: Sequence[str]) -> Cells:
        codes, count = np.zeros(len(rows), dtype=np.intp), 1
        for column in columns:
            own, size = _codes(rows[column])
            found, codes = compact(codes * size + own, count * size)
            count = len(found)
        of_each = np.empty(count, dtype=np.intp)
        of_each[codes] = np.arange(len(rows))
        return cls(codes, of_each)

    def across(self, other: Cells) -> Cells:
        """All combinations of both, row by row: those that do not occur, too (row −1)."""
        codes = self.codes * len(other.rows) + other.codes
        rows = np.full(len(self.rows) * len(other.rows), -1)
        rows[codes] = np.arange(len(codes))
        return Cells(codes, rows)

    def sums(self, values: Floats | None = None) -> Floats:
        """Of values (n,), by default of ones, in each combination (m,)."""
        return np.bincount(self.codes, values, len(self.rows)).astype(np.float64)

    def means(self, values: Floats) -> Floats:
        """NaN where there are no rows."""
        with np.errstate(invalid="ignore"):
            return self.sums(values) / self.sums()


def _codes(values: pd.Series) -> tuple[Codes, int]:
    """Codes of values in their order, and how many there may be; the last is that of null."""
    if is_texts(values):
        codes, count = values.cat.codes.to_numpy(), len(values.cat.categories)
    else:
        codes, known = pd.factorize(values, sort=True)
        count = len(known)
    return np.where(codes < 0, count, codes).astype(np.intp), count + 1
