"""Tables of transfers: by method, and by student and method."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from kt_cli.report import stats
from kt_cli.report.captions import counted, left_out, limit_note, transfer_caption
from kt_cli.report.groups import SAME_TRANSFER, Group, Results, split
from kt_cli.report.table import Cell, Column, MeanStd, Row, Table

METHOD_ORDER = (
    "kl", "xekl", "kl-mcl", "xekl-mcl", "kl-dp", "kl-dp-u", "self", "flip-st", "flip-t",
    "flip-avg", "crd", "cd",
)  # fmt: skip


def method_rank(method: str) -> tuple[int, str]:
    """Sorts methods in the paper's order, each before its guarded one, then by name."""
    base = method.partition("+")[0]
    known = base in METHOD_ORDER
    return (METHOD_ORDER.index(base) if known else len(METHOD_ORDER), method)


SUMMARY = (
    Column("method", "method", "text"),
    Column("n", "n", "count"),
    Column("pairs", kind="count", detail=True),
    Column("seeds", kind="count", detail=True),
    Column("success_rate", "success\n(%)", digits=1),
    Column("paper_success_rate", "paper’s\n(%)", digits=1),
    Column("delta", "Δ\n(pp)", "signed"),
    Column("gain", "gain\n(%)"),
    Column("loss", "loss\n(%)"),
    Column("transfer_rate", "rate\n(%)", digits=1),
    Column("significant_gain", "sig.+\n(%)", digits=1),
    Column("significant_loss", "sig.−\n(%)", digits=1),
    Column("share_taught", "taught\n(%)", digits=1),
)
SUMMARY_LEGEND = (
    "success: share of transfers with Δ > 0; paper’s: median over students of the share of "
    "their teachers with Δ > 0; Δ: accuracy after − before, mean ± standard deviation; gain, "
    "loss: images that became right, wrong; rate: share of the teacher’s complementary knowledge "
    "that was learned; sig.±: significant gains, losses (McNemar’s exact test, p < 0.05); "
    "taught: training images taught by the teacher."
)


def summary_tables(results: Results) -> list[Table]:
    return [_summary(group, results) for group in split(results.ok("transfer"), SAME_TRANSFER)]


def _summary(group: Group, results: Results) -> Table:
    methods = _methods(group.rows)
    rows = tuple(_summary_row(m, group.rows[group.rows["method"] == m]) for m in methods)
    return Table(
        "summary", "Transfer by method", SUMMARY, rows, transfer_caption(group),
        (SUMMARY_LEGEND, *_notes(group, results)),
        group.about, _best(rows, SUMMARY, ("success_rate", "paper_success_rate", "delta")),
    )  # fmt: skip


def _summary_row(method: str, rows: pd.DataFrame) -> Row:
    return (
        method,
        len(rows),
        len(rows.drop_duplicates(["teacher", "student"])),
        int(rows["seed"].nunique()),
        stats.success_rate(rows),
        stats.paper_success_rate(rows),
        stats.mean_std(rows["delta"]),
        stats.mean(rows["gain"]),
        stats.mean(rows["loss"]),
        stats.mean(rows["transfer_rate"]),
        stats.significant_share(rows, 1),
        stats.significant_share(rows, -1),
        stats.mean(rows["share_taught"]),
    )


def student_tables(results: Results) -> list[Table]:
    return [_students(group, results) for group in split(results.ok("transfer"), SAME_TRANSFER)]


def _students(group: Group, results: Results) -> Table:
    methods = _methods(group.rows)
    columns = (
        Column("student", "student", "text"),
        Column("student_acc", "before\n(%)"),
        Column("teachers", "n", "count"),
        *(Column(method, method, "signed") for method in methods),
    )
    deltas = stats.pair_deltas(group.rows)
    before = group.rows.groupby("student")["student_acc"].first()
    order = sorted(before.index, key=lambda name: (-before[name], name))
    rows = tuple(
        _student_row(name, float(before[name]), deltas[deltas["student"] == name], methods)
        for name in order
    )
    bold = {(i, key) for i, row in enumerate(rows) for key in _best_in_row(row, methods)}
    legend = (
        "Δ in percentage points, mean ± standard deviation over n teachers"
        + (" (each teacher’s seeds averaged first)" if group.rows["seed"].nunique() > 1 else "")
        + ("; the best mean of each student in bold." if len(methods) > 1 else ".")
    )
    return Table(
        "students", "Transfer delta by student", columns, rows, transfer_caption(group),
        (legend, *_notes(group, results)),
        group.about, frozenset(bold),
    )  # fmt: skip


def _student_row(name: str, before: float, deltas: pd.DataFrame, methods: Sequence[str]) -> Row:
    by_method = [deltas.loc[deltas["method"] == method, "delta"] for method in methods]
    cells = [stats.mean_std(values) if len(values) else None for values in by_method]
    return (name, before, int(deltas["teacher"].nunique()), *cells)


def _methods(rows: pd.DataFrame) -> list[str]:
    return sorted(rows["method"].unique(), key=method_rank)


def _best(
    rows: Sequence[Row], columns: Sequence[Column], keys: Sequence[str]
) -> frozenset[tuple[int, str]]:
    """The highest cells of each column of `keys`."""
    places = {column.key: place for place, column in enumerate(columns)}
    by_key = {key: [row[places[key]] for row in rows] for key in keys}
    return frozenset((i, key) for key, cells in by_key.items() for i in _highest(cells))


def _best_in_row(row: Row, methods: Sequence[str]) -> list[str]:
    return [methods[i] for i in _highest(row[-len(methods) :])]


def _highest(cells: Sequence[Cell]) -> list[int]:
    """Where the highest value is, ties included; nowhere if there is nothing to compare."""
    values = [_value(cell) for cell in cells]
    best = max(values)
    return [i for i, v in enumerate(values) if v == best > -math.inf] if len(values) > 1 else []


def _value(cell: Cell) -> float:
    number = cell.mean if isinstance(cell, MeanStd) else cell
    return -math.inf if not isinstance(number, (int, float)) or math.isnan(number) else number


def _notes(group: Group, results: Results) -> list[str]:
    failed = results.failed("transfer")
    failed = failed[failed["settings"] == group.about["settings"]]
    return [_count_note(group.rows), *left_out(failed, group, "transfer"), *limit_note(group)]


def _count_note(rows: pd.DataFrame) -> str:
    pairs, seeds = len(rows.drop_duplicates(["teacher", "student"])), int(rows["seed"].nunique())
    methods = int(rows["method"].nunique())
    total = counted(len(rows), "transfer")
    parts = [counted(pairs, "pair"), counted(methods, "method"), counted(seeds, "seed")]
    if len(rows) == pairs * methods * seeds:
        return f"n = {total}: {' × '.join(parts)}."
    return (
        f"n = {total} of {', '.join(parts)}; methods do not all cover the same pairs and seeds, "
        "so compare them with care."
    )
