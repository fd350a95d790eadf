"""What tables have in common: their groups of rows, footnotes, and the best cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kt_cli.report.captions import counted, left_out, limit_note
from kt_cli.report.groups import SAME_TRANSFER, Group, split
from kt_cli.report.methods import method_rank
from kt_cli.report.query import Query, seed_average
from kt_cli.report.read import Results

CHI_SQUARE = 3.84  # of one degree of freedom, 95%
JOINED = ", "  # between the settings of a table that is about several
INTERVALS = (
    "Intervals: 95%, over models like these: each is left out in turn, as student and as teacher; "
    "there are none below three students or teachers, unless there is a single one."
)
BEST = (
    "Bold: the best, where on the same pairs it is better than each other one (95% interval of the "
    "difference; Wilcoxon’s p < 0.05 after Holm’s correction"
)
NOUNS = {"transfer": "transfer", "complementarity": "ordered pair", "models": "model"}


def transfer_groups(
    results: Results, query: Query, same: Sequence[str] = SAME_TRANSFER
) -> list[Group]:
    """Finished transfers, their seeds averaged if that is asked for, as groups that compare."""
    rows = results.ok("transfer")
    return split(seed_average(rows) if query.seed_average else rows, same)


def by_one_teacher(group: Group) -> bool:
    """Whether no transfer of the group has several teachers."""
    ways = group.rows["teachers"]
    return bool((ways.isna() | (ways == "single")).all())


def methods_of(rows: pd.DataFrame) -> list[str]:
    return sorted(map(str, rows["method"].unique()), key=method_rank)


def with_delta(group: Group) -> pd.DataFrame:
    """The transfers that are averaged; a note says how many others there are."""
    return group.rows.dropna(subset=["delta"])


def transfer_notes(
    group: Group, results: Results, query: Query, count: str | None = None
) -> list[str]:
    """How many transfers a table is about (or what `count` says), and which it leaves out."""
    unknown = int(group.rows["delta"].isna().sum())
    return [
        count or _count_note(with_delta(group), query),
        *([f"Left out: {counted(unknown, 'transfer')} without Δ."] if unknown else []),
        *left_out(failed_transfers(group, results), group, "transfer"),
        *general_notes(group, results, query, "transfer"),
    ]


def failed_transfers(group: Group, results: Results) -> pd.DataFrame:
    """Transfers without a result that have the group's settings and, where it has one, method."""
    failed = results.failed("transfer")
    failed = failed[failed["settings"].isin(str(group.about["settings"]).split(JOINED))]
    return failed[failed["method"] == group.about["method"]] if "method" in group.about else failed


def general_notes(group: Group, results: Results, query: Query, table: str) -> list[str]:
    """`--limit`, `--where` and what could not be read."""
    return [*limit_note(group), *_where_note(results, query, table), *unread_note(results)]


def _where_note(results: Results, query: Query, table: str) -> list[str]:
    if not query.where:
        return []
    lacking = query.lacks(table)
    if lacking:
        return [f"Not chosen by {query.where}: these rows have no {' and no '.join(lacking)}."]
    count = counted(results.filtered.get(table, 0), NOUNS[table])
    return [f"Only where {query.where}, which leaves out {count}."]


def unread_note(results: Results) -> list[str]:
    if not results.skipped:
        return []
    return [f"Left out: the rows of {counted(len(results.skipped), 'file')} that cannot be read."]


def _count_note(rows: pd.DataFrame, query: Query) -> str:
    pairs, seeds = len(rows.drop_duplicates(["teacher", "student"])), int(rows["seed"].nunique())
    methods = int(rows["method"].nunique())
    parts = [counted(pairs, "pair"), counted(methods, "method")]
    if query.seed_average:
        total, runs = f"{counted(len(rows), 'mean')} over seeds", 1
    else:
        total, runs = counted(len(rows), "transfer"), seeds
        parts.append(counted(seeds, "seed"))
    if len(rows) == pairs * methods * runs:
        return f"n = {total}: {' × '.join(parts)}."
    return (
        f"n = {total} of {', '.join(parts)}; methods do not all cover the same pairs and seeds, "
        "so compare them with care."
    )


def seen_note(group: Group) -> list[str]:
    """From which |Δ| on a single transfer is significant, by method."""
    images = group.about["images"]
    if not isinstance(images, (int, float)):
        return []
    changed = (group.rows["gain"] + group.rows["loss"]).groupby(group.rows["method"], observed=True)
    least = {str(m): smallest_seen(float(c), images) for m, c in changed.mean().dropna().items()}
    if not least:
        return []
    each = ", ".join(f"{least[method]:.2f} ({method})" for method in sorted(least, key=method_rank))
    return [
        f"On {images:,.0f} images a single transfer’s Δ is significant from about ±{each} points "
        "on, at the method’s mean gain and loss."
    ]


def smallest_seen(changed: float, images: float) -> float:
    """The smallest |Δ| in points that McNemar's test finds significant, about.

    By its normal approximation |g − l| ≥ √(3.84 · 100 (g + l) / n), g + l = `changed` the percent
    of n images that are gained or lost; and of fewer than six no test says anything.
    """
    return float(max(np.sqrt(CHI_SQUARE * 100 * changed / images), 600 / images))


def floats(rows: pd.DataFrame, column: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A column as numbers, NaN for null."""
    return rows[column].to_numpy(dtype=np.float64, na_value=np.nan)
