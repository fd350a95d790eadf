"""Canonical centre crops of training images: decoded once, and kept as one memory-mapped file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kt_cli.data.images import ImageSet
from kt_cli.data.loading import batches
from kt_cli.errors import WriteError
from kt_cli.files import atomic_file, cache_folder, cached, not_kept, write_error
from kt_cli.progress import Progress, silent
from kt_cli.settings.declared import digest

FORMAT = 1  # raise it when what `centre_square` gives changes


def canonical(
    images: ImageSet, crop: float, side: int, progress: Progress = silent
) -> NDArray[np.uint8]:
    """The centre square of `crop` times the shorter side of all images, decoded once and kept.

    One memory-mapped file: (n, 3, side, side) uint8, read-only.
    """
    path = canonical_path(images, crop, side)
    shape = (len(images), 3, side, side)

    def mapped(path: Path) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise ValueError("it holds something else")
        return pixels

    found = cached(path, mapped)
    if found is None:
        try:
            with atomic_file(path) as temporary, temporary.open("wb") as file:
                _decode(file, images, crop, side, progress)
        except WriteError as error:
            not_kept(error)
            return _elsewhere(images, crop, side, progress)
        found = mapped(path)
    return found


def canonical_path(images: ImageSet, crop: float, side: int) -> Path:
    """Where the canonical crops are, once they are decoded."""
    key = digest([FORMAT, images.fingerprint, crop, side])[:24]
    return cache_folder("canonical") / f"{key}.npy"


def _elsewhere(images: ImageSet, crop: float, side: int, progress: Progress) -> NDArray[np.uint8]:
    """In a file of this process alone."""
    with TemporaryFile() as file:
        try:
            start = _decode(file, images, crop, side, progress)
            file.flush()
        except OSError as error:
            raise write_error(Path(gettempdir()), error) from error
        return np.memmap(file, np.uint8, "r", start, (len(images), 3, side, side))


def _decode(file: IO[bytes], images: ImageSet, crop: float, side: int, progress: Progress) -> int:
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(images), 3, side, side)}
    # Written, not mapped: on a full disk a write is an error, a mapped page kills the process.
    np.lib.format.write_array_header_2_0(file, header)
    start, done = file.tell(), 0
    for (batch,) in batches(images, [partial(centre_square, crop=crop, side=side)], 64):
        file.write(batch.contiguous().numpy().tobytes())
        progress(done := done + len(batch), len(images), "decode training images")
    return start


def centre_square(image: Image.Image, crop: float, side: int) -> Tensor:
    """The centre square of `crop` × the shorter side, resized: (3, side, side) uint8."""
    width, height = image.size
    half = crop * min(width, height) / 2
    box = (width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half)
    square = image.resize((side, side), Image.Resampling.BICUBIC, box=box)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)
