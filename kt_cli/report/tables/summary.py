"""Transfer by method, and by whatever else is asked for."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from kt_cli.report import paper_figures, stats
from kt_cli.report.captions import caption
from kt_cli.report.codes import Cells, Codes
from kt_cli.report.derived import EQUAL_WITHIN, STRONGER
from kt_cli.report.groups import SETTINGS, Group, by_one_teacher, native
from kt_cli.report.intervals import Pairs, numbers
from kt_cli.report.methods import method_rank
from kt_cli.report.query import Query, derived
from kt_cli.report.read import Results
from kt_cli.report.table import Cell, Column, MeanStd, Table
from kt_cli.report.tables.shared import (
    BEST,
    INTERVALS,
    seen_note,
    settings_of,
    transfer_groups,
    transfer_notes,
)  # fmt: skip
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
MEANS = (
    "gain", "loss", "transfer_rate", "share_taught", "abstained", "significant_gain",
    "significant_loss",
)  # fmt: skip
COUNTS = [column.key for column in COLUMNS if column.kind == "count"]
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


def tables(results: Results, query: Query) -> list[Table]:
    by = settings_of(query)
    found = [_table(group, results, query) for group in transfer_groups(results, query, by)]
    varied = [] if by or len(found) < 2 else _varied(results.ok("transfer"))
    if varied:
        hint = f"--by {','.join(varied)} puts what differs in these settings into one table."
        found[-1] = replace(found[-1], notes=(*found[-1].notes, hint))
    return found


def _varied(rows: pd.DataFrame) -> list[str]:
    """The settings of which one method has several values."""
    once = rows.drop_duplicates(["method", "settings"])  # which tell all settings
    values = once.groupby("method", observed=True)[SETTINGS].nunique(dropna=False)
    return [name for name in SETTINGS if (values[name] > 1).any()]


def _table(group: Group, results: Results, query: Query) -> Table:
    by = list(dict.fromkeys(name for name in query.by if name != "method"))
    used = ["student", "teacher", "method", "seed", *USED, "stronger"]
    rows = derived(group.rows, [*by, "stronger"], results.ok("models"))
    rows = rows[list(dict.fromkeys([*by, *used]))]
    lead, (keys, parts) = [_by_column(name, rows) for name in by], _parts(rows, by)
    rows = rows.assign(part=parts, won=100.0 * (rows["delta"] > 0)).dropna(subset=["delta"])
    against = query.against == paper_figures.PAPER and by_one_teacher(group)
    guarded = bool(rows["guard_alpha"].notna().any())
    own = (c if guarded or c.key != "abstained" else replace(c, detail=True) for c in COLUMNS)
    columns = (*own, *(AGAINST if against else ()))
    cells = _cells(rows, [str(key[-1]) for key in keys])
    lines = zip(*(cells[column.key] for column in columns), strict=True)
    several = len(keys) > 1
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
        "summary", TITLE, (*lead, *columns),
        tuple((*key[:-1], *line) for key, line in zip(keys, lines, strict=True)),
        caption(group), notes, group.about, _best(rows, keys) if several else frozenset(),
    )  # fmt: skip


def _parts(rows: pd.DataFrame, by: list[str]) -> tuple[list[tuple[Cell, ...]], Codes]:
    """The parts of the table: values of `by` in their order, missing ones last, each with its
    methods; and in which of them each row is (n,). A part may have no row with Δ."""
    cells = Cells.of(rows, columns := [*by, "method"])
    found = rows[columns].iloc[cells.rows].itertuples(index=False)
    keys = [tuple(str(v) if isinstance(v, bool) else v for v in map(native, key)) for key in found]
    order = {values: place for place, values in enumerate(dict.fromkeys(k[:-1] for k in keys))}
    ranks = [(order[key[:-1]], method_rank(str(key[-1]))) for key in keys]
    ranked = sorted(range(len(keys)), key=ranks.__getitem__)
    return [keys[i] for i in ranked], np.argsort(ranked)[cells.codes]


def _by_column(name: str, rows: pd.DataFrame) -> Column:
    key = f"by_{name}" if name in {column.key for column in COLUMNS} else name
    if not pd.api.types.is_numeric_dtype(rows[name]) or pd.api.types.is_bool_dtype(rows[name]):
        return Column(key, name, "text", lead=True)
    known = rows[name].dropna()
    if (known % 1 == 0).all():
        return Column(key, name, "count", lead=True)
    # As many digits as tell the values apart: learning rates are small.
    decimals = [-int(Decimal(f"{value:.6g}").as_tuple().exponent) for value in known.unique()]
    return Column(key, name, "number", digits=max(2, *decimals), lead=True)


def _cells(rows: pd.DataFrame, methods: list[str]) -> dict[str, list[Any]]:
    """The cells of each column, by its key: one for each `part` of the rows, of its method."""
    pairs = Pairs.of(rows, rows["part"].to_numpy(), len(methods))
    by_pair = stats.pair_deltas(rows, "part")
    by_student = stats.student_success(by_pair, "part").groupby("part")
    parts = rows.assign(
        abstained=100.0 * (rows["guard_alpha"] == 0),
        significant_gain=stats.significant(rows, 1), significant_loss=stats.significant(rows, -1),
        **{f"delta_{s}": rows["delta"].where(rows["stronger"] == s) for s in STRENGTHS},
    ).groupby("part")  # fmt: skip
    strengths = [f"delta_{s}" for s in STRENGTHS]
    found = pd.DataFrame({
        "n": parts.size(), "pairs": by_pair.groupby("part").size(),
        "seeds": parts["seed"].nunique(), "std": parts["delta"].std(),
        **dict(parts[[*MEANS, *strengths]].mean()),
        **dict(parts[strengths].count().rename(columns=lambda name: f"n{name[5:]}")),
        "paper_success_rate": by_student.median(), "mean_success_rate": by_student.mean(),
    }, index=range(len(methods)))  # fmt: skip
    found = found.fillna(dict.fromkeys(COUNTS, 0)).astype(dict.fromkeys(COUNTS, int))
    found["abstained"] = found["abstained"].where(parts["guard_alpha"].count() > 0)
    intervals = pairs.means(numbers(rows, "delta"))
    published = [paper_figures.success(method) or (None, None) for method in methods]
    return {
        **{str(name): values.tolist() for name, values in found.items()},
        "method": methods,
        "success_rate": pairs.means(numbers(rows, "won"), percent=True),
        "abstained": list(map(native, found["abstained"])),
        "delta": [MeanStd(one.value, std, n)
                  for one, std, n in zip(intervals, found["std"], found["n"], strict=True)],
        "delta_interval": intervals,
        "published_median": [one[0] for one in published],
        "published_mean": [one[1] for one in published],
    }  # fmt: skip


def _best(rows: pd.DataFrame, keys: list[tuple[Cell, ...]]) -> frozenset[tuple[int, str]]:
    """In each group of `--by` the method that the same pairs bear out as the best, by column."""
    if rows.empty:
        return frozenset()
    blocks = {block: i for i, block in enumerate(dict.fromkeys(key[:-1] for key in keys))}
    of_parts = [blocks[key[:-1]] for key in keys]
    runs = by_run(
        rows.assign(block=np.take(of_parts, rows["part"])), list(BEST_OF.values()), within=["block"]
    )
    contests = runs.index.get_level_values("block").to_numpy()
    places = {
        (block, str(key[-1])): i for i, (block, key) in enumerate(zip(of_parts, keys, strict=True))
    }
    return frozenset(
        (places[block, method], key)
        for key, column in BEST_OF.items()
        for block, method in enumerate(borne_out(pd.DataFrame(runs[column]), contests, len(blocks)))
        if method
    )
