"""Transfer by method, and by whatever else is asked for."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kt_cli.report import published, stats
from kt_cli.report.bootstrap import mean_intervals
from kt_cli.report.captions import transfer_caption
from kt_cli.report.derived import EQUAL_WITHIN, STRONGER
from kt_cli.report.groups import Group, native
from kt_cli.report.methods import method_rank
from kt_cli.report.query import Query, derived
from kt_cli.report.read import Results
from kt_cli.report.table import Cell, Column, Row, Table
from kt_cli.report.tables.shared import (
    best_in_column,
    by_one_teacher,
    transfer_groups,
    transfer_notes,
)

TITLE = "Transfer by method"
USED = (
    "delta", "gain", "loss", "transfer_p", "transfer_rate", "share_taught", "acc_diff",
)  # fmt: skip
NEEDS = {"transfer": USED, "models": ("params_m",)}
STRENGTHS = tuple(STRONGER.categories)
COLUMNS = (
    Column("method", "method", "text", lead=True),
    Column("n", "n", "count"),
    Column("pairs", kind="count", detail=True),
    Column("seeds", kind="count", detail=True),
    Column("success_rate", "success\n(%)", digits=1),
    Column("paper_success_rate", "paper’s\n(%)", digits=1),
    Column("delta", "Δ\n(pp)", "signed"),
    Column("delta_interval", "Δ, 95%\ninterval", "range"),
    *(Column(f"delta_{s}", f"Δ\n{s}", "signed") for s in STRENGTHS),
    *(Column(f"n_{s}", kind="count", detail=True) for s in STRENGTHS),
    Column("gain", "gain\n(%)"),
    Column("loss", "loss\n(%)"),
    Column("transfer_rate", "rate\n(%)", digits=1),
    Column("significant_gain", "sig.+\n(%)", digits=1),
    Column("significant_loss", "sig.−\n(%)", digits=1),
    Column("share_taught", "taught\n(%)", digits=1),
)
AGAINST = (
    Column("mean_success_rate", "mean over\nstudents (%)", digits=1),
    Column("published_median", "published\npaper’s (%)", digits=1),
    Column("published_mean", "published\nmean (%)", digits=1),
)
BEST = ("success_rate", "paper_success_rate", "delta")
LEGEND = (
    "success: share of transfers with Δ > 0; paper’s: median over students of the share of "
    "their teachers with Δ > 0; Δ: accuracy after − before, mean ± standard deviation; intervals: "
    "95%, bootstrap over students and teachers; Δ stronger, equal, weaker: its mean over teachers "
    f"whose accuracy is higher, within {EQUAL_WITHIN:g} points, lower; gain, "
    "loss: images that became right, wrong; rate: share of the teacher’s complementary knowledge "
    "that was learned; sig.±: significant gains, losses (McNemar’s exact test, p < 0.05); "
    "taught: training images taught by the teacher"
)


def summary_tables(results: Results, query: Query) -> list[Table]:
    return [_summary(group, results, query) for group in transfer_groups(results, query)]


def _summary(group: Group, results: Results, query: Query) -> Table:
    by = list(dict.fromkeys(name for name in query.by if name != "method"))
    used = ["student", "teacher", "method", "seed", *USED]
    rows = derived(group.rows, [*by, "stronger"], results.ok("models"))
    rows = rows[list(dict.fromkeys([*by, *used, "stronger"]))]
    parts = _parts(rows, by)
    against = query.against == published.PAPER and by_one_teacher(group)
    columns = (*(_by_column(name, rows) for name in by), *COLUMNS, *(AGAINST if against else ()))
    cells = tuple(_row(key, part, against) for key, part in parts)
    notes = (
        LEGEND + ("; the best in bold." if len(parts) > 1 else "."),
        *_published_notes(against),
        *transfer_notes(group, results, query),
    )
    return Table(
        "summary", TITLE, columns, cells, transfer_caption(group), notes, group.about,
        _best(cells, columns, len(by)),
    )  # fmt: skip


def _parts(rows: pd.DataFrame, by: list[str]) -> list[tuple[tuple[Cell, ...], pd.DataFrame]]:
    """The rows by the values of `by`, in their order and missing ones last, then by method."""
    parts = [
        (tuple(map(native, key)), part)
        for key, part in rows.groupby([*by, "method"], observed=True, dropna=False)
    ]
    order = {values: place for place, values in enumerate(dict.fromkeys(k[:-1] for k, _ in parts))}
    return sorted(parts, key=lambda part: (order[part[0][:-1]], method_rank(str(part[0][-1]))))


def _by_column(name: str, rows: pd.DataFrame) -> Column:
    key = f"by_{name}" if name in {column.key for column in COLUMNS} else name
    if not pd.api.types.is_numeric_dtype(rows[name]) or pd.api.types.is_bool_dtype(rows[name]):
        return Column(key, name, "text", lead=True)
    whole = (rows[name].dropna() % 1 == 0).all()
    return Column(key, name, "count" if whole else "number", lead=True)


def _row(key: tuple[Cell, ...], rows: pd.DataFrame, against: bool) -> Row:
    won = np.where(rows["delta"].isna(), np.nan, 100.0 * (rows["delta"] > 0))
    success, delta = mean_intervals(rows.assign(won=won), ["won", "delta"])
    by_strength = [rows.loc[rows["stronger"] == strength, "delta"] for strength in STRENGTHS]
    by_student = stats.student_success(rows)
    *by, method = (str(v) if isinstance(v, bool) else v for v in key)
    return (
        *by,
        method,
        len(rows),
        len(rows.drop_duplicates(["teacher", "student"])),
        int(rows["seed"].nunique()),
        success,
        float(by_student.median()),
        stats.mean_std(rows["delta"]),
        delta,
        *map(stats.mean, by_strength),
        *(int(values.count()) for values in by_strength),
        stats.mean(rows["gain"]),
        stats.mean(rows["loss"]),
        stats.mean(rows["transfer_rate"]),
        stats.significant_share(rows, 1),
        stats.significant_share(rows, -1),
        stats.mean(rows["share_taught"]),
        *(_published(str(method), by_student) if against else ()),
    )


def _published(method: str, by_student: pd.Series[float]) -> tuple[Cell, ...]:
    found = published.success(method)
    theirs = (found.median, found.mean) if found else (None, None)
    return (float(by_student.mean()), *theirs)


def _published_notes(against: bool) -> list[str]:
    if not against:
        return []
    return [
        f"published: {published.SOURCE}: 20 students, each with 20 teachers, on ImageNet with 10% "
        "of the training images; median (paper’s) and mean over students of the share of "
        "teachers with Δ > 0. Their xekl and xekl-mcl take a double softmax: compare runs with "
        "--reference-compat."
    ]


def _best(
    rows: tuple[Row, ...], columns: tuple[Column, ...], by: int
) -> frozenset[tuple[int, str]]:
    """The best method of each group of `--by`."""
    starts = [i for i, row in enumerate(rows) if i == 0 or row[:by] != rows[i - 1][:by]]
    found = set()
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        best = best_in_column(rows[start:end], columns, BEST)
        found |= {(start + i, key) for i, key in best}
    return frozenset(found)
