"""`digits`: scikit-learn's 1,797 real handwritten digits, 8 × 8 pixels, inside its package."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import distribution

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kt_cli.data.contents import Digests, of_bytes
from kt_cli.data.images import ImageSet, Split, listing
from kt_cli.data.subsets import Indices, stratified
from kt_cli.progress import Progress
from kt_cli.settings import DataSpec

SPLIT_SEED = 0


@lru_cache(maxsize=1)
def _pixels() -> tuple[NDArray[np.uint8], Indices]:
    # Its file alone: importing scikit-learn takes a second.
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(file), delimiter=",", dtype=np.int64)
    pixels = np.round(table[:, :-1] * (255 / 16)).astype(np.uint8)
    return pixels.reshape(-1, 8, 8), table[:, -1]


def _digit(i: int) -> Image.Image:
    return Image.fromarray(_pixels()[0][i]).convert("RGB")


def _contents(indices: Indices, progress: Progress) -> Digests:
    return of_bytes(_pixels()[0][i].tobytes() for i in indices)


def digits(spec: DataSpec, split: Split) -> ImageSet:
    """A fixed stratified half for training, the other for evaluation."""
    labels = _pixels()[1]
    classes = tuple("0123456789")
    ids = [f"digit-{i:04d}" for i in range(len(labels))]
    origin = listing("digits", classes, ids, labels)
    every = ImageSet("digits", classes, ids, labels, _digit, origin, contents=_contents)
    train = stratified(labels, 0.5, SPLIT_SEED)
    return every.subset(train if split == "train" else np.setdiff1d(np.arange(len(labels)), train))
