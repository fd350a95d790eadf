"""How a table fits a page: its columns in panels, its rows in floats, text that is wrapped."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from kt_cli.report.table import Cell, Column, Table

ROWS_PER_FLOAT, FEWEST_ROWS = 36, 10
LINES_PER_PAGE = 45  # less the notes', which have NOTE_CHARACTERS a line, and HEADING for the rest
NOTE_CHARACTERS, NOTE_HEIGHT, HEADING = 96, 0.8, 5
PANEL_HEADING = 3  # lines that a further panel takes beside its rows
BLOCK_SPACE = 0.5  # likewise before a new block of rows
FILLED = 0.7  # of a line of wrapped text, since names break only here and there
LONGEST_TEXT = 48  # in characters; longer text is wrapped
LONGEST_LEADS, LONGEST_LEAD = 56, 22  # likewise if what leads the rows is longer than these
WRAPPED = {1: (0.38, 34), 2: (0.26, 24)}  # share of the line, and the characters that this is
LONGEST_HEADER = 9  # longer names above narrower columns are set in lines
# Characters that fit the text width of `article` at each size, and the space between columns.
SIZES = ((62, "", ""), (70, r"\small", ""), (86, r"\footnotesize", "4pt"))
SMALLEST = (90, r"\scriptsize", "3pt")
GAP = 2


@dataclass(frozen=True)
class Page:
    """What stands in one float: panels with other columns of the same rows below each other.

    `wrapped` are the keys of columns whose text is wrapped.
    """

    title: str
    panels: list[Table]
    notes: tuple[str, ...]
    wrapped: frozenset[str]

    @property
    def size(self) -> tuple[str, str]:
        """Font size and space between columns with which all panels fit the text width."""
        total = max(_set_width(_widths(panel, self.wrapped).values()) for panel in self.panels)
        return next(((size, gap) for most, size, gap in SIZES if total <= most), SMALLEST[1:])


def pages(table: Table) -> list[Page]:
    """The table cut into as many as fit a page each, its notes under the last."""
    widths = _text_widths(table)
    named = (replace(c, header=_in_lines(c.header, widths.get(c, 0))) for c in table.columns)
    table = replace(table, columns=tuple(named))
    wrapped = _wrapped(table)
    panels, heights = _panels(_widths(table, wrapped)), _heights(table, wrapped)
    notes_lines = math.ceil(sum(map(len, table.notes)) / NOTE_CHARACTERS) * NOTE_HEIGHT
    most = max(FEWEST_ROWS, min(ROWS_PER_FLOAT, int(LINES_PER_PAGE - HEADING - notes_lines)))
    if len(panels) * (sum(heights) + PANEL_HEADING) - PANEL_HEADING <= most:
        cut = [[table.part(range(len(heights)), columns) for columns in panels]]
    else:
        parts = _parts(heights, most)
        cut = [[table.part(rows, columns)] for columns in panels for rows in parts]
    titles = [table.title, *[f"{table.title} (continued)"] * (len(cut) - 1)]
    notes: list[tuple[str, ...]] = [*[()] * (len(cut) - 1), table.notes]
    return [Page(*one, wrapped) for one in zip(titles, cut, notes, strict=True)]


def leads(columns: Sequence[Column]) -> list[Column]:
    """The columns that say what a row is about."""
    return [column for column in columns if column.lead] or list(columns[:1])


def blocks(table: Table) -> list[tuple[Cell, ...]]:
    """Of each row what leads it but for the last such column: equal ones belong together."""
    places = [table.columns.index(column) for column in leads(table.columns)[:-1]]
    return [tuple(row[place] for place in places) for row in table.rows]


def _heights(table: Table, wrapped: frozenset[str]) -> list[float]:
    width = FILLED * wrapped_at(wrapped)[1]
    places = [i for i, column in enumerate(table.shown) if column.key in wrapped]
    heights: list[float] = [
        max((math.ceil(len(texts[place]) / width) for place in places), default=1)
        for texts in table.texts()
    ]
    found = blocks(table)
    for i in range(1, len(found)):
        heights[i] += BLOCK_SPACE * (found[i] != found[i - 1])
    return heights


def _parts(heights: Sequence[float], most: float) -> list[range]:
    """Rows one after another, as many at a time as `most` lines hold."""
    starts, taken = [0], 0.0
    for i, height in enumerate(heights):
        if taken + height > most and i > starts[-1]:
            starts.append(i)
            taken = 0.0
        taken += height
    return [range(*ends) for ends in zip(starts, [*starts[1:], len(heights)], strict=True)]


def _in_lines(header: str, width: int) -> str:
    """A long name of a column in lines about as wide as what stands below it."""
    width = max(width, LONGEST_HEADER)
    if "\n" in header or len(header) <= width:
        return header
    lines = [""]
    for part in re.findall(r"[^_./+ -]*[_./+ -]?", header):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def _wrapped(table: Table) -> frozenset[str]:
    widths = _text_widths(table)
    first = leads(table.shown)
    crowded = sum(widths[column] for column in first) > LONGEST_LEADS and len(first) > 1
    return frozenset(
        column.key
        for column, width in widths.items()
        if column.kind == "text"
        and width > (LONGEST_LEAD if crowded and column in first else LONGEST_TEXT)
    )


def wrapped_at(wrapped: Collection[str]) -> tuple[float, int]:
    """The width of each column whose text is wrapped: its share of the line, and characters."""
    return WRAPPED[min(2, max(1, len(wrapped)))]


def _panels(widths: dict[Column, int]) -> list[list[Column]]:
    """The columns in as few groups as fit the width, about equally wide; leads are in each."""
    most = SMALLEST[0]
    panels = _filled(widths, most)
    narrower = (_filled(widths, limit) for limit in range(min(widths.values()), most))
    return next((found for found in narrower if len(found) == len(panels)), panels)


def _filled(widths: dict[Column, int], most: int) -> list[list[Column]]:
    """The leading columns and as many others as fit `most` characters, again and again."""
    first = leads(list(widths))
    panels = [list(first)]
    for column in [column for column in widths if column not in first]:
        if len(panels[-1]) > len(first) and (
            _set_width(widths[one] for one in (*panels[-1], column)) > most
        ):
            panels.append(list(first))
        panels[-1].append(column)
    return panels


def _text_widths(table: Table) -> dict[Column, int]:
    """Characters of the longest text of each shown column."""
    texts = table.texts()
    return {c: max((len(row[i]) for row in texts), default=0) for i, c in enumerate(table.shown)}


def _widths(table: Table, wrapped: frozenset[str]) -> dict[Column, int]:
    """Characters that each shown column takes, its header included."""
    return {
        column: wrapped_at(wrapped)[1]
        if column.key in wrapped
        else max(width, *map(len, column.header.split("\n")))
        for column, width in _text_widths(table).items()
    }


def _set_width(widths: Iterable[int]) -> int:
    """Characters that columns of these widths take on the page, with the space between them."""
    each = list(widths)
    return sum(each) + GAP * (len(each) - 1)
