"""Plots of a sweep, each for one group of comparable rows; nothing is averaged across.

`PLOTS` says which there are, `draw_all` draws them, `save` and `svg` give them away. Figures are
made without pyplot, sized for a column or a page, and the same for the same rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from kt_cli.errors import unknown
from kt_cli.report.captions import data_caption, left_out, transfer_caption
from kt_cli.report.groups import SAME_DATA, SAME_TRANSFER, Group, split
from kt_cli.report.plots import classes, curves, matrix, methods, pairs, rates
from kt_cli.report.plots.output import SUFFIXES, Drawn, save, svg
from kt_cli.report.plots.plot_result import PlotResult
from kt_cli.report.plots.style import applied, slug
from kt_cli.report.query import Query, seed_average
from kt_cli.report.read import Results
from kt_cli.report.tables.shared import failed_transfers, general_notes
from kt_cli.rows import schema

__all__ = ["PLOTS", "SUFFIXES", "Drawn", "Plot", "draw_all", "save", "svg"]

RATES = ("transfer_rate", *(f"top{p}_rate" for p in schema.TOP_PERCENTS))
SIMILARITY = (
    "class_similarity",
    *(f"top{p}_similarity{end}" for p in schema.TOP_PERCENTS for end in ("", "_pct")),
)


@dataclass(frozen=True)
class Plot:
    """One kind of plot.

    Attributes:
        title: what it shows, in one sentence.
        table: whose rows it shows.
        draw: the figure of a group; None where there is nothing to draw.
        needs: columns it needs beside those that are always read, by table.
        same: columns that its rows agree in.
        rows: its rows, where they are not simply the finished ones of `table`.
        lists: whether it shows lists, which have no mean over seeds.
        scale: what `draw` is told too, so that all its groups are drawn to one scale.
    """

    title: str
    table: str
    draw: Callable[..., PlotResult | None]
    needs: Mapping[str, tuple[str, ...]]
    same: tuple[str, ...]
    rows: Callable[[Results], pd.DataFrame] | None = None
    lists: bool = False
    scale: Callable[[Sequence[Group]], float] | None = None

    def groups(self, results: Results, query: Query) -> list[Group]:
        """What it draws, each in a figure of its own."""
        rows = results.ok(self.table) if self.rows is None else self.rows(results)
        if query.seed_average and self.table == "transfer" and not self.lists:
            rows = seed_average(rows)
        return split(rows, self.same)


def _pairs(title: str, draw: Callable[[Group], PlotResult | None], *columns: str) -> Plot:
    return Plot(title, "complementarity", draw, {"complementarity": columns}, SAME_DATA)


def _transfers(
    title: str, draw: Callable[[Group], PlotResult | None], *columns: str, lists: bool = False
) -> Plot:
    return Plot(title, "transfer", draw, {"transfer": columns}, SAME_TRANSFER, lists=lists)


PLOTS: dict[str, Plot] = {
    "knowledge": _pairs(
        "Complementary knowledge against the difference in accuracy.",
        pairs.knowledge, "acc_diff", "pos_flips",
    ),
    "entropy": _pairs(
        "Entropy of complementary knowledge over classes against the difference in accuracy.",
        pairs.entropy, "acc_diff", "flip_entropy",
    ),
    "class-flips": Plot(
        "Complementary knowledge by class for a weak, an equal and a strong teacher.",
        "complementarity", classes.class_flips,
        {"complementarity": ("acc_diff", "pos_flips", "by_class")}, SAME_DATA,
        classes.with_examples,
    ),
    "class-similarity": _pairs(
        "How alike the classes are that hold most of the complementary knowledge.",
        classes.class_similarity, *SIMILARITY,
    ),
    "success": _transfers("Share of transfers that improve the student.",
                          methods.success, "delta"),
    "delta": _transfers("Transfer delta against the difference in accuracy.",
                        methods.delta, "delta", "acc_diff"),
    "gain-loss": _transfers("Knowledge gain against knowledge loss.",
                            methods.gain_loss, "gain", "loss"),
    "rate-classes": _transfers(
        "Transfer rate within the classes that hold most of the complementary knowledge.",
        rates.rate_classes, *RATES,
    ),
    "rate-size": Plot(
        "Transfer rate against the size of the student.", "transfer", rates.rate_size,
        {"transfer": ("transfer_rate",), "models": ("params_m",)}, SAME_TRANSFER,
        rates.with_sizes,
    ),
    "matrix": Plot(
        "Transfer delta of each student from each teacher.", "transfer", matrix.matrix,
        {"transfer": ("delta", "student_acc", "teacher_acc")}, (*SAME_TRANSFER, "method"),
        scale=matrix.scale,
    ),
    "curves": _transfers("Training curves.", curves.curves, "delta", *curves.PANELS, lists=True),
}  # fmt: skip


def draw_all(
    results: Results, names: Sequence[str] | None = None, query: Query = Query()
) -> Iterator[Drawn]:
    """Each plot of each group that has something to draw.

    Args:
        names: which plots; None for all.
        query: what the results were chosen by; whether seeds are averaged first.

    Raises:
        UnknownName: a name is none of PLOTS.
    """
    for name in names or ():
        if name not in PLOTS:
            raise unknown("plot", name, PLOTS)
    taken: Counter[str] = Counter()
    for name, plot in PLOTS.items():
        if names is not None and name not in names:
            continue
        groups = plot.groups(results, query)
        scale = () if plot.scale is None else (plot.scale(groups),)
        for group in groups:
            with applied():
                sketch = plot.draw(group, *scale)
            if sketch is not None:
                caption = _caption(plot, group, (*sketch.notes, *_left_out(plot, group, results)))
                notes = general_notes(group, results, query, plot.table)
                file = _file(name, group, taken)
                yield Drawn(name, file, " ".join((caption, *notes)), sketch.figure)


def _file(name: str, group: Group, taken: Counter[str]) -> str:
    """A name that no other plot has."""
    parts = [name, slug(str(group.about["sweep"]))]
    if "method" in group.about:
        parts.append(slug(str(group.about["method"])))
    stem = "-".join(parts)
    taken[stem] += 1
    return stem if taken[stem] == 1 else f"{stem}-{taken[stem]}"


def _caption(plot: Plot, group: Group, notes: Sequence[str]) -> str:
    about = transfer_caption(group) if plot.table == "transfer" else data_caption(group)
    return " ".join((plot.title, f"{about}.", *notes))


def _left_out(plot: Plot, group: Group, results: Results) -> list[str]:
    if plot.table == "transfer":
        return left_out(failed_transfers(group, results), group, "transfer")
    return left_out(results.failed(plot.table), group, "run")
