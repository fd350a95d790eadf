"""What tables have in common: their groups of rows, footnotes, and the best cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from kt_cli.errors import counted
from kt_cli.knowledge.significance import least_seen
from kt_cli.report.captions import general_notes
from kt_cli.report.codes import Cells
from kt_cli.report.groups import SAME_TRANSFER, SETTINGS, Group, across, split
from kt_cli.report.methods import method_rank
from kt_cli.report.query import Query, seed_average
from kt_cli.report.read import Results

INTERVALS = (
    "Intervals: 95%, over models like these: each is left out in turn, as student and as teacher; "
    "there are none below three students or teachers, unless there is a single one, and none where "
    "leaving out changes nothing."
)
BEST = (
    "Bold: the best, where on the same pairs it is better than each other one (95% interval of the "
    "difference; Wilcoxon’s p < 0.05 after Holm’s correction"
)


def transfer_groups(results: Results, query: Query, but: Sequence[str] = ()) -> list[Group]:
    """Finished transfers, their seeds averaged if that is asked for, as groups that compare.

    Args:
        but: settings in which rows of a group may differ.
    """
    rows = results.ok("transfer")
    rows = seed_average(rows) if query.seed_average else rows
    return split(across(rows, but) if but else rows, SAME_TRANSFER)


def settings_of(query: Query) -> list[str]:
    """The settings that a report is asked to tell apart in one table."""
    return [name for name in query.by if name in SETTINGS]


def methods_of(rows: pd.DataFrame) -> list[str]:
    return sorted(map(str, rows["method"].unique()), key=method_rank)


def transfer_notes(
    group: Group, results: Results, query: Query, count: str | None = None
) -> Iterator[str]:
    """How many transfers a table is about (or what `count` says), and which it leaves out."""
    known = group.rows[["teacher", "student", "seed", "method", "delta"]].dropna(subset=["delta"])
    unknown = len(group.rows) - len(known)
    yield count or _count_note(known, query)
    if unknown:
        yield f"Left out: {counted(unknown, 'transfer')} without Δ."
    yield from general_notes(group, results, query, "transfer")


def _count_note(rows: pd.DataFrame, query: Query) -> str:
    pairs, seeds = len(Cells.of(rows, ["teacher", "student"]).rows), int(rows["seed"].nunique())
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


def seen_note(group: Group) -> Iterator[str]:
    """From which |Δ| on a single transfer is significant, by method."""
    images = group.about["images"]
    if not isinstance(images, (int, float)):
        return
    changed = (group.rows["gain"] + group.rows["loss"]).groupby(group.rows["method"], observed=True)
    least = {str(m): smallest_seen(float(c), images) for m, c in changed.mean().dropna().items()}
    each = ", ".join(f"{least[method]:.2f} ({method})" for method in sorted(least, key=method_rank))
    if each:
        yield (
            f"On {images:,.0f} images a single transfer’s Δ is significant from about ±{each} "
            "points on, at the method’s mean gain and loss."
        )


def smallest_seen(changed: float, images: float) -> float:
    """The smallest |Δ| in points that McNemar's test finds significant (`least_seen`).

    Args:
        changed: percent of the images that are gained or lost.
    """
    return 100 * least_seen(round(changed * images / 100)) / images
