"""Several teachers: each of a team alone, then what they do together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kt_cli.report import stats
from kt_cli.report.captions import counted, transfer_caption
from kt_cli.report.groups import SAME_IMAGES, SETTINGS, Group, split
from kt_cli.report.methods import method_rank
from kt_cli.report.query import Query, seed_average
from kt_cli.report.read import Results
from kt_cli.report.table import Cell, Column, Row, Table
from kt_cli.report.tables.shared import BEST, JOINED, transfer_notes, with_delta
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
    "sample the best of them; soup, the mean of the weights of students taught by one each. "
    "n: runs (seeds) of a row, or teams; Δ: accuracy after − before, mean ± standard deviation "
    "over these; rate: share learned of what the teachers, any of them, know, "
    "then of what each knows."
)


def team_tables(results: Results, query: Query) -> list[Table]:
    """A table for each group with transfers from several teachers."""
    rows = results.ok("transfer")
    if not (rows["teachers"].notna() & (rows["teachers"] != "single")).any():
        return []
    rows = _one_setup(seed_average(rows) if query.seed_average else rows)
    found = [_teams(g, results, query) for g in split(rows, (*SAME_IMAGES, "setup"))]
    return [table for table in found if table.rows]


def _one_setup(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose settings are equal but for who teaches together, and how, share a `setup`."""
    way = rows["teachers"].astype(object).fillna("single")
    order = rows["order"].astype(object).fillna("")
    # Under other names these two do not tell the groups apart.
    rows = rows.drop(columns=["teachers", "order"]).assign(way=way, turns=order)
    same = [c for c in SETTINGS if c not in ("teachers", "order")]
    setups = rows.groupby(["sweep", *same], dropna=False, observed=True, sort=False)
    hashes = setups["settings"].transform(lambda known: JOINED.join(sorted(set(map(str, known)))))
    return rows.assign(setup=setups.ngroup(), settings=hashes)


def _teams(group: Group, results: Results, query: Query) -> Table:
    about = {key: value for key, value in group.about.items() if key != "setup"}
    about["settings"] = group.first("settings")
    group = Group(group.rows, about, group.differs)
    blocks = _blocks(group.rows)
    overall = list(_overall(blocks))
    rows = tuple(line.row(block) for block in (*overall, *blocks) for line in block.lines)
    used = Group(group.rows.loc[sorted({r for b in blocks for r in b.runs})], about, group.differs)
    notes = (
        LEGEND,
        *([f"{BEST}), over all teams."] if overall else []),
        *transfer_notes(used, results, query, _count(with_delta(used), blocks)),
    )
    return Table(
        "teams", TITLE, COLUMNS, rows, transfer_caption(group), notes, about, _best(overall),
    )  # fmt: skip


def _count(rows: pd.DataFrame, blocks: Sequence[Block]) -> str:
    teams = len({(block.student, block.team) for block in blocks})
    each = (("method", rows["method"]), ("seed", rows["seed"]))
    parts = [counted(teams, "team"), *(counted(one.nunique(), noun) for noun, one in each)]
    return f"n = {counted(len(rows), 'transfer')} of {', '.join(parts)}."


@dataclass(frozen=True)
class Line:
    """One way of teaching: alone, or together.

    Attributes:
        runs: a row for each run, or for each team where the line is about all teams.
    """

    teachers: str
    way: str
    runs: pd.DataFrame
    overall: bool = False

    def row(self, block: Block) -> Row:
        delta, *others = (self.runs[column] for column in NUMBERS)
        return (
            block.student, block.method, block.team, self.teachers, self.way, self._taught_by,
            int(delta.count()), stats.mean_std(delta), *map(stats.mean, others),
            *(_each(self.runs, column) for column in LISTS),
        )  # fmt: skip

    @property
    def _taught_by(self) -> str:
        if self.way in EACH:
            return EACH[self.way] if self.overall else self.teachers
        return f"all, {self.way}"

    @property
    def delta(self) -> float:
        return float(self.runs["delta"].mean())


