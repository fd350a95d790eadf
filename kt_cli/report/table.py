"""A table as a value: raw cells, and what a format needs to know to write them down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from kt_cli.settings.report import TABLES as NAMES

ON_REQUEST = ("influence", "compare")
DEFAULT_NAMES = tuple(name for name in NAMES if name not in ON_REQUEST)
MISSING = "–"
SMALLEST_P = 1e-15  # that is shown


@dataclass(frozen=True)
class MeanStd:
    """Mean and sample standard deviation (ddof = 1; NaN below two values) of `n` values."""

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its 95% interval; these are NaN where there is none."""

    value: float
    low: float
    high: float


Cell = str | int | float | MeanStd | Interval | None
Row = tuple[Cell, ...]


def number(cell: Cell) -> float | None:
    """What a cell is compared and sorted by; None for text and for what is missing."""
    if isinstance(cell, MeanStd):
        cell = cell.mean
    if isinstance(cell, Interval):
        cell = cell.value
    return None if cell is None or isinstance(cell, str) or math.isnan(cell) else cell


@dataclass(frozen=True)
class Column:
    """One column."""

    key: str  # its name for machines (csv, json)
    header: str = ""  # its name for readers; a line break where a narrow column may break
    # "signed" numbers carry their sign, counts and integers have no decimals, of a "range" only the
    # interval is shown, small p-values are shown in powers of ten.
    kind: Literal["text", "count", "number", "signed", "range", "p"] = "number"
    digits: int = 2  # decimals for readers; machines get every digit
    most: int = 0  # letters of a text that readers see, on one line; 0 for all as it is
    detail: bool = False  # for machines only
    # Says, with others such, what a row is about; the first column does so without.
    lead: bool = False

    @property
    def align(self) -> Literal["left", "right"]:
        return "left" if self.kind == "text" else "right"

    def show(self, cell: Cell) -> str:
        """The cell for a reader, in plain text with a typographic minus."""
        if isinstance(cell, MeanStd):
            spread = "" if math.isnan(cell.std) else f" ± {cell.std:.{self.digits}f}"
            return self.show(float(cell.mean)) + spread
        if isinstance(cell, Interval):
            return self._interval(cell)
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return MISSING
        if isinstance(cell, str):
            return self._text(cell) if self.most else cell
        return self._p_value(cell) if self.kind == "p" else self._number(cell)

    def _text(self, text: str) -> str:
        line = " ".join(text.split())
        return line if len(line) <= self.most else f"{line[: self.most - 1].rstrip()}…"

    def _number(self, value: float) -> str:
        digits = 0 if self.kind == "count" or isinstance(value, int) else self.digits
        if round(value, digits) == 0:
            return f"{0:.{digits}f}"
        sign = "+" if self.kind in ("signed", "range") else ""
        return f"{value:{sign},.{digits}f}".replace("-", "−")

    def _interval(self, cell: Interval) -> str:
        known = not (math.isnan(cell.low) or math.isnan(cell.high))
        ends = f"[{self._number(cell.low)}, {self._number(cell.high)}]" if known else ""
        if self.kind == "range":
            return ends or MISSING
        return f"{self.show(cell.value)} {ends}".rstrip()

    def _p_value(self, value: float) -> str:
        if value >= 0.0005:
            return f"{value:.3f}"
        return f"{value:.0e}".replace("e-0", "e-") if value >= SMALLEST_P else f"<{SMALLEST_P:.0e}"


@dataclass(frozen=True)
class Table:
    """One table of one group of comparable rows."""

    name: str  # one of `NAMES`; tables of one name have the same meaning of columns
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str = ""  # the same for readers
    notes: tuple[str, ...] = ()  # n, what was left out, and how to read it
    # What its rows have in common (sweep, data, settings), for machines.
    group: Mapping[str, Cell] = field(default_factory=dict)
    bold: frozenset[tuple[int, str]] = frozenset()  # (row index, column key) of the best cells
    # What its rows bear out, in a sentence; "" where nothing is concluded from them.
    conclusion: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"rows of {self.name} do not have {len(self.columns)} cells")

    def part(self, rows: Sequence[int], columns: Iterable[Column] | None = None) -> Table:
        """Some of the rows and columns, in another order."""
        columns = self.columns if columns is None else tuple(columns)
        places = [self.columns.index(column) for column in columns]
        cells = tuple(tuple(self.rows[i][place] for place in places) for i in rows)
        new, keys = {old: i for i, old in enumerate(rows)}, {column.key for column in columns}
        bold = frozenset((new[i], key) for i, key in self.bold if i in new and key in keys)
        return replace(self, columns=columns, rows=cells, bold=bold)

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
