"""Transfer by method, and by whatever else is asked for."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from kt_cli.report import paper_figures, stats
from kt_cli.report.captions import caption
from kt_cli.report.derived import EQUAL_WITHIN, STRONGER
from kt_cli.report.groups import Group, by_one_teacher, native
from kt_cli.report.intervals import Pairs, numbers
from kt_cli.report.methods import method_rank
from kt_cli.report.query import Query, derived
from kt_cli.report.read import Results
from kt_cli.report.table import Cell, Column, Row, Table
from kt_cli.report.tables.shared import BEST, INTERVALS, seen_note, transfer_groups, transfer_notes
from kt_cli.report.versus import borne_out, by_run

TITLE = "Transfer by method"
USED = (
    "delta", "gain", "loss", "transfer_p", "transfer_rate", "share_taught", "acc_diff",
    "guard_alpha",
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
    Column("abstained", "abstained\n(%)", digits=1),
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
BEST_OF = {"success_rate": "won", "delta": "delta"}  # column: what is compared by run
LEGEND = (
    "n: transfers; success: share of them with Δ > 0; paper’s: median over students of the share "
    "of their teachers with Δ > 0; Δ: accuracy after − before, mean ± standard deviation; Δ "
    "stronger, equal, weaker: its mean over teachers whose accuracy is higher, within "
    f"{EQUAL_WITHIN:g} points, lower; gain, loss: images that became right, wrong; rate: share of "
    "the teacher’s complementary knowledge, where it has some, that was learned; sig.±: "
    "significant gains, losses (McNemar’s exact test of each transfer, p < 0.05: by chance up to "
    "2.5% of either); taught: training images taught by the teacher."
)
ABSTAINED = (
    "abstained: share where the guard left the student as it was, neither success nor failure."
)
PUBLISHED = (
    f"published: {paper_figures.SOURCE}: 20 students, each with 20 teachers, on ImageNet with "
    "10% of the training images; median (paper’s) and mean over students of the share of "
    "teachers with Δ > 0. Their xekl and xekl-mcl take a double softmax: compare runs with "
    "--reference-compat."
)
Parts = list[tuple[tuple[Cell, ...], pd.DataFrame]]


def tables(results: Results, query: Query) -> list[Table]:
    return [_table(group, results, query) for group in transfer_groups(results, query)]


def _table(group: Group, results: Results, query: Query) -> Table:
    by = list(dict.fromkeys(name for name in query.by if name != "method"))
    used = ["student", "teacher", "method", "seed", *USED]
    rows = derived(group.rows, [*by, "stronger"], results.ok("models"))
    rows = rows[list(dict.fromkeys([*by, *used, "stronger"]))]
    rows = rows.assign(won=100.0 * (rows["delta"] > 0))
    parts = _parts(rows, by)
    against = query.against == paper_figures.PAPER and by_one_teacher(group)
    guarded = bool(rows["guard_alpha"].notna().any())
    own = (c if guarded or c.key != "abstained" else replace(c, detail=True) for c in COLUMNS)
    columns = (*(_by_column(name, rows) for name in by), *own, *(AGAINST if against else ()))
    several = len(parts) > 1
    notes = (
        LEGEND,
        *([ABSTAINED] if guarded else []),
        INTERVALS,
        *([f"{BEST})."] if several else []),
        *seen_note(group),
        *([PUBLISHED] if against else []),
        *transfer_notes(group, results, query),
    )
    return Table(
        "summary", TITLE, columns, tuple(_row(key, part, against) for key, part in parts),
        caption(group), notes, group.about, _best(parts) if several else frozenset(),
    )  # fmt: skip


def _parts(rows: pd.DataFrame, by: list[str]) -> Parts:
    """The rows by the values of `by`, in their order and missing ones last, then by method.

    Those without Δ say only that there is such a part.
    """
    parts = [
        (tuple(map(native, key)), part.dropna(subset=["delta"]))
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
    pairs = Pairs.of(rows)
    by_strength = [rows.loc[rows["stronger"] == strength, "delta"] for strength in STRENGTHS]
    by_student = stats.student_success(rows)
    lead = [str(v) if isinstance(v, bool) else v for v in key]
    guarded = rows["guard_alpha"].notna().any()
    published = paper_figures.success(str(lead[-1])) or (None, None)
    return (
        *lead,
        len(rows),
        len(rows.drop_duplicates(["teacher", "student"])),
        int(rows["seed"].nunique()),
        pairs.mean(numbers(rows, "won"), percent=True),
        float(by_student.median()),
        stats.share(rows["guard_alpha"] == 0) if guarded else None,
        stats.mean_std(rows["delta"]),
        pairs.mean(numbers(rows, "delta")),
        *map(stats.mean, by_strength),
        *(int(values.count()) for values in by_strength),
        stats.mean(rows["gain"]),
        stats.mean(rows["loss"]),
        stats.mean(rows["transfer_rate"]),
        stats.significant_share(rows, 1),
        stats.significant_share(rows, -1),
        stats.mean(rows["share_taught"]),
        *((float(by_student.mean()), *published[:2]) if against else ()),
    )


def _best(parts: Parts) -> frozenset[tuple[int, str]]:
    """In each group of `--by` the method that the same pairs bear out as the best, by column."""
    blocks: dict[tuple[Cell, ...], dict[str, int]] = {}
    for i, ((*block, method), _) in enumerate(parts):
        blocks.setdefault(tuple(block), {})[str(method)] = i
    together = [pd.concat([parts[i][1] for i in block.values()]) for block in blocks.values()]
    found = set()
    for key, column in BEST_OF.items():
        won = borne_out(by_run(rows, column) for rows in together)
        best = zip(blocks.values(), won, strict=True)
        found |= {(block[method], key) for block, method in best if method}
    return frozenset(found)
