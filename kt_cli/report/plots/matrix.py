"""The heat map of Δ: students × teachers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from kt_cli.report.captions import counted
from kt_cli.report.groups import Group
from kt_cli.report.plots.binning import Values, numbers
from kt_cli.report.plots.sketch import Sketch
from kt_cli.report.plots.style import (
    COLUMN,
    DOUBLE,
    INK,
    PALE,
    SMALL,
    new_figure,
    short_names,
    signed,
)
from kt_cli.report.tables.shared import by_one_teacher

MOST = 40  # students, teachers that have a row, a column of their own
BINS = 20  # of models by accuracy, where there are more
TALLEST, SHORTEST = 6.5, 1.0  # inches of all rows
LARGEST, ROOMY = 0.34, 0.22  # inches of a cell: at most, and with room for its number
POINTS = 72  # per inch
DIVERGING = LinearSegmentedColormap.from_list(
    "delta", ["#7A2E00", "#D55E00", "#F2C6A8", "#FAFAFA", "#A9CBE4", "#0072B2", "#00355A"]
)


def matrix(group: Group) -> Sketch | None:
    """Δ of each student (row) from each teacher (column), most accurate first, for one method."""
    if not by_one_teacher(group):
        return None
    rows = group.rows[np.isfinite(numbers(group.rows, "delta"))]
    if rows[["teacher", "student"]].drop_duplicates().shape[0] < 2:
        return None
    single = max(rows["student"].nunique(), rows["teacher"].nunique()) <= MOST
    if not single:
        rows = rows.dropna(subset=["student_acc", "teacher_acc"])
        if rows.empty:
            return None
    notes = [f"n = {counted(len(rows), 'transfer')} by {group.first('method')}."]
    if single:
        figure = _figure(_by_name(rows), "student", "teacher")
    else:
        figure = _figure(_by_accuracy(rows), "student accuracy (%)", "teacher accuracy (%)")
        notes.append("Means over students and teachers of like accuracy.")
    dashes = ("A dash: Δ < 0.",) if figure.axes[0].collections else ()
    return Sketch(figure, (*notes, "Hatched: no transfer.", *dashes))


def _by_name(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean Δ over seeds by student and teacher, each most accurate first."""
    cells = rows.groupby(["student", "teacher"], observed=True)["delta"].mean().unstack()
    table = cells.loc[_ranked(rows, "student"), _ranked(rows, "teacher")]
    rows_, columns = (short_names([str(name) for name in axis]) for axis in table.axes)
    return table.rename(index=rows_, columns=columns)


def _ranked(rows: pd.DataFrame, role: str) -> list[str]:
    accuracy = rows.groupby(role, observed=True)[f"{role}_acc"].mean()
    return sorted(accuracy.index, key=lambda name: (-np.nan_to_num(accuracy[name]), name))


def _by_accuracy(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean Δ by bins of the student's and the teacher's accuracy, highest first."""
    bins = [_bins(rows, role) for role in ("student", "teacher")]
    cells = rows.groupby(bins, sort=True)["delta"].mean().unstack()
    return cells.iloc[::-1, ::-1]


def _bins(rows: pd.DataFrame, role: str) -> Values:
    """For each row the mean accuracy of the models in its bin; bins hold as many models each."""
    models = rows.groupby(role, observed=True)[f"{role}_acc"].mean()
    limits = np.unique(np.quantile(models, np.linspace(0, 1, min(BINS, len(models)) + 1)))
    places = np.clip(np.searchsorted(limits, models, "right") - 1, 0, max(0, len(limits) - 2))
    middle = models.groupby(places).transform("mean")
    return np.asarray(rows[role].map(middle).astype("float64"))


def _figure(table: pd.DataFrame, row: str, column: str) -> Figure:
    down, across = table.shape
    names = [[_label(name) for name in axis] for axis in (table.index, table.columns)]
    letters = [max(map(len, axis)) * 0.6 * SMALL / POINTS for axis in names]
    room = {width: (width - letters[0] - 0.95) / across for width in (COLUMN, DOUBLE)}
    wide = room[COLUMN] if room[COLUMN] >= ROOMY else room[DOUBLE]
    cell = min(LARGEST, wide, TALLEST / down)
    width = max(COLUMN, letters[0] + 0.95 + cell * across)
    font = float(np.clip(0.9 * cell * POINTS, 4.5, SMALL))
    figure = new_figure(width, max(SHORTEST, cell * down) + letters[1] + 0.5)
    axes = figure.add_subplot()
    values = table.to_numpy(dtype=np.float64)
    image = _heat(axes, values)
    axes.set_xticks(range(across), names[1], rotation=90, fontsize=font)
    axes.set_yticks(range(down), names[0], fontsize=font)
    axes.tick_params(length=0)
    axes.set_xlabel(column)
    axes.set_ylabel(row)
    _signs(axes, values, font, cell)
    extend = "both" if np.nanmax(np.abs(values)) > image.get_clim()[1] else "neither"
    scale = figure.colorbar(image, ax=axes, extend=extend, pad=0.02, aspect=25, shrink=0.9)
    scale.set_label("Δ (pp)")
    return figure


def _label(name: object) -> str:
    return f"{name:.1f}" if isinstance(name, float) else str(name)


def _heat(axes: Axes, values: Values) -> AxesImage:
    """Cells coloured about 0; the scale ends where 2% of the cells are beyond it."""
    top = float(np.nanquantile(np.abs(values), 0.98)) or float(np.nanmax(np.abs(values))) or 1.0
    axes.patch.set(facecolor="white", hatch="//////", edgecolor=PALE)  # where nothing is drawn
    return axes.imshow(values, cmap=DIVERGING, vmin=-top, vmax=top, aspect="equal")


def _signs(axes: Axes, values: Values, font: float, cell: float) -> None:
    """Say the sign without colour: the number where it fits, else a dash where Δ < 0."""
    if cell < ROOMY:
        rows, columns = np.nonzero(values < 0)
        axes.scatter(columns, rows, marker="_", s=(0.45 * cell * POINTS) ** 2, color=INK,
                     linewidths=0.5)  # fmt: skip
        return
    top = float(axes.images[0].get_clim()[1] or 1.0)
    size = min(font, 0.32 * cell * POINTS)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.6 * top else INK
            text = axes.text(j, i, signed(value), ha="center", va="center", color=colour)
            text.set(fontsize=size, in_layout=False)  # it is within its cell
