"""Many observations in one pair of axes: points, or, where they would hide each other, counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from kt_cli.report.plots.binning import Values
from kt_cli.report.plots.style import logarithmic

AS_POINTS = 3000  # at most
AS_SHAPES = 300  # more points are one small picture within the file
CELLS = 36  # across
GREYS = LinearSegmentedColormap.from_list("greys", ["#e4e4e4", "#5a5a5a"])


def cloud(figure: Figure, axes: Axes, x: Values, y: Values, what: str, **look: Any) -> bool:
    """Draw observations (n,) against each other; those with a NaN are left out.

    Args:
        what: what one observation is, in the plural.
        look: how points are drawn.

    Returns:
        Whether they are drawn as points; else the shade of a hexagon says how many lie there,
        and a scale is beside the axes.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) <= AS_POINTS:
        raster = len(x) > AS_SHAPES
        axes.scatter(x, y, **{"s": 9, "linewidths": 0, "alpha": 0.6, **look}, rasterized=raster)
        return True
    cells = axes.hexbin(
        x, y, gridsize=CELLS, mincnt=1, cmap=GREYS, norm=LogNorm(), linewidths=0, rasterized=True
    )
    scale = figure.colorbar(cells, ax=axes, pad=0.02, aspect=30)
    scale.set_label(f"{what} per hexagon")
    logarithmic(scale.ax.yaxis)
    scale.outline.set_visible(False)
    return False
