"""Plots in the page: as they are, or compressed where they are many or large."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from kt_cli.report.page.blocks import Section, zipped
from kt_cli.report.plots import Drawn, svg

PLAIN = 1_500_000  # bytes of plots that are there without the script
# Drawn for print: a little larger on a screen, and on a narrow one hardly smaller.
LARGER, LEAST = 1.15, 0.95
FRAME = 20  # px that the card of a plot is wider than the plot
PROLOG = re.compile(r"^.*?(?=<svg\b)", re.DOTALL)
SIZE = re.compile(r'<svg[^>]*?\bviewBox="0 0 ([\d.]+) [\d.]+"')


def plots_section(plots: Sequence[Drawn], budget: int) -> Section:
    """The plots in at most `budget` bytes, and the names of those that found no room."""
    shown, missing, used = [], [], 0
    for i, plot in enumerate(plots, 1):
        drawing = PROLOG.sub("", svg(plot), count=1)
        block = _figure(drawing, plot.caption, f"plot-{i}", used + len(drawing) > PLAIN)
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


def _figure(drawing: str, caption: str, anchor: str, pack: bool) -> str:
    name, wide, least = escape(caption), "", ""
    if size := SIZE.search(drawing):
        pixels = float(size[1]) * 4 / 3
        wide = f' style="width:{LARGER * pixels + FRAME:.0f}px"'
        least = f' style="min-width:{LEAST * pixels:.0f}px"'
    drawing = drawing.replace("<svg", f'<svg role="img" aria-label="{name}"{least}', 1)
    card = f'<div class="card">{drawing}</div>'
    if pack:
        card = f'<div class="card" data-svg="{zipped(drawing.encode())}"></div>'
    return f'<figure id="{anchor}"{wide}>{card}<figcaption>{name}</figcaption></figure>'
