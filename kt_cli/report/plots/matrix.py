"""The heat map of Δ: students × teachers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from kt_cli.report.codes import Floats
from kt_cli.report.groups import Group, by_one_teacher
from kt_cli.report.intervals import numbers
from kt_cli.report.plots import style
from kt_cli.report.plots.binning import ByMethod
from kt_cli.report.plots.style import COLUMN, DOUBLE, INK, SMALL, Marks, PlotResult
from kt_cli.report.tables.matrix import by_accuracy

MOST = 40  # students, teachers that have a row, a column of their own
BINS = 20  # of models by accuracy, where there are more
FEW_DASHES = 100  # more are one small picture within the file
ACROSS = 4  # matrices of methods beside each other
TITLED, AROUND = 0.3, 0.9  # inches of a matrix's title, and of labels and scale beside them
TALLEST, SHORTEST = 6.5, 1.0  # inches of all rows
LARGEST, ROOMY = 0.34, 0.22  # inches of a cell: at most, and with room for its number
POINTS = 72  # per inch
HALF_HEIGHT = 0.365  # of a digit, for each point of its font's size
DIVERGING = LinearSegmentedColormap.from_list(
    "delta", ["#7A2E00", "#D55E00", "#F2C6A8", "#FAFAFA", "#A9CBE4", "#0072B2", "#00355A"]
)


def scale(groups: Sequence[Group]) -> float:
    """Where the colours of all these matrices end: 2% of all their cells are beyond it."""
    tables = [table for rows in map(_rows, groups) if rows is not None for table in _tables(rows)]
    cells = np.abs(np.concatenate([np.ravel(table) for table in tables] or [np.ones(1)]))
    return float(np.nanquantile(cells, 0.98)) or float(np.nanmax(cells)) or 1.0


def apart(group: Group) -> bool:
    """Whether each method has a figure of its own: models that have a row each are read there."""
    return _by_model(group.rows) or group.rows["method"].nunique() == 1


def matrix(group: Group, top: float) -> PlotResult | None:
    """Δ of each student (row) from each teacher (column); `top`: see `scale`."""
    rows = _rows(group)
    if rows is None:
        return None
    by, tables = ByMethod.of(rows, "delta"), _tables(rows)
    notes, names = [by.note()], ("student", "teacher")
    if not _named(rows):
        names = "student accuracy (%)", "teacher accuracy (%)"
        notes.append("Means over students and teachers of like accuracy.")
    several = len(tables) > 1
    figure = (
        _beside(by.methods, tables, top, *names) if several
        else _figure(tables[0], top, *names)
    )  # fmt: skip
    notes.append("Colours mean the same in all matrices that were drawn together.")
    dashed = any(axes.collections for axes in figure.axes[: len(tables)])
    dashes = ("A dash: Δ < 0.",) if dashed else ()
    marks = _marks(figure.axes[0], rows) if _named(rows) else None
    return PlotResult(figure, (*notes, "Hatched: no transfer.", *dashes), marks)


def _marks(axes: Axes, rows: pd.DataFrame) -> Marks:
    """Each cell, as the first transfer in it."""
    once = rows.drop_duplicates(["teacher", "student"])
    x, y = (
        once[role].astype(object).map({name: i for i, name in enumerate(by_accuracy(rows, role))})
        for role in ("teacher", "student")
    )
    return Marks(axes, x.to_numpy(float), y.to_numpy(float), once.index, cells=True)


def _rows(group: Group) -> pd.DataFrame | None:
    """What a matrix shows; None where that is less than two pairs."""
    if not by_one_teacher(group):
        return None
    rows = group.rows[np.isfinite(numbers(group.rows, "delta"))]
    if not _named(rows):
        rows = rows.dropna(subset=["student_acc", "teacher_acc"])
    return rows if len(rows[["teacher", "student"]].drop_duplicates()) > 1 else None


def _named(rows: pd.DataFrame) -> bool:
    """Whether models have rows of their own, of one method."""
    return _by_model(rows) and rows["method"].nunique() == 1


def _by_model(rows: pd.DataFrame) -> bool:
    return max(rows["student"].nunique(), rows["teacher"].nunique()) <= MOST


def _tables(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Mean Δ by student and teacher, of one method; or by bins of their accuracy, of each method;
    the most accurate first."""
    return [_by_names(rows)] if _named(rows) else _by_accuracy(rows)


def _by_names(rows: pd.DataFrame) -> pd.DataFrame:
    cells = rows.groupby(["student", "teacher"], observed=True)["delta"].mean().unstack()
    table = cells.loc[by_accuracy(rows, "student"), by_accuracy(rows, "teacher")]
    students, teachers = (style.short_names(list(map(str, axis))) for axis in table.axes)
    return table.rename(index=students, columns=teachers)


def _by_accuracy(rows: pd.DataFrame) -> list[pd.DataFrame]:
    by, bins = ByMethod.of(rows, "delta"), [_bins(rows, role) for role in ("student", "teacher")]
    means = rows.groupby([by.codes, *bins])["delta"].mean().unstack().iloc[:, ::-1]
    students = sorted(np.unique(bins[0]), reverse=True)
    parts = (means.loc[[i]].droplevel(0) for i in range(len(by.methods)))
    return [part.reindex(students) for part in parts]


