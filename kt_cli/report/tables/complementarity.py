"""Complementary knowledge over all ordered pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from kt_cli.errors import counted
from kt_cli.knowledge.significance import SIGNIFICANT, holm
from kt_cli.report import stats
from kt_cli.report.captions import caption, general_notes
from kt_cli.report.groups import SAME_DATA, Group, models_of, split, trained
from kt_cli.report.intervals import Floats, Pairs, numbers
from kt_cli.report.query import Query
from kt_cli.report.read import Results
from kt_cli.report.table import Column, Row, Table
from kt_cli.report.tables.shared import INTERVALS
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
OPTIONAL = [c for c in QUANTITIES if c.endswith(("similarity", "_excess", "_pct"))]
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


def tables(results: Results, query: Query) -> list[Table]:
    groups = split(results.ok("complementarity"), SAME_DATA)
    return [_table(group, results, query) for group in groups]


def _table(group: Group, results: Results, query: Query) -> Table:
    every = group.rows.sort_values(["teacher", "student"], ignore_index=True)
    pairs, random = (rows.reset_index(drop=True) for rows in trained(every))
    excess = {f"top{p}_excess": pairs[f"top{p}_similarity"] - pairs["class_similarity"]
              for p in TOP}  # fmt: skip
    weaker = pairs["pos_flips"].where(pairs["acc_diff"] < 0)
    pairs = pairs.assign(pos_flips_weaker=weaker, **excess)
    random = random.assign(pos_flips_random=random["pos_flips"])
    first = ~pd.Series(Pairs.of(pairs).unordered).duplicated()
    once = pairs.loc[first, ["teacher", "student", "mcnemar_p", *SYMMETRIC]]
    notes = (
        f"n = {counted(len(pairs), 'ordered pair')} of {counted(models_of(pairs), 'model')}. "
        "ρ⁺(teacher → student): images that the teacher has right and the student wrong. "
        "Agreement, κ and oracle are the same in both directions: each two models count once.",
        INTERVALS,
        *_extremes(pairs),
        *_random_note(random),
        *_different(numbers(once, "mcnemar_p")),
        *_alike(pairs),
        *_uniform(group),
        *general_notes(group, results, query, "complementarity"),
    )
    asked = [c for c in QUANTITIES if c in pairs and (c not in OPTIONAL or pairs[c].count())]
    rows = [
        *_rows(pairs, [column for column in asked if column not in SYMMETRIC]),
        *_rows(once, [column for column in asked if column in SYMMETRIC]),
        *_rows(random, ["pos_flips_random"] if len(random) else []),
    ]
    rows.sort(key=lambda row: list(QUANTITIES).index(str(row[0])))
    return Table("complementarity", TITLE, COLUMNS, tuple(rows), caption(group), notes, group.about)


def _rows(pairs: pd.DataFrame, columns: Iterable[str]) -> list[Row]:
    places = Pairs.of(pairs)
    return [_row(column, pairs, places) for column in columns]


def _row(column: str, pairs: pd.DataFrame, places: Pairs) -> Row:
    values = numbers(pairs, column)
    mean = places.mean(values, percent=column in PERCENT)
    count, *quantiles = stats.spread(pairs[column])
    if column.endswith("_classes"):  # counts, unless between two
        quantiles = [int(v) if v % 1 == 0 else v for v in quantiles]
    low, q05, median, q95, high = quantiles
    ends = _extreme_pairs(pairs, values)
    return (column, QUANTITIES[column], count, low, q05, median, mean, q95, high, *ends)


def _extreme_pairs(pairs: pd.DataFrame, values: Floats) -> tuple[str, str] | tuple[None, None]:
    """The pairs with the lowest and the highest value; of equal ones the first by name."""
    if np.isnan(values).all():
        return None, None
    low, high = (pairs.iloc[int(find(values))] for find in (np.nanargmin, np.nanargmax))
    return f"{low['teacher']} → {low['student']}", f"{high['teacher']} → {high['student']}"


def _extremes(pairs: pd.DataFrame) -> list[str]:
    flips = pairs["pos_flips"]
    low, high = _extreme_pairs(pairs, numbers(pairs, "pos_flips"))
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


def _different(p_values: Floats) -> list[str]:
    """How many accuracies differ, each two models counted once."""
    known = p_values[~np.isnan(p_values)]
    if not len(known):
        return []
    surely = int((holm(known) < SIGNIFICANT).sum())
    return [
        f"The accuracies of {surely:,} of {counted(len(known), 'pair')} of models differ "
        "significantly (McNemar’s exact test, p < 0.05 after Holm’s correction)."
    ]


def _alike(pairs: pd.DataFrame) -> list[str]:
    known = pairs["class_embedding"].dropna().astype(str).unique()
    sources = ", ".join(sorted(source for source in known if not source.endswith(":")))
    if not sources:
        return []
    return [
        "Similarity: mean cosine of all classes; of the classes that hold p% of ρ⁺, less that of "
        "all, and its percentile among random sets of as many classes; classes "
        f"compared by {sources}."
    ]


def _uniform(group: Group) -> list[str]:
    classes = group.first("num_classes")
    if not isinstance(classes, (int, float)):
        return []
    return [
        f"Entropy: of the classes of ρ⁺; uniform over the C = {int(classes):,} classes: "
        f"ln C = {math.log(int(classes)):.2f} nats."
    ]
