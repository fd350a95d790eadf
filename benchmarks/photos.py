"""Images like photographs: what decoding, resizing and small models meet, without any download."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIDES = (200, 700)
ASPECTS = (0.4, 2.5)
ORIENTATION = 0x0112  # of EXIF
KINDS = ("RGB", "L", "CMYK")
SHARES = (0.9, 0.06, 0.04)
OCTAVES = 7


def photos(
    folder: Path, count: int, classes: int, seed: int = 0, sides: tuple[int, int] = SIDES
) -> list[Path]:
    """Write `count` JPEGs into one folder for each class; equal arguments give equal images.

    Colour noise with a 1/f spectrum, a gradient and a few shapes; a class has its own hues and
    kind of shape. Sizes, aspects (0.4 to 2.5) and qualities vary; some are grey, CMYK or
    progressive, and some have an EXIF orientation.

    Args:
        sides: bounds of the longer side in pixels.

    Returns:
        The files, in order; the label of the i-th is i modulo `classes`.
    """
    written = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        label = i % classes
        path = folder / f"class{label}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(photo(label / classes, rng, sides), path, rng)
        written.append(path)
    return written


def photo(hue: float, rng: np.random.Generator, sides: tuple[int, int] = SIDES) -> Image.Image:
    """One RGB image; `hue` in [0, 1) decides on its colours and shapes."""
    aspect = np.exp(rng.uniform(*np.log(ASPECTS)))
    longer = rng.integers(sides[0], sides[1], endpoint=True)
    width = max(1, round(longer * min(1, aspect)))
    height = max(1, round(longer * min(1, 1 / aspect)))
    image = _noise(rng).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.float32) * 0.6 + _gradient(width, height, hue, rng) * 0.4
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 5)):
        _shape(draw, image.size, hue, rng)
    grain = rng.integers(-12, 13, (height, width, 1), dtype=np.int16)
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def _noise(rng: np.random.Generator) -> Image.Image:
    """Noise whose amplitude halves where its frequency doubles."""
    image = Image.fromarray(np.full((4, 4, 3), 128, np.uint8))
    for octave in range(OCTAVES):
        side, amplitude = 4 << octave, 90 / 2**octave
        image = image.resize((side, side), Image.Resampling.BICUBIC)
        values = rng.normal(0, amplitude, (side, side, 3)) + np.asarray(image)
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    return image


def _gradient(width: int, height: int, hue: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(height, width, 3) from one colour to another, in any direction."""
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(np.cos(angle))
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    share = ((x + y) / 3 + 0.5)[..., None].clip(0, 1)
    first, second = _colour(hue, rng), _colour(hue + 0.15, rng)
    return np.asarray(first * share + second * (1 - share), np.float32)


def _shape(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], hue: float, rng: np.random.Generator
) -> None:
    colour = tuple(_colour(hue + 0.5, rng).astype(int).tolist())
    extent = rng.uniform(0.1, 0.4) * min(size)
    x, y = rng.uniform(0, size[0]), rng.uniform(0, size[1])
    sides = 3 + int(hue * 97) % 4
    if sides == 6:
        draw.ellipse((x - extent, y - extent, x + extent, y + extent), fill=colour)
    else:
        draw.regular_polygon((x, y, max(1.0, extent)), sides, rng.uniform(0, 90), fill=colour)


def _colour(hue: float, rng: np.random.Generator) -> NDArray[np.float32]:
    shifted = (hue + rng.normal(0, 0.03)) % 1
    rgb = colorsys.hsv_to_rgb(shifted, rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.9))
    return np.asarray(rgb, np.float32) * 255


def _save(image: Image.Image, path: Path, rng: np.random.Generator) -> None:
    settings: dict[str, Any] = {
        "quality": int(rng.integers(60, 97)),
        "progressive": bool(rng.random() < 0.15),
    }
    if rng.random() < 0.1:
        exif = Image.Exif()
        exif[ORIENTATION] = int(rng.integers(2, 9))
        settings["exif"] = exif
    image.convert(rng.choice(KINDS, p=SHARES)).save(path, "JPEG", **settings)
