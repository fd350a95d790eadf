"""A set of labelled images: what every source gives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from PIL import Image

from kt_cli.data.subsets import Indices

Split = Literal["train", "val"]
SAMPLED = 256


@dataclass(frozen=True)
class ImageSet:
    """n labelled images.

    Attributes:
        name: the source, for messages.
        classes: names of the C classes, in label order.
        ids: n identifiers, unique: file names relative to the split, or numbers.
        labels: (n,) int64 in [0, C).
        read: gives the i-th image in RGB; raises DataError where it cannot be decoded.
        fingerprint: hash over classes, ids, labels and what tells changed images.
    """

    name: str
    classes: tuple[str, ...]
    ids: Sequence[str]
    labels: Indices
    read: Callable[[int], Image.Image]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, indices: Indices) -> ImageSet:
        """The images at `indices`, in that order."""
        picked = hashlib.blake2b(indices.astype(np.int64).tobytes(), digest_size=8).hexdigest()
        return replace(
            self,
            ids=[self.ids[i] for i in indices],
            labels=self.labels[indices],
            read=partial(_read_at, self.read, indices),
            fingerprint=f"{self.fingerprint}/{picked}",
        )


def sample(n: int, at_most: int = SAMPLED) -> range:
    """Up to `at_most` indices, evenly over n: the images that a fingerprint looks at."""
    return range(0, n, max(1, -(-n // at_most)))


def _read_at(read: Callable[[int], Image.Image], indices: Indices, i: int) -> Image.Image:
    return read(int(indices[i]))
