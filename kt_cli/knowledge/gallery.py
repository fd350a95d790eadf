"""The images that one model has right and another wrong, drawn."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from kt_cli.errors import UsageError, counted
from kt_cli.files import atomic_file
from kt_cli.knowledge.comparison import Comparison
from kt_cli.knowledge.explanation import Sample, samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 6
SIDE = 160
LETTERS = 20
SAMPLES = 12
CHANGES = ((1, 0), (0, 1))  # of a model after and before: what was gained, then what was lost
ENDINGS = (".png", ".pdf", ".svg", ".html")

Block = tuple[str, list[Sample]]


def require_ending(target: Path) -> None:
    """Refuse a file that cannot be drawn.

    Raises:
        UsageError: its ending is not one of ENDINGS.
    """
    if target.suffix.lower() not in ENDINGS:
        raise UsageError(f"cannot draw into {target.name}", f"Known: {', '.join(ENDINGS)}.")


def draw(
    target: Path, found: Comparison, pairs: Sequence[tuple[int, int]], count: int,
    witness: int | None = None,
) -> None:  # fmt: skip
    """Draw up to `count` images for each (teacher, student), a block each.

    witness: a model whose answers are told too.

    Raises:
        DataError: an image cannot be decoded. WriteError: the file cannot be written.
    """
    blocks: list[Block] = []
    for teacher, student in pairs:
        picked = samples(found, teacher, student, count)
        said = f"{found.names[teacher]} is right, {found.names[student]} is wrong"
        total = counted(int(found.flips(teacher, student).sum()), "image")
        blocks.append((f"{said} ({len(picked)} of {total})", picked))
    with atomic_file(target) as temporary:
        if target.suffix.lower() == ".html":
            temporary.write_text(_page(found, blocks, witness), encoding="utf-8")
        else:
            form = target.suffix.lower().lstrip(".")
            _figure(found, blocks, witness).savefig(temporary, format=form, dpi=150)


def _thumbnail(found: Comparison, sample: Sample) -> Image.Image:
    image = found.images.read(sample.index)
    if max(image.size) <= SIDE // 2:  # tiny images stay sharp
        factor = SIDE // max(image.size)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((SIDE, SIDE))
    return image


def _said(found: Comparison, sample: Sample, witness: int | None) -> str:
    if witness is None:
        return ""
    return f"{found.names[witness]}: {found.answer(witness, sample.index)}"


def _figure(found: Comparison, blocks: Sequence[Block], witness: int | None) -> Figure:
    from matplotlib.figure import Figure

    rows = [max(1, -(-len(picked) // COLUMNS)) for _, picked in blocks]
    heights = [(1.75 + 0.15 * (witness is not None)) * count + 0.45 for count in rows]
    figure = Figure(figsize=(1.35 * COLUMNS, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(blocks), 1, height_ratios=heights, squeeze=False)
    for part, (title, picked), count in zip(parts[:, 0], blocks, rows, strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold", parse_math=False)
        axes = part.subplots(count, COLUMNS, squeeze=False)
        for axis in axes.ravel():
            axis.set_axis_off()
        for axis, sample in zip(axes.ravel(), picked, strict=False):
            axis.imshow(_thumbnail(found, sample))
            told = [_short(sample.label), f"not {_short(sample.answer)}"]
            told += [_short(said)] if (said := _said(found, sample, witness)) else []
            title = "\n".join(told)
            axis.set_title(title, fontsize=6.5, loc="left", parse_math=False)
    return figure


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"


STYLE = """
:root { color-scheme: light dark; font: 14px system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 1rem; }
figure { margin: 0; } img { max-width: 100%; border-radius: 4px; }
figcaption span { opacity: .7; display: block; overflow-wrap: anywhere; }
"""


def _page(found: Comparison, blocks: Sequence[Block], witness: int | None) -> str:
    parts = ["<!doctype html><html lang=en><meta charset=utf-8>",
             "<meta name=viewport content='width=device-width, initial-scale=1'>",
             f"<title>kt: {html.escape(' and '.join(found.names))}</title>",
             f"<style>{STYLE}</style>"]  # fmt: skip
    for title, picked in blocks:
        cells = "".join(_card(found, sample, witness) for sample in picked)
        parts.append(f"<h2>{html.escape(title)}</h2><div class=grid>{cells}</div>")
    return "\n".join(parts) + "</html>\n"


def _card(found: Comparison, sample: Sample, witness: int | None) -> str:
    buffer = io.BytesIO()
    _thumbnail(found, sample).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    told = sample.label, sample.answer, sample.id, _said(found, sample, witness)
    label, answer, name, said = map(html.escape, told)
    said = f"<span>{said}</span>" if said else ""
    return (
        f"<figure><img alt='{label}' src='data:image/png;base64,{data}'>"
        f"<figcaption><b>{label}</b>, not {answer}{said}<span>{name}</span></figcaption></figure>"
    )
