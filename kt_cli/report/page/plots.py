"""Plots in the page: as they are, or compressed where they are many or large."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape

import numpy as np

from kt_cli.report.page.blocks import Section, zipped
from kt_cli.report.plots import Drawn, svg

PLAIN = 1_500_000  # bytes of plots that are there without the script
# Drawn for print: a little larger on a screen, and on a narrow one hardly smaller.
LARGER, LEAST = 1.15, 0.95
FRAME = 20  # px that the card of a plot is wider than the plot
MOST = 3000  # marks of a plot that say which row they are
POINTS = 72  # per inch, of an SVG
PROLOG = re.compile(r"^.*?(?=<svg\b)", re.DOTALL)
SIZE = re.compile(r'<svg[^>]*?\bviewBox="0 0 ([\d.]+) [\d.]+"')


def plots_section(plots: Sequence[Drawn], budget: int) -> Section:
    """The plots in at most `budget` bytes, and the names of those that found no room."""
    shown, missing, used = [], [], 0
    for i, plot in enumerate(plots, 1):
        drawing = drawing_of(plot)
        block = figure(drawing, plot, f"plot-{i}", used + len(drawing) > PLAIN)
        size = len(block.encode())
        if used + size > budget:
            missing.append(plot.file)
            continue
        used += size
        shown.append(block)
    html = f'<div class="plots">{"".join(shown)}</div>' if shown else ""
    if missing:
        html += (
            f'<p class="caption">Not in this page for its size: {escape(", ".join(missing))}. '
            "kt report --plots draws them.</p>"
        )
    return Section("plots", "Plots", html)


def drawing_of(plot: Drawn) -> str:
    """A plot as an element of the page."""
    return PROLOG.sub("", svg(plot), count=1)


def figure(drawing: str, plot: Drawn, anchor: str, pack: bool = False, least: float = LEAST) -> str:
    """A plot with its caption; `pack`: compressed, `least`: of its width that a screen shows."""
    name, wide, narrow = escape(plot.caption), "", ""
    if size := SIZE.search(drawing):
        pixels = float(size[1]) * 4 / 3
        wide = f' style="width:{LARGER * pixels + FRAME:.0f}px"'
        narrow = f' style="min-width:{least * pixels:.0f}px"'
    drawing = drawing.replace("<svg", f'<svg role="img" aria-label="{name}"{narrow}', 1)
    about = _marks(plot)
    card = f'<div class="card"{about}>{drawing}</div>'
    if pack:
        card = f'<div class="card"{about} data-svg="{zipped(drawing.encode())}"></div>'
    return f'<figure id="{anchor}"{wide}>{card}<figcaption>{name}</figcaption></figure>'


def _marks(plot: Drawn) -> str:
    """Where a plot shows which row: x, y in its own units and the row's place, as attributes.

    After it was drawn, which lays it out.
    """
    if plot.marks is None or not 0 < len(plot.marks.x) <= MOST:
        return ""
    axes, x, y, rows, cells = plot.marks
    seen = axes.transData.transform(np.column_stack([x, y]).astype(float))
    here = np.isfinite(seen).all(axis=1) & (rows >= 0)
    here[here] = [axes.bbox.contains(*one) for one in seen[here]]
    units = POINTS / plot.figure.dpi
    height = plot.figure.get_size_inches()[1] * POINTS
    found = [[round(a * units, 1), round(height - b * units, 1), int(row)]
             for (a, b), row in zip(seen[here], rows[here], strict=True)]  # fmt: skip
    said = json.dumps(found, separators=(",", ":"))
    (left, _), (right, _) = axes.transData.transform([(0, 0), (1, 0)])
    side = f' data-side="{(right - left) * units:.2f}"' if cells else ""
    return f' data-rows-of="{plot.table}" data-marks="{said}"{side}'
