"""What a report says in one sentence, from the tables that it has, however they are arranged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kt_cli.errors import counted
from kt_cli.report.table import Cell, Column, Interval, MeanStd, Table, number

CONTROL = "self"  # nobody teaches in it
FEW = 3  # groups of rows that have a sentence each
NEEDED = ("n", "success_rate", "delta_interval")
percent, points = Column("", digits=1).show, Column("", kind="signed").show


def concluded(table: Table) -> Table:
    """A table as it was built, with its conclusion."""
    said = {"summary": _of_transfers, "complementarity": _of_pairs}.get(table.name)
    return table if said is None else replace(table, conclusion=said(table))


def conclusions(tables: Sequence[Table]) -> list[str]:
    """A sentence for each group of comparable transfers, else for each of compared pairs."""
    told = [table for table in tables if table.conclusion]
    told = [table for table in told if table.name == "summary"] or told
    if len(told) < 2:
        return [table.conclusion for table in told]
    said = [f"{name}: {t.conclusion}" for name, t in zip(_groups(told), told[:FEW], strict=False)]
    more = len(told) - FEW
    own = ("has", "its") if more == 1 else ("have", "their")
    tail = f"{more:,} more {own[0]} a {told[0].name} of {own[1]} own."
    return [*said, tail] if more > 0 else said


def _groups(tables: Sequence[Table]) -> list[str]:
    """What each table is about: its sweep, its settings, and else what tells them apart."""
    apart = [
        key for key in tables[0].group
        if key not in ("sweep", "settings") and len({t.group.get(key) for t in tables}) > 1
    ]  # fmt: skip
    named = ["{sweep}", *["settings {settings}"] * any("settings" in t.group for t in tables)]
    while True:
        labels = [", ".join(named).format_map(table.group) for table in tables]
        if not apart or len(set(labels)) == len(labels):
            return labels
        key = apart.pop(0)
        named.append(f"{{{key}}} images" if key == "images" else f"{key} {{{key}}}")


@dataclass(frozen=True)
class _Line:
    """A row of a summary: a method, with what else is told apart, and what came of it."""

    name: str
    control: bool  # nobody teaches in it
    n: int
    success: Interval
    kept: int
    delta: Interval
    alike: bool  # whether all transfers did the same
    best: bool

    @property
    def helps(self) -> bool:
        return self.delta.low > 0

    @property
    def says(self) -> str:
        if self.n == 1:
            kept = ", left as it was" * bool(self.kept)
            return f"one transfer{kept}, Δ {points(self.delta).partition(' ')[0]} points"
        wins = round(self.n * self.success.value / 100)
        share, _, ends = percent(self.success).partition(" ")
        many = f"{wins:,} of {counted(self.n, 'transfer')} gained ({f'{share}% {ends}'.rstrip()})"
        kept = f", {self.kept:,} left as they were" if self.kept else ""
        mean, _, ends = points(self.delta).partition(" ")
        return f"{many}{kept}, Δ {mean} points on average {ends}".rstrip()

    @property
    def still(self) -> bool:
        """Whether no student became better, or worse."""
        return self.success.value == 0 and self.delta.value == 0


def _of_transfers(table: Table) -> str:
    lines = _lines(table)
    if not lines:
        return ""
    candidates = [line for line in lines if not line.control] or lines
    best = max(candidates, key=lambda line: (line.helps, line.best, line.delta.value))
    low, high = best.delta.low, best.delta.high
    alone = len(lines) == 1
    if best.still:
        said = f"{best.name} left all {counted(best.n, 'student')} as good as they were"
    elif best.helps:
        said = f"{best.name} helps: {best.says}"
    elif high < 0:
        said = f"{best.name} harms: {best.says}" if alone else (
            f"Nothing helps here; {best.name} harms least: {best.says}")  # fmt: skip
    elif math.isnan(low):
        few = "; all alike" if best.alike else "; too few models to say what others would do"
        said = f"{best.name}: {best.says}{few}"
    else:
        said = f"It is not shown that {best.name} helps: {best.says}" if alone else (
            f"No method is shown to help; {best.name} did best: {best.says}")  # fmt: skip
    parted = sum(column.lead for column in table.columns) > 1  # by more than the method
    return said + ("" if alone else _against(best, lines, parted)) + "."


def _against(best: _Line, lines: Sequence[_Line], parted: bool) -> str:
    """What is borne out of the others."""
    harmful = [line for line in lines if line is not best and line.delta.high < 0]
    harm = ", ".join(f"{line.name} (Δ {points(line.delta.value)})" for line in harmful[:FEW])
    two, than = len(lines) == 2, ""
    control = next((line.name for line in lines if line.control and line.best), None)
    if control and not best.control and not parted:
        than = f"; {control}, in which nobody teaches, is better on the same pairs"
    elif best.best and not parted:
        than = f"; better than {'the other' if two else 'every other'} on the same pairs"
    elif not parted:
        whom = ("neither", "the other") if two else ("none", "all others")
        than = f"; {whom[0]} is shown to be better than {whom[1]}"
    return than + (f"; {harm} harm{'s' * (len(harmful) == 1)}" if harm else "")


def _lines(table: Table) -> list[_Line]:
    keys = [column.key for column in table.columns]
    leads = [i for i, column in enumerate(table.columns) if column.lead]
    found = []
    for i, row in enumerate(table.rows):
        cells: dict[str, Cell] = dict(zip(keys, row, strict=True))
        n, success, interval = (cells[key] for key in NEEDED)
        if not isinstance(success, Interval) or not isinstance(interval, Interval):
            continue
        assert isinstance(n, int)
        if not n:
            continue
        named = (leads[-1], *leads[:-1])  # the method first
        name = ", ".join(_told(table.columns[place], row[place]) for place in named)
        kept = round(n * (number(cells.get("abstained")) or 0) / 100)
        delta, method = cells.get("delta"), str(row[named[0]])
        alike = n > 1 and isinstance(delta, MeanStd) and delta.std == 0
        best = (i, "delta") in table.bold
        control = method.partition("+")[0] == CONTROL
        found.append(_Line(name, control, n, success, kept, interval, alike, best))
    return found


def _told(column: Column, cell: Cell) -> str:
    """What a row is about; numbers and truths with the name of what they are of."""
    said = column.show(cell)
    named = column.kind == "text" and said not in ("True", "False")
    return said if named else f"{column.header or column.key} {said}"


def _of_pairs(table: Table) -> str:
    keys = [column.key for column in table.columns]
    rows = {str(row[0]): dict(zip(keys, row, strict=True)) for row in table.rows}
    if "pos_flips" not in rows:
        return ""
    low, median, high = (number(rows["pos_flips"][key]) for key in ("min", "median", "max"))
    if low is None or median is None or high is None:
        return ""
    weaker = number(rows["pos_flips_weaker"]["median"]) if "pos_flips_weaker" in rows else None
    still = "" if weaker is None else f", of weaker teachers {percent(weaker)}%"
    return (
        f"On {percent(low)} to {percent(high)}% of the images a teacher is right where its student "
        f"is wrong (ρ⁺; median {percent(median)}%{still})."
    )