def _bins(rows: pd.DataFrame, role: str) -> Floats:
    """For each row the mean accuracy of the models in its bin; bins hold as many models each."""
    models = rows.groupby(role, observed=True)[f"{role}_acc"].mean()
    limits = np.unique(np.quantile(models, np.linspace(0, 1, min(BINS, len(models)) + 1)))
    places = np.clip(np.searchsorted(limits, models, "right") - 1, 0, max(0, len(limits) - 2))
    middle = models.groupby(places).transform("mean")
    return np.asarray(rows[role].map(middle).astype("float64"))


def _figure(table: pd.DataFrame, top: float, row: str, column: str) -> Figure:
    down, across = table.shape
    names = [[f"{n:.1f}" if isinstance(n, float) else str(n) for n in axis] for axis in table.axes]
    letters = [max(map(len, axis)) * 0.6 * SMALL / POINTS for axis in names]
    room = {width: (width - letters[0] - 0.95) / across for width in (COLUMN, DOUBLE)}
    wide = room[COLUMN] if room[COLUMN] >= ROOMY else room[DOUBLE]
    cell = min(LARGEST, wide, TALLEST / down)
    width = max(COLUMN, letters[0] + 0.95 + cell * across)
    font = float(np.clip(0.9 * cell * POINTS, 4.5, SMALL))
    figure = style.new_figure(width, max(SHORTEST, cell * down) + letters[1] + 0.5)
    axes = figure.add_subplot()
    values = table.to_numpy(dtype=np.float64)
    _image(axes, values, top)
    axes.set_xticks(range(across), names[1], rotation=90, fontsize=font)
    axes.set_yticks(range(down), names[0], fontsize=font)
    axes.set_xlabel(column)
    axes.set_ylabel(row)
    _signs(axes, values, top, font, cell)
    _scale(figure, [axes], values, top)
    return figure


def _beside(
    methods: Sequence[str], tables: Sequence[pd.DataFrame], top: float, row: str, column: str
) -> Figure:
    """The matrices of several methods, of the same rows and columns, and one scale."""
    across, width = min(ACROSS, len(tables)), (DOUBLE - AROUND) / ACROSS
    down = -(-len(tables) // across)
    figure = style.new_figure(AROUND + across * width, down * (width + TITLED) + TITLED)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, method, table in zip(grid, methods, tables, strict=False):
        values = table.to_numpy(dtype=np.float64)
        _image(axes, values, top)
        axes.set_title(method, loc="left", fontsize=style.FONT)
        _signs(axes, values, top, SMALL, width / max(values.shape))
    for set_ticks, labels in (
        (grid[0].set_yticks, table.index),
        (grid[0].set_xticks, table.columns),
    ):
        places = np.unique(np.linspace(0, len(labels) - 1, 4).round().astype(int))
        set_ticks(places, [f"{labels[place]:.0f}" for place in places])
    for axes in grid[len(tables) :]:
        axes.remove()
    for axes in grid[len(tables) - across : len(tables)]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel(column, fontsize=style.FONT)
    figure.supylabel(row, fontsize=style.FONT)
    _scale(figure, grid[: len(tables)].tolist(), np.concatenate([*map(np.ravel, tables)]), top)
    return figure


def _image(axes: Axes, values: Floats, top: float) -> None:
    """Hatched where nothing is drawn."""
    axes.patch.set(facecolor="white", hatch="//////", edgecolor=style.PALE)
    axes.imshow(values, cmap=DIVERGING, vmin=-top, vmax=top, aspect="equal")
    axes.tick_params(length=0)


def _scale(figure: Figure, axes: Sequence[Axes], values: Floats, top: float) -> None:
    extend = "both" if np.nanmax(np.abs(values)) > top else "neither"
    image, aspect = axes[0].images[0], 25 if len(axes) == 1 else 40
    bar = figure.colorbar(image, ax=axes, extend=extend, pad=0.02, aspect=aspect, shrink=0.9)
    bar.set_label("Δ (pp)")


def _signs(axes: Axes, values: Floats, top: float, font: float, cell: float) -> None:
    """Say the sign without colour: the number where it fits, else a dash where Δ < 0."""
    if cell < ROOMY:
        rows, columns = np.nonzero(values < 0)
        axes.scatter(columns, rows, marker="_", s=(0.45 * cell * POINTS) ** 2, color=INK,
                     linewidths=0.5, rasterized=len(rows) > FEW_DASHES)  # fmt: skip
        return
    size = min(font, 0.32 * cell * POINTS)
    alike: dict[tuple[str, str], list[tuple[int, ...]]] = {}
    for place, value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.6 * top else INK
            alike.setdefault((style.signed(float(value)), colour), []).append(place)
    # Equal numbers as marks of one shape: a text for each of hundreds of cells takes a second.
    for (text, colour), places in alike.items():
        shape, width = _shape(text)
        rows, columns = np.transpose(places)
        axes.plot(columns, rows, marker=shape, markersize=size * width, linestyle="none",
                  color=colour, markeredgewidth=0, scalex=False, scaley=False)  # fmt: skip


@cache
def _shape(text: str) -> tuple[Path, float]:
    """A text as a marker, centred, and the size that it has for each point of its font's size."""
    outline = TextPath((0, 0), text, size=1)
    box = outline.get_extents()
    centred = outline.transformed(Affine2D().translate(-(box.x0 + box.x1) / 2, -HALF_HEIGHT))
    return centred, 2 * float(np.abs(centred.vertices).max())
