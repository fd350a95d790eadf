"""Several teachers: each of a team alone, then what they do together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kt_cli.errors import counted
from kt_cli.report import stats
from kt_cli.report.captions import caption
from kt_cli.report.groups import SAME_TRANSFER, Group, across, split
from kt_cli.report.methods import method_rank
from kt_cli.report.query import Query, seed_average
from kt_cli.report.read import Results
from kt_cli.report.table import Cell, Column, Row, Table
from kt_cli.report.tables.shared import BEST, transfer_notes
from kt_cli.report.versus import borne_out, by_run
from kt_cli.spec import TOGETHER

TITLE = "Several teachers"
NUMBERS = ("delta", "gain", "loss", "transfer_rate", "share_taught")
LISTS = ("teacher_rates", "step_accs")
NEEDS = {"transfer": (*NUMBERS, *LISTS)}
ALONE, BEST_ALONE = "alone", "best alone"
EACH = {ALONE: "each alone", BEST_ALONE: "the best alone"}
COLUMNS = (
    Column("student", "student", "text", lead=True),
    Column("method", "method", "text", lead=True),
    Column("team", kind="text", detail=True),
    Column("teachers", kind="text", detail=True),
    Column("way", kind="text", detail=True),
    Column("taught_by", "taught by", "text", lead=True),
    Column("n", "n", "count"),
    Column("delta", "Δ\n(pp)", "signed"),
    Column("gain", "gain\n(%)"),
    Column("loss", "loss\n(%)"),
    Column("transfer_rate", "rate\n(%)", digits=1),
    Column("share_taught", "taught\n(%)", digits=1),
    Column("teacher_rates", "rate of\neach (%)", "text"),
    Column("step_accs", "top-1 after\neach turn (%)", "text"),
)
LEGEND = (
    "taught by: one teacher of a team alone, then all of the team with the same settings: "
    "sequential, one after another, by accuracy ascending or descending; parallel, for each "
    "sample the best of them; soup, the mean of the weights of students taught by one each; "
    "the best alone is chosen by this very Δ, after the fact, and so never bold. "
    "n: runs (seeds) of a row, or teams; Δ: accuracy after − before, mean ± standard deviation "
    "over these; rate: share learned of what the teachers, any of them, know, "
    "then of what each knows."
)


def tables(results: Results, query: Query) -> list[Table]:
    """A table for each group with transfers from several teachers."""
    rows = results.ok("transfer")
    if not (rows["together"].notna() & (rows["together"] != "single")).any():
        return []
    rows = _one_setup(seed_average(rows) if query.seed_average else rows)
    found = [_table(g, results, query) for g in split(rows, SAME_TRANSFER)]
    return [table for table in found if table.rows]


def _one_setup(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose settings are equal but for who teaches together, and how, in one group."""
    way = rows["together"].astype(object).fillna("single")
    order = rows["order"].astype(object).fillna("")
    # Under other names these two do not tell the groups apart.
    return (
        across(rows, ("together", "order"))
        .drop(columns=["together", "order"])
        .assign(way=way, turns=order)
    )


def _table(group: Group, results: Results, query: Query) -> Table:
    blocks = _blocks(group.rows)
    overall = list(_overall(blocks))
    rows = tuple(line.row(block) for block in (*overall, *blocks) for line in block.lines)
    runs = sorted({i for block in blocks for line in block.lines for i in line.runs.index})
    used = replace(group, rows=group.rows.loc[runs])
    notes = (
        LEGEND,
        *([f"{BEST}), over all teams."] if overall else []),
        *transfer_notes(used, results, query, _count(used.rows, blocks)),
    )
    return Table("teams", TITLE, COLUMNS, rows, caption(group), notes, group.about, _best(overall))


def _count(rows: pd.DataFrame, blocks: Sequence[Block]) -> str:
    known = rows.dropna(subset=["delta"])
    teams = counted(len({(block.student, block.team) for block in blocks}), "team")
    each = ", ".join(counted(int(known[noun].nunique()), noun) for noun in ("method", "seed"))
    return f"n = {counted(len(known), 'transfer')} of {teams}, {each}."


class Line(NamedTuple):
    """One way of teaching, alone or together: a row for each run, or for each of all teams."""

    teachers: str
    way: str
    taught_by: str
    runs: pd.DataFrame

    def row(self, block: Block) -> Row:
        delta, *others = (self.runs[column] for column in NUMBERS)
        return (
            block.student, block.method, TOGETHER.join(block.team),
            self.teachers, self.way, self.taught_by,
            int(delta.count()), stats.mean_std(delta), *map(stats.mean, others),
            *(_each(self.runs, column) for column in LISTS),
        )  # fmt: skip

    def means(self) -> pd.Series[float]:
        return self.runs[list(NUMBERS)].astype(float).mean()


