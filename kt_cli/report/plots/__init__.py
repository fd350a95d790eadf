"""Plots of a sweep, each for one group of comparable rows; nothing is averaged across.

Figures are made without pyplot, sized for a column or a page, and the same for the same rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from kt_cli.errors import unknown
from kt_cli.report.captions import caption, general_notes
from kt_cli.report.groups import KEYS, SAME_DATA, SAME_TRANSFER, Group, split
from kt_cli.report.plots import classes, curves, matrix, methods, pairs
from kt_cli.report.plots.output import SUFFIXES, Drawn, save, svg
from kt_cli.report.plots.style import Marks, PlotResult, applied, slug
from kt_cli.report.query import Query, seed_average
from kt_cli.report.read import Results
from kt_cli.rows import schema

__all__ = ["PLOTS", "SUFFIXES", "Drawn", "Plot", "draw_all", "save", "svg"]

SIMILARITY = (
    "class_similarity",
    *(f"top{p}_similarity{end}" for p in schema.TOP_PERCENTS for end in ("", "_pct")),
)


@dataclass(frozen=True)
class Plot:
    """One kind of plot."""

    title: str
    table: str  # whose rows it shows
    # The figure of a group; None where there is nothing to draw.
    draw: Callable[..., PlotResult | None]
    columns: tuple[str, ...]  # of these rows, beside those that are always read
    # Columns that it needs of other tables.
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # Its rows, where they are not simply the finished ones of `table`.
    rows: Callable[[Results], pd.DataFrame] | None = None
    # Of which groups each method has a figure of its own.
    apart: Callable[[Group], bool] | None = None
    lists: bool = False  # whether it shows lists, which have no mean over seeds
    # What `draw` is told too, so that all its groups are drawn to one scale.
    scale: Callable[[Sequence[Group]], float] | None = None

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """Columns to read, by table."""
        return {self.table: self.columns, **self.others}

    def groups(self, results: Results, query: Query) -> list[Group]:
        """What it draws, each in a figure of its own."""
        rows = results.ok(self.table) if self.rows is None else self.rows(results)
        if self.rows is None:  # of what others need too, each part would be copied
            rows = rows[list(dict.fromkeys(["sweep", *KEYS[self.table], *self.columns]))]
        if self.table != "transfer":
            return split(rows, SAME_DATA)
        if query.seed_average and not self.lists:
            rows = seed_average(rows)
        groups = split(rows, SAME_TRANSFER)
        parted = [self.apart is not None and self.apart(group) for group in groups]
        if not any(parted):
            return groups
        each = split(rows, (*SAME_TRANSFER, "method"))
        return [
            member for group, part in zip(groups, parted, strict=True)
            for member in ([one for one in each if one.of(group)] if part else [group])
        ]  # fmt: skip


PLOTS: dict[str, Plot] = {
    "knowledge": Plot(
        "Complementary knowledge against the difference in accuracy.",
        "complementarity", pairs.knowledge, ("acc_diff", "pos_flips"),
    ),
    "entropy": Plot(
        "Entropy of complementary knowledge over classes against the difference in accuracy.",
        "complementarity", pairs.entropy, ("acc_diff", "flip_entropy"),
    ),
    "class-flips": Plot(
        "Complementary knowledge by class for a weak, an equal and a strong teacher.",
        "complementarity", classes.class_flips, ("acc_diff", "pos_flips", "by_class"),
        rows=classes.with_examples,
    ),
    "class-similarity": Plot(
        "How alike the classes are that hold most of the complementary knowledge.",
        "complementarity", classes.class_similarity, SIMILARITY,
    ),
    "success": Plot(
        "Share of transfers that improve the student. Mean transfer delta.",
        "transfer", methods.success, ("delta",),
    ),
    "delta": Plot(
        "Transfer delta against the difference in accuracy.",
        "transfer", methods.delta, ("delta", "acc_diff"),
    ),
    "gain-loss": Plot(
        "Knowledge gain against knowledge loss.", "transfer", methods.gain_loss, ("gain", "loss")
    ),
    "rate-classes": Plot(
        "Transfer rate within the classes that hold most of the complementary knowledge.",
        "transfer", methods.rate_classes, tuple(methods.CLASSES),
    ),
    "rate-size": Plot(
        "Transfer rate against the size of the student.", "transfer", methods.rate_size,
        ("transfer_rate",), {"models": ("params_m",)}, methods.with_sizes,
    ),
    "matrix": Plot(
        "Transfer delta of each student from each teacher.", "transfer", matrix.matrix,
        ("delta", "student_acc", "teacher_acc"), apart=matrix.apart, scale=matrix.scale,
    ),
    "curves": Plot(
        "Training curves.", "transfer", curves.curves, ("delta", *curves.PANELS), lists=True
    ),
}  # fmt: skip


def draw_all(
    results: Results, names: Sequence[str] | None = None, query: Query = Query()
) -> Iterator[Drawn]:
    """Each plot, or each of `names`, of each group that has something to draw.

    Raises:
        UnknownName: a name is none of PLOTS.
    """
    for name in names or ():
        if name not in PLOTS:
            raise unknown("plot", name, PLOTS)
    taken: Counter[str] = Counter()
    for name in (name for name in PLOTS if names is None or name in names):
        plot = PLOTS[name]
        groups = plot.groups(results, query)
        scale = () if plot.scale is None else (plot.scale(groups),)
        for group in groups:
            with applied():
                sketch = plot.draw(group, *scale)
            if sketch is not None:
                notes = (*sketch.notes, *general_notes(group, results, query, plot.table))
                said = " ".join((plot.title, f"{caption(group)}.", *notes))
                marks = _placed(sketch.marks, results.ok(plot.table), query)
                file = _file(name, group, taken)
                yield Drawn(name, file, said, sketch.figure, plot.table, marks)


def _placed(marks: Marks | None, rows: pd.DataFrame, query: Query) -> Marks | None:
    """Marks with the places of their rows; none where each stands for several."""
    if marks is None or query.seed_average or not rows.index.is_unique:
        return None
    return marks._replace(rows=rows.index.get_indexer(marks.rows))


def _file(name: str, group: Group, taken: Counter[str]) -> str:
    """A name that no other plot has."""
    parts = [slug(str(group.about[key])) for key in ("sweep", "method") if key in group.about]
    stem = "-".join((name, *parts))
    taken[stem] += 1
    return stem if taken[stem] == 1 else f"{stem}-{taken[stem]}"
