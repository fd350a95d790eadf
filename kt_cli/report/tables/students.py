"""Δ of each student under each method, as Table 1 of the paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from kt_cli.report import paper_figures, stats
from kt_cli.report.captions import caption
from kt_cli.report.groups import Group, by_one_teacher, native
from kt_cli.report.query import Query, derived
from kt_cli.report.read import Results
from kt_cli.report.table import Cell, Column, MeanStd, Table
from kt_cli.report.tables.matrix import by_accuracy
from kt_cli.report.tables.shared import BEST, methods_of, seen_note, transfer_groups, transfer_notes
from kt_cli.report.versus import borne_out, by_run

TITLE = "Transfer delta by student"
NEEDS = {"transfer": ("delta", "gain", "loss", "student_acc"), "models": ("params_m",)}
LEADING = (
    Column("student", "student", "text"),
    Column("student_type", "type", "text"),
    Column("student_acc", "before\n(%)"),
    Column("student_params_m", "params\n(M)", digits=1),
    Column("teachers", "n", "count"),
)
LEGEND = (
    "before: top-1 before transfer; Δ in percentage points, mean ± standard deviation over n "
    "teachers{seeds}."
)
FEWER = "Not every method has all n teachers: n is that of the method with the most."


def tables(results: Results, query: Query) -> list[Table]:
    return [_table(group, results, query) for group in transfer_groups(results, query)]


def _table(group: Group, results: Results, query: Query) -> Table:
    methods = methods_of(group.rows)
    names = by_accuracy(group.rows, "student")
    against = query.against == paper_figures.PAPER and by_one_teacher(group)
    theirs = {name: paper_figures.deltas(name) if against else {} for name in names}
    beside = {m for m in methods if any(m in known for known in theirs.values())}
    deltas = stats.over_teachers(group.rows)
    facts = _facts(group.rows, results, deltas)
    # Of each method one's own column and, where there is such, the published one.
    columns, cells = list(LEADING), [[name, *facts[name]] for name in names]
    for method in methods:
        columns.append(Column(method, method, "signed"))
        if method in beside:
            columns.append(Column(f"{method}_published", f"{method},\npublished", "signed"))
        for name, row in zip(names, cells, strict=True):
            row.append(deltas.get((name, method)))
            if method in beside:
                row.append(theirs[name].get(method))
    several = len(methods) > 1
    seeds = " (each teacher’s seeds averaged first)" if group.rows["seed"].nunique() > 1 else ""
    notes = (
        LEGEND.format(seeds=seeds),
        *([] if _all_have(deltas, facts, methods) else [FEWER]),
        *([f"{BEST} over the students)."] if several else []),
        *seen_note(group),
        *([_published(names)] if beside else []),
        *transfer_notes(group, results, query),
    )
    return Table(
        "students", TITLE, tuple(columns), tuple(map(tuple, cells)), caption(group), notes,
        group.about, _best(group.rows, names) if several else frozenset(),
    )  # fmt: skip


def _all_have(
    deltas: Mapping[tuple[str, str], MeanStd], facts: Mapping[str, list[Cell]], methods: list[str]
) -> bool:
    return all(
        (name, method) in deltas and deltas[name, method].n == count
        for name, (*_, count) in facts.items() for method in methods
    )  # fmt: skip


def _facts(
    rows: pd.DataFrame, results: Results, deltas: Mapping[tuple[str, str], MeanStd]
) -> dict[str, list[Cell]]:
    """Type, accuracy, parameters and the most teachers that a method has, of each student."""
    keys = ["student_type", "student_acc", "student_params_m"]
    once = derived(rows[~rows["student"].duplicated()], keys, results.ok("models"))
    teachers: Counter[str] = Counter()
    for (name, _), delta in deltas.items():
        teachers[name] = max(teachers[name], delta.n)
    return {
        str(name): [*map(native, values), teachers[str(name)]]
        for name, *values in once[["student", *keys]].itertuples(index=False)
    }


def _best(rows: pd.DataFrame, names: Sequence[str]) -> frozenset[tuple[int, str]]:
    """The method that a student's teachers bear out as the best for it, if it has all methods."""
    runs = by_run(rows)
    contests, students = pd.factorize(runs.index.get_level_values("student"))
    whole = runs.notna().groupby(contests).any().all(axis=1).to_numpy()[contests]
    found = borne_out(runs[whole], contests[whole], len(students))
    won = dict(zip(map(str, students), found, strict=True))
    return frozenset((i, m) for i, name in enumerate(names) if (m := won.get(name)))


def _published(names: list[str]) -> str:
    others = ", ".join(paper_figures.other_weights(names))
    return (
        f"published: {paper_figures.SOURCE}: mean Δ over 20 teachers on ImageNet with 10% of the "
        "training images. Their weights are those of timm 0.x under the same name"
        f"{f'; other weights here: {others}' if others else ''}."
    )