class Block(NamedTuple):
    """One team of one student under one method, or all teams of a size under one method."""

    student: str
    method: str
    team: tuple[str, ...]
    lines: tuple[Line, ...]


def _blocks(rows: pd.DataFrame) -> list[Block]:
    rows = rows.astype(dict.fromkeys(("student", "method", "teacher", "teacher_key"), object))
    # By identity: a teacher that was trained again bears another label alone than in a team.
    alone = rows[rows["way"] == "single"]
    single = dict(iter(alone.groupby(["student", "method", "teacher_key"])))
    labels = dict(zip(alone["teacher_key"], alone["teacher"], strict=True))
    blocks = []
    several = rows[rows["way"] != "single"]
    # A team is the same in any order of its teachers.
    members = several["teacher_keys"].map(lambda keys: tuple(sorted(keys)))
    for (student, method, _), part in several.groupby(["student", "method", members]):
        lines = []
        keys, names = part["teacher_keys"].iloc[0], part["teacher_names"].iloc[0]
        for key in keys:
            if (student, method, key) in single:
                runs = single[student, method, key]
                name = str(runs["teacher"].iloc[0])
                lines.append(Line(name, ALONE, name, runs))
        lines += _together(part)
        team = tuple(sorted(labels.get(key, name) for key, name in zip(keys, names, strict=True)))
        blocks.append(Block(str(student), str(method), team, tuple(lines)))
    return sorted(blocks, key=lambda b: (b.student, b.team, method_rank(b.method)))


def _together(rows: pd.DataFrame) -> Iterator[Line]:
    """A line for each way; what is said of each teacher is only averaged in one order of them."""
    for (way, turns, teachers), runs in rows.groupby(["way", "turns", "teacher"]):
        named = f"{way}, {turns}" if way == "sequential" and turns else str(way)
        yield Line(str(teachers), named, f"all, {named}", runs)


def _overall(blocks: Iterable[Block]) -> Iterator[Block]:
    """Means over the teams of one size under one method, where there are several."""
    alike: dict[tuple[int, tuple[int, str]], list[Block]] = defaultdict(list)
    for block in blocks:
        alike[len(block.team), method_rank(block.method)].append(block)
    for (size, (_, method)), teams in sorted(alike.items()):
        if len(teams) > 1:
            name = f"all teams of {size}"
            yield Block(name, method, (name,), tuple(_means(name, teams)))


def _means(name: str, teams: list[Block]) -> Iterator[Line]:
    by_way: dict[str, list[dict[str, Any]]] = {ALONE: [], BEST_ALONE: []}
    for block in teams:
        who = {"student": block.student, "teacher": block.team, "seed": 0}
        alone = [line for line in block.lines if line.way == ALONE]
        if alone:
            each = pd.concat([line.means() for line in alone], axis=1).mean(axis=1)
            best = max(alone, key=lambda line: float(line.runs["delta"].mean()))
            by_way[ALONE].append({**each, **who})
            by_way[BEST_ALONE].append({**best.means(), **who})
        for line in block.lines[len(alone) :]:
            by_way.setdefault(line.way, []).append({**line.means(), **who})
    for way, means in by_way.items():
        if means:
            runs = pd.DataFrame(means).assign(**dict.fromkeys(LISTS))
            yield Line(name, way, EACH.get(way, f"all, {way}"), runs)


def _each(runs: pd.DataFrame, column: str) -> Cell:
    """The mean over runs of a list, as text; None where a run has none."""
    lists = [
        np.asarray(one, dtype=float) for one in runs[column] if one is not None and np.ndim(one)
    ]
    if not lists or len({len(one) for one in lists}) > 1 or len(lists) < len(runs):
        return None
    return " / ".join(Column("each", digits=1).show(float(v)) for v in np.mean(lists, axis=0))


def _best(overall: Sequence[Block]) -> frozenset[tuple[int, str]]:
    """Of these blocks, the first of the table, the way that all teams bear out as the best."""
    blocks, first = [], 0
    for block in overall:
        lines = [line.runs.assign(way=first + i) for i, line in enumerate(block.lines)]
        blocks.append(by_run(pd.concat(lines), what="way"))
        first += len(lines)
    contests = np.repeat(np.arange(len(blocks)), [len(runs) for runs in blocks])
    best = borne_out(pd.concat(blocks), contests, len(blocks)) if blocks else []
    ways = [line.way for block in overall for line in block.lines]
    won = [int(place) for place in best if place]
    # What is chosen by its Δ is ahead by that alone.
    return frozenset((place, "delta") for place in won if ways[place] != BEST_ALONE)
