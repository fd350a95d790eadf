"""A table as a value: raw cells, and what a format needs to know to write them down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

NAMES = ("summary", "students", "complementarity", "models", "failures")
MISSING = "–"


@dataclass(frozen=True)
class MeanStd:
    """Mean and sample standard deviation (ddof = 1; NaN below two values) of `n` values."""

    mean: float
    std: float
    n: int


Cell = str | int | float | MeanStd | None
Row = tuple[Cell, ...]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: its name for machines (csv, json).
        header: its name for readers; a line break where a narrow column may break.
        kind: "signed" numbers carry their sign, counts have no decimals.
        digits: decimals for readers; machines get every digit.
        detail: for machines only.
    """

    key: str
    header: str = ""
    kind: Literal["text", "count", "number", "signed"] = "number"
    digits: int = 2
    detail: bool = False

    @property
    def align(self) -> Literal["left", "right"]:
        return "left" if self.kind == "text" else "right"

    def show(self, cell: Cell) -> str:
        """The cell for a reader, in plain text with a typographic minus."""
        if isinstance(cell, MeanStd):
            spread = "" if math.isnan(cell.std) else f" ± {cell.std:.{self.digits}f}"
            return self.show(cell.mean) + spread
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return MISSING
        if isinstance(cell, str):
            return cell
        digits = 0 if self.kind == "count" else self.digits
        if round(cell, digits) == 0:
            return f"{0:.{digits}f}"
        sign = "+" if self.kind == "signed" else ""
        return f"{cell:{sign},.{digits}f}".replace("-", "−")


@dataclass(frozen=True)
class Table:
    """One table of one group of comparable rows.

    Attributes:
        name: one of `NAMES`; tables of one name have the same meaning of columns.
        group: what its rows have in common (sweep, data, settings), for machines.
        caption: the same for readers.
        notes: n, what was left out, and how to read it.
        bold: (row index, column key) of the best cells.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str = ""
    notes: tuple[str, ...] = ()
    group: Mapping[str, Cell] = field(default_factory=dict)
    bold: frozenset[tuple[int, str]] = frozenset()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"rows of {self.name} do not have {len(self.columns)} cells")

    @property
    def shown(self) -> list[Column]:
        """The columns for readers."""
        return [column for column in self.columns if not column.detail]

    def texts(self) -> list[list[str]]:
        """The cells of `shown` columns for readers, row by row."""
        return [
            [c.show(cell) for c, cell in zip(self.columns, row, strict=True) if not c.detail]
            for row in self.rows
        ]
