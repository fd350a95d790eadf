"""Decoded images, kept as one memory-mapped file for all who see them alike.

Canonical centre crops of training images; and, for transfers, which evaluate one student after the
other, what an evaluation shows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kt_cli.data.images import ImageSet
from kt_cli.data.loading import Transform, batches
from kt_cli.errors import WriteError
from kt_cli.files import atomic_file, cache_folder, cached, free_space, not_kept, write_error
from kt_cli.progress import Progress, silent
from kt_cli.settings.declared import digest

FORMAT = 1  # raise it when what `centre_square` gives changes
AT_WORK = 60.0  # seconds since it last wrote that a process is taken to be writing
BUDGET = 40e9  # bytes of decoded images beyond which none of evaluations are kept
Told = Callable[[int, int], object]


def canonical(
    images: ImageSet, crop: float, side: int, progress: Progress = silent
) -> NDArray[np.uint8]:
    """The centre square of `crop` times the shorter side of all images, decoded once and kept.

    One memory-mapped file: (n, 3, side, side) uint8, read-only.
    """
    square, shape = partial(centre_square, crop=crop, side=side), (len(images), 3, side, side)

    def told(done: int, total: int) -> None:
        progress(done, total, "decode training images")

    try:
        return _kept(canonical_path(images, crop, side), images, square, shape, told)
    except WriteError as error:
        not_kept(error)
        return _elsewhere(images, square, shape, told)


def evaluated(
    images: ImageSet, how: object, transform: Transform, size: tuple[int, ...]
) -> NDArray[np.uint8] | None:
    """What `transform` makes of all images, (n, *size) uint8, decoded once.

    None where they cannot be kept, or another process is about to.

    Args:
        how: what decides about the transform, besides timm.
    """
    path = _path(images, version("timm"), repr(how))
    if not path.exists() and not _room(path, len(images) * math.prod(size)):
        return None
    try:
        return _kept(path, images, transform, (len(images), *size))
    except WriteError as error:
        not_kept(error)
        return None


def _room(path: Path, size: int) -> bool:
    """Whether decoded images may take so many bytes more, and nobody writes these just now."""
    there = 0
    for file in path.parent.glob("*.npy*"):
        with suppress(FileNotFoundError):
            status = file.stat()
            there += status.st_size
            own = file.name.startswith(f".{path.name}")
            if own and time.time() - status.st_mtime < AT_WORK:
                return False
    return there + size <= BUDGET and 2 * size <= free_space(path.parent)


def _kept(
    path: Path, images: ImageSet, transform: Transform, shape: tuple[int, ...],
    progress: Told = lambda done, total: None,
) -> NDArray[np.uint8]:  # fmt: skip
    """Decoded once, and from then on read from the file; WriteError where it cannot be written."""

    def mapped(path: Path) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise ValueError("it holds something else")
        return pixels

    found = cached(path, mapped)
    if found is None:
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            _decode(file, images, transform, shape, progress)
        found = mapped(path)
    return found


def canonical_path(images: ImageSet, crop: float, side: int) -> Path:
    """Where the canonical crops are, once they are decoded."""
    return _path(images, crop, side)


def _path(images: ImageSet, *how: object) -> Path:
    key = digest([FORMAT, images.fingerprint, *how])[:24]
    return cache_folder("canonical") / f"{key}.npy"


def _elsewhere(
    images: ImageSet, transform: Transform, shape: tuple[int, ...], progress: Told
) -> NDArray[np.uint8]:
    """In a file of this process alone."""
    with TemporaryFile() as file:
        try:
            start = _decode(file, images, transform, shape, progress)
            file.flush()
        except OSError as error:
            raise write_error(Path(gettempdir()), error) from error
        return np.memmap(file, np.uint8, "r", start, shape)


def _decode(
    file: IO[bytes], images: ImageSet, transform: Transform, shape: tuple[int, ...], progress: Told
) -> int:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    # Written, not mapped: on a full disk a write is an error, a mapped page kills the process.
    np.lib.format.write_array_header_2_0(file, header)
    start, done = file.tell(), 0
    for (batch,) in batches(images, [transform], 64):
        file.write(batch.contiguous().numpy().tobytes())
        progress(done := done + len(batch), len(images))
    return start


def centre_square(image: Image.Image, crop: float, side: int) -> Tensor:
    """The centre square of `crop` × the shorter side, resized: (3, side, side) uint8."""
    width, height = image.size
    half = crop * min(width, height) / 2
    box = (width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half)
    square = image.resize((side, side), Image.Resampling.BICUBIC, box=box)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)
