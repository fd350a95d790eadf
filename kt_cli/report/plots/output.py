"""Figures as files and as text: the same bytes for the same data."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from kt_cli.errors import UsageError
from kt_cli.files import atomic_file
from kt_cli.report.plots.style import Marks, applied

SUFFIXES = ("pdf", "svg", "png")
METADATA: dict[str, dict[str, str | None]] = {  # no dates, no versions
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "png": {"Software": None},
}
CAPTIONS = {"pdf": "Subject", "png": "Description"}  # fields of the caption


@dataclass(frozen=True)
class Drawn:
    """A plot of one group of comparable rows."""

    name: str  # one of PLOTS
    file: str  # what its file is called, without the suffix; unique
    caption: str  # what it shows of which rows, n and how to read it
    figure: Figure
    table: str = ""  # whose rows it shows
    # Where it shows them, and their places among the finished ones; None where it shows none one by
    # one.
    marks: Marks | None = None


def save(drawn: Drawn, folder: Path, suffix: str) -> Path:
    """Write a plot as `folder`/`drawn.file`.`suffix`.

    Raises:
        UsageError: the suffix is none of SUFFIXES. WriteError: it cannot be written.
    """
    form = suffix.lower().lstrip(".")
    if form not in SUFFIXES:
        raise UsageError(f"cannot draw a plot as {suffix}", f"Known: {', '.join(SUFFIXES)}.")
    data = svg(drawn).encode() if form == "svg" else _bytes(drawn, form)
    path = folder / f"{drawn.file}.{form}"
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)
    return path


def svg(drawn: Drawn) -> str:
    """A plot as SVG whose identifiers are its own, so that several can stand in one page."""
    text = _bytes(drawn, "svg").decode()
    for part in ("metadata", "style"):  # the style is for all elements of a page
        text = re.sub(rf"\s*<{part}\b.*?</{part}>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!DOCTYPE.*?>\s*", "", text, flags=re.DOTALL)
    text = text.replace("<svg ", '<svg stroke-linejoin="round" stroke-linecap="butt" ', 1)
    text = text.replace("<defs", f"<desc>{html.escape(drawn.caption)}</desc>\n <defs", 1)
    prefix = "p-" + re.sub(r"[^A-Za-z0-9]+", "-", drawn.file) + "-"
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", text)


def _bytes(drawn: Drawn, form: str) -> bytes:
    buffer = io.BytesIO()
    caption = {CAPTIONS[form]: drawn.caption} if form in CAPTIONS else {}
    with applied(drawn.file), _laid_out(drawn.figure) if form == "svg" else nullcontext():
        drawn.figure.savefig(buffer, format=form, metadata={**METADATA[form], **caption})
    return buffer.getvalue()


@contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """Lay a figure out for SVG: savefig would draw all of it twice, only to find the layout."""
    engine = figure.get_layout_engine()
    if engine is None:
        yield
        return
    FigureCanvasSVG(figure)
    engine.execute(figure)
    figure.set_layout_engine(None)  # even "none" would be drawn twice
    try:
        yield
    finally:
        figure.set_layout_engine(engine)
