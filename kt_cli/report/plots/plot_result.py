"""What a plot gives back: a figure and what a reader must know about it."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class PlotResult:
    """A figure, and the sentences that explain it (n, what marks and bands are)."""

    figure: Figure
    notes: tuple[str, ...] = ()