@dataclass(frozen=True)
class Block:
    """One team of one student under one method, or all teams of a size under one method."""

    student: str
    method: str
    team: str
    lines: tuple[Line, ...]

    @property
    def runs(self) -> list[Any]:
        return [index for line in self.lines for index in line.runs.index]


def _blocks(rows: pd.DataFrame) -> list[Block]:
    names = rows["teacher"].astype(object)
    keys = rows["teacher_key"].astype(object)
    rows = rows.assign(
        team=[TOGETHER.join(sorted(n.split(TOGETHER))) for n in names],
        members=[TOGETHER.join(sorted(k.split(TOGETHER))) for k in keys],
    )
    rows = rows.astype(dict.fromkeys(("student", "method", "teacher", "teacher_key"), object))
    # By identity: a teacher that was trained again bears another label alone than in a team.
    single = dict(iter(rows[rows["way"] == "single"].groupby(["student", "method", "teacher_key"])))
    blocks = []
    together = rows[rows["way"] != "single"].groupby(["student", "method", "members"])
    for (student, method, _), part in together:
        members = [
            Line(str(found["teacher"].iloc[0]), ALONE, found)
            for key in str(part["teacher_key"].iloc[0]).split(TOGETHER)
            if (found := single.get((student, method, key))) is not None
        ]
        lines = (*members, *_together(part))
        blocks.append(Block(str(student), str(method), str(part["team"].iloc[0]), lines))
    return sorted(blocks, key=lambda b: (b.student, b.team, method_rank(b.method)))


def _together(rows: pd.DataFrame) -> Iterator[Line]:
    """A line for each way; what is said of each teacher is only averaged in one order of them."""
    for (way, turns, teachers), runs in rows.groupby(["way", "turns", "teacher"]):
        named = f"{way}, {turns}" if way == "sequential" and turns else str(way)
        yield Line(str(teachers), named, runs)


def _overall(blocks: Iterable[Block]) -> Iterator[Block]:
    """Means over the teams of one size under one method, where there are several."""
    alike: dict[tuple[int, str], list[Block]] = defaultdict(list)
    for block in blocks:
        alike[block.team.count(TOGETHER) + 1, block.method].append(block)
    for (size, method), teams in sorted(
        alike.items(), key=lambda a: (a[0][0], method_rank(a[0][1]))
    ):
        if len(teams) > 1:
            name = f"all teams of {size}"
            yield Block(name, method, name, tuple(_means(name, teams)))


def _means(name: str, teams: list[Block]) -> Iterator[Line]:
    by_way: dict[str, list[dict[str, Any]]] = {ALONE: [], BEST_ALONE: []}
    for block in teams:
        who = {"student": block.student, "teacher": block.team, "seed": 0}
        alone = [line for line in block.lines if line.way == ALONE]
        if alone:
            each = pd.concat([_mean(line) for line in alone], axis=1).mean(axis=1)
            by_way[ALONE].append({**each, **who})
            by_way[BEST_ALONE].append({**_mean(max(alone, key=lambda line: line.delta)), **who})
        for line in block.lines[len(alone) :]:
            by_way.setdefault(line.way, []).append({**_mean(line), **who})
    for way, means in by_way.items():
        if means:
            yield Line(name, way, pd.DataFrame(means).assign(**dict.fromkeys(LISTS)), overall=True)


def _mean(line: Line) -> pd.Series[float]:
    return line.runs[list(NUMBERS)].astype(float).mean()


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
    contests, first = [], 0
    for block in overall:
        lines = [line.runs.assign(way=first + i) for i, line in enumerate(block.lines)]
        contests.append(by_run(pd.concat(lines), what="way"))
        first += len(lines)
    return frozenset((int(place), "delta") for place in borne_out(contests) if place)
