"""Complementary knowledge over all ordered pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kt_cli.errors import counted
from kt_cli.knowledge.significance import SIGNIFICANT, holm
from kt_cli.report import stats
from kt_cli.report.captions import caption, general_notes
from kt_cli.report.codes import Floats
from kt_cli.report.groups import SAME_DATA, Group, models_of, split, trained
from kt_cli.report.intervals import Pairs, numbers
from kt_cli.report.query import Query
from kt_cli.report.read import Results
from kt_cli.report.table import Column, Row, Table
from kt_cli.report.tables.shared import INTERVALS
from kt_cli.rows import schema

THREADS = 2  # of large tables each row takes some hundred megabytes while it is made
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
RANDOM = "pos_flips_random"
SYMMETRIC = ("agreement", "kappa", "oracle_acc")
PERCENT = {"pos_flips", "pos_flips_weaker", "pos_flips_random", "agreement", "oracle_acc",
           *(f"top{p}_similarity_pct" for p in TOP)}  # fmt: skip
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
    pairs, random = trained(group.rows)
    places = Pairs.of(pairs)
    once = _once(pairs, places)
    notes = (
        f"n = {counted(len(pairs), 'ordered pair')} of {counted(models_of(pairs), 'model')}. "
        "ρ⁺(teacher → student): images that the teacher has right and the student wrong. "
        "Agreement, κ and oracle are the same in both directions: each two models count once.",
        INTERVALS,
        *_extremes(pairs),
        *_random_note(random),
        *_different(numbers(pairs, "mcnemar_p")[once]),
        *_alike(pairs),
        *_uniform(group),
        *general_notes(group, results, query, "complementarity"),
    )
    both = pairs[["teacher", "student", *SYMMETRIC]].iloc[once]
    # Students that never teach are a sample of their own, whichever of a pair is named first.
    apart = not np.isin(places.students, places.teachers).any()
    of_once = Pairs(places.students[once], places.teachers[once], directed=apart)
    found = {c: (both, of_once) if c in SYMMETRIC else (pairs, places) for c in QUANTITIES}
    found.pop(RANDOM)
    with ThreadPoolExecutor(THREADS) as threads:
        rows = list(threads.map(lambda column: _row(column, *found[column]), found))
    if len(random):
        rows.insert(list(QUANTITIES).index(RANDOM), _row(RANDOM, random, Pairs.of(random)))
    kept = tuple(row for row in rows if row[0] not in OPTIONAL or row[2])
    return Table("complementarity", TITLE, COLUMNS, kept, caption(group), notes, group.about)


def _once(pairs: pd.DataFrame, places: Pairs) -> NDArray[np.intp]:
    """A row for each two models: of both directions that whose teacher is the first by name."""
    order = np.argsort((pairs["teacher"] > pairs["student"]).to_numpy(), kind="stable")[::-1]
    found = np.empty(len(places.unordered.sets), dtype=np.intp)
    found[places.unordered.codes[0][order]] = order  # what is first is written last
    return found


def _values(column: str, pairs: pd.DataFrame) -> Floats:
    if column == RANDOM:
        column = "pos_flips"
    if column == "pos_flips_weaker":
        return np.where(pairs["acc_diff"] < 0, numbers(pairs, "pos_flips"), np.nan)
    if column.endswith("_excess"):
        top = numbers(pairs, column.replace("_excess", "_similarity"))
        return top - numbers(pairs, "class_similarity")
    return numbers(pairs, column)


def _row(column: str, pairs: pd.DataFrame, places: Pairs) -> Row:
    values = _values(column, pairs)
    mean = places.mean(values, percent=column in PERCENT)
    count, *quantiles = stats.spread(values)
    if column.endswith("_classes"):  # counts, unless between two
        quantiles = [int(v) if v % 1 == 0 else v for v in quantiles]
    low, q05, median, q95, high = quantiles
    ends = (_pair(pairs, values == end) for end in (low, high))
    return (column, QUANTITIES[column], count, low, q05, median, mean, q95, high, *ends)


def _pair(pairs: pd.DataFrame, chosen: NDArray[np.bool_]) -> str | None:
    if not chosen.any():
        return None
    some = pairs.loc[chosen, ["teacher", "student"]]
    teacher = some["teacher"].min()
    return f"{teacher} → {some['student'][some['teacher'] == teacher].min()}"


def _extremes(pairs: pd.DataFrame) -> Iterator[str]:
    flips = numbers(pairs, "pos_flips")
    if not np.isnan(flips).all():
        low, high = np.nanmin(flips), np.nanmax(flips)
        yield (
            f"Smallest ρ⁺: {_pair(pairs, flips == low)} ({low:.2f}%); "
            f"largest: {_pair(pairs, flips == high)} ({high:.2f}%)."
        )


def _random_note(random: pd.DataFrame) -> Iterator[str]:
    if len(random):
        teachers = counted(int(random["teacher"].nunique()), "randomly initialised teacher")
        yield (
            f"Random: {teachers}, {counted(len(random), 'ordered pair')}, in their own row only: "
            "the ρ⁺ that a model without any knowledge has."
        )


def _different(p_values: Floats) -> Iterator[str]:
    known = p_values[~np.isnan(p_values)]
    if len(known):
        surely = int((holm(np.sort(known)) < SIGNIFICANT).sum())
        yield (
            f"The accuracies of {surely:,} of {counted(len(known), 'pair')} of models differ "
            "significantly (McNemar’s exact test, p < 0.05 after Holm’s correction)."
        )


def _alike(pairs: pd.DataFrame) -> Iterator[str]:
    known = pairs["class_embedding"].dropna().unique()
    sources = ", ".join(sorted(source for source in map(str, known) if not source.endswith(":")))
    if sources:
        yield (
            "Similarity: mean cosine of all classes; of the classes that hold p% of ρ⁺, less that "
            "of all, and its percentile among random sets of as many classes; classes "
            f"compared by {sources}."
        )


def _uniform(group: Group) -> Iterator[str]:
    classes = group.first("num_classes")
    if isinstance(classes, (int, float)):
        yield (
            f"Entropy: of the classes of ρ⁺; uniform over the C = {int(classes):,} classes: "
            f"ln C = {math.log(int(classes)):.2f} nats."
        )
