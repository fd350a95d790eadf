"""Complementary knowledge over all ordered pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kt_cli.knowledge.significance import SIGNIFICANT, holm
from kt_cli.report import stats
from kt_cli.report.captions import counted, data_caption, left_out
from kt_cli.report.groups import SAME_DATA, Group, split
from kt_cli.report.intervals import Pairs
from kt_cli.report.query import Query
from kt_cli.report.read import Results
from kt_cli.report.table import Column, Row, Table
from kt_cli.report.tables.shared import INTERVALS, floats, general_notes
from kt_cli.rows import schema

TITLE = "Complementary knowledge"
TOP = schema.TOP_PERCENTS
NEEDS = {
    "complementarity": (
        "acc_diff", "pos_flips", "agreement", "kappa", "oracle_acc", "mcnemar_p", "flip_entropy",
        *(f"top{p}_classes" for p in TOP), "class_embedding", "class_similarity",
        *(f"top{p}_similarity{end}" for p in TOP for end in ("", "_pct")),
    ),
}  # fmt: skip
QUANTITIES: dict[str, str] = {
    "pos_flips": "ρ⁺ (%)",
    "pos_flips_weaker": "ρ⁺ of weaker teachers (%)",
    "pos_flips_random": "ρ⁺ of random teachers (%)",
    "agreement": "agreement (%)",
    "kappa": "error consistency κ",
    "oracle_acc": "oracle: either is right (%)",
    "flip_entropy": "entropy of ρ⁺ (nats)",
    **{f"top{p}_classes": f"classes with {p}% of ρ⁺" for p in TOP},
    "class_similarity": "similarity of all classes",
    **{f"top{p}_excess": f"similarity, top {p}% − all" for p in TOP},
    **{f"top{p}_similarity_pct": f"its percentile, top {p}%" for p in TOP},
}
SYMMETRIC = ("agreement", "kappa", "oracle_acc")
PERCENT = ("pos_flips", "pos_flips_weaker", "pos_flips_random", "agreement", "oracle_acc")
COLUMNS = (
    Column("quantity", kind="text", detail=True),
    Column("label", "over ordered pairs", "text"),
    Column("pairs", "pairs", "count"),
    Column("min", "min"),
    Column("q05", "5%"),
    Column("median", "median"),
    Column("mean", "mean [95% interval]"),
    Column("q95", "95%"),
    Column("max", "max"),
    Column("min_pair", kind="text", detail=True),
    Column("max_pair", kind="text", detail=True),
)


def complementarity_tables(results: Results, query: Query) -> list[Table]:
    groups = split(results.ok("complementarity"), SAME_DATA)
    return [_complementarity(group, results, query) for group in groups]


def _complementarity(group: Group, results: Results, query: Query) -> Table:
    every = group.rows.sort_values(["teacher", "student"], ignore_index=True)
    keys = every["teacher_key"].unique()
    untrained = every["teacher_key"].isin([k for k in keys if str(k).startswith("random:")])
    pairs = _with_derived(every[~untrained].reset_index(drop=True))
    random = every[untrained].reset_index(drop=True)
    random = random.assign(pos_flips_random=random["pos_flips"])
    notes = (
        f"n = {counted(len(pairs), 'ordered pair')} of {counted(_models(pairs), 'model')}. "
        "ρ⁺(teacher → student): images that the teacher has right and the student wrong. "
        "Agreement, κ and oracle are the same in both directions: each two models count once.",
        INTERVALS,
        *_extremes(pairs),
        *_random_note(random),
        *_different(pairs),
        *_alike(pairs),
        *_uniform(group),
        *left_out(results.failed("complementarity"), group, "run"),
        *general_notes(group, results, query, "complementarity"),
    )
    rows = (*_spreads(pairs), *_spreads(random))
    order = list(QUANTITIES)
    rows = tuple(sorted(rows, key=lambda row: order.index(str(row[0]))))
    return Table("complementarity", TITLE, COLUMNS, rows, data_caption(group), notes, group.about)


def _with_derived(pairs: pd.DataFrame) -> pd.DataFrame:
    average = pairs["class_similarity"]
    excess = {f"top{p}_excess": pairs[f"top{p}_similarity"] - average for p in TOP}
    weaker = pairs["pos_flips"].where(pairs["acc_diff"] < 0)
    return pairs.assign(pos_flips_weaker=weaker, **excess)


def _models(pairs: pd.DataFrame) -> int:
    return len(set(pairs["teacher"].unique()) | set(pairs["student"].unique()))


def _spreads(pairs: pd.DataFrame) -> list[Row]:
    """A row for each quantity that these pairs are asked for; of similarities if there are any."""
    if "pos_flips_random" in pairs:
        columns = ["pos_flips_random"] if len(pairs) else []
    else:
        columns = [c for c in QUANTITIES if c in pairs and (pairs[c].count() or not _optional(c))]
    once = pairs[~_unordered(pairs).duplicated()]
    every, each = (pairs, Pairs.of(pairs)), (once, Pairs.of(once))
    return [_spread_row(column, *(each if column in SYMMETRIC else every)) for column in columns]


def _unordered(pairs: pd.DataFrame) -> pd.Series[int]:
    """What is equal for pairs of the same two models."""
    return pd.Series(Pairs.of(pairs).unordered, pairs.index)


def _optional(column: str) -> bool:
    return "similarity" in column or column.endswith("_excess")


def _spread_row(column: str, pairs: pd.DataFrame, places: Pairs) -> Row:
    mean = places.mean(floats(pairs, column), percent=column in PERCENT)
    spread = stats.spread(pairs[column])
    count, low, q05, median, _, q95, high = spread
    values = [low, q05, median, q95, high]
    if column.endswith("_classes"):
        values = [int(v) if v % 1 == 0 else v for v in values]  # counts, unless between two
    low, q05, median, q95, high = values
    ends = _extreme_pairs(pairs, floats(pairs, column))
    return (column, QUANTITIES[column], count, low, q05, median, mean, q95, high, *ends)


def _extreme_pairs(
    pairs: pd.DataFrame, values: stats.Floats
) -> tuple[str, str] | tuple[None, None]:
    """The pairs with the lowest and the highest value; of equal ones the first by name."""
    if np.isnan(values).all():
        return None, None
    low, high = (pairs.iloc[int(find(values))] for find in (np.nanargmin, np.nanargmax))
    return f"{low['teacher']} → {low['student']}", f"{high['teacher']} → {high['student']}"


def _extremes(pairs: pd.DataFrame) -> list[str]:
    flips = pairs["pos_flips"]
    low, high = _extreme_pairs(pairs, floats(pairs, "pos_flips"))
    if low is None:
        return []
    return [f"Smallest ρ⁺: {low} ({flips.min():.2f}%); largest: {high} ({flips.max():.2f}%)."]


def _random_note(random: pd.DataFrame) -> list[str]:
    if random.empty:
        return []
    teachers = counted(int(random["teacher"].nunique()), "randomly initialised teacher")
    return [
        f"Random: {teachers}, {counted(len(random), 'ordered pair')}, in their own row only: the "
        "ρ⁺ that a model without any knowledge has."
    ]


def _different(pairs: pd.DataFrame) -> list[str]:
    """How many accuracies differ, each two models counted once."""
    once = pairs.loc[~_unordered(pairs).duplicated(), "mcnemar_p"].dropna()
    if once.empty:
        return []
    surely = int((holm(once.to_numpy()) < SIGNIFICANT).sum())
    return [
        f"The accuracies of {surely:,} of {counted(len(once), 'pair')} of models differ "
        "significantly (McNemar’s exact test, p < 0.05 after Holm’s correction)."
    ]


def _alike(pairs: pd.DataFrame) -> list[str]:
    known: Sequence[str] = pairs["class_embedding"].dropna().astype(str).unique().tolist()
    sources = sorted(source for source in known if not source.endswith(":"))
    if not sources:
        return []
    return [
        "Similarity: mean cosine of all classes; of the classes that hold p% of ρ⁺, less that of "
        "all, and its percentile among random sets of as many classes; classes "
        f"compared by {', '.join(sources)}."
    ]


def _uniform(group: Group) -> list[str]:
    classes = group.first("num_classes")
    if not isinstance(classes, (int, float)):
        return []
    classes = int(classes)
    return [
        f"Entropy: of the classes of ρ⁺; uniform over the C = {classes:,} classes: "
        f"ln C = {math.log(classes):.2f} nats."
    ]
