"""A set of labelled images: what every source gives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kt_cli.data.subsets import Indices

Split = Literal["train", "val"]
SAMPLED = 256
NO_LABEL = -1


class Names(Sequence[str]):
    """Strings in two buffers: a list of a million would be copied by every decoding process.

    (Counting references writes to the pages that forked processes share.)
    """

    def __init__(self, text: bytes, ends: Indices) -> None:
        self._text, self._ends = text, ends

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(b"".join(encoded), ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> Names: ...
    def __getitem__(self, i: int | slice) -> str | Names:
        if isinstance(i, slice):
            return self.take(np.arange(len(self))[i])
        place = range(len(self))[i]
        piece = self._text[self._ends[place] : self._ends[place + 1]]
        return piece.decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        pieces = self._pieces(np.arange(len(self)))
        return (piece.decode("utf-8", "surrogateescape") for piece in pieces)

    def take(self, indices: Indices) -> Names:
        """The strings at `indices`, all from 0 on, in that order."""
        ends = np.cumsum(np.append(0, np.diff(self._ends)[indices]))
        return Names(b"".join(self._pieces(indices)), ends)

    def _pieces(self, indices: Indices) -> Iterator[bytes]:
        starts, ends = self._ends[:-1][indices].tolist(), self._ends[1:][indices].tolist()
        return (self._text[start:end] for start, end in zip(starts, ends, strict=True))


@dataclass(frozen=True)
class ImageSet:
    """n labelled images.

    Attributes:
        name: the source, for messages.
        classes: names of the C classes, in label order.
        ids: n identifiers, unique: file names relative to the split, or numbers.
        labels: (n,) int64 in [0, C), or all NO_LABEL.
        read: gives the i-th image in RGB; raises DataError where it cannot be decoded.
        fingerprint: hash over classes, ids, labels and what tells changed images.
        valid: (n, k) int32 labels that count as right, padded with −1, where there are several
            (ReaL); `labels` then only says which class an image counts for.
        select: for each class its index among the outputs of a model that has more
            (--valid-labels).
    """

    name: str
    classes: tuple[str, ...]
    ids: Sequence[str]
    labels: Indices
    read: Callable[[int], Image.Image]
    fingerprint: str
    valid: NDArray[np.int32] | None = None
    select: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def right(self, pred: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Whether predicted classes (…, n) are right."""
        if self.valid is None:
            return np.asarray(pred == self.labels)
        return np.asarray((pred[..., None] == self.valid).any(axis=-1))

    @property
    def labelled(self) -> bool:
        return bool((self.labels != NO_LABEL).all())

    @property
    def class_sizes(self) -> Indices:
        """(C,) numbers of images; those without a label are of no class."""
        return np.bincount(self.labels[self.labels != NO_LABEL], minlength=len(self.classes))

    @property
    def empty_classes(self) -> list[str]:
        """Names of the classes without any image."""
        return [self.classes[c] for c in np.flatnonzero(self.class_sizes == 0)]

    def subset(self, indices: Indices) -> ImageSet:
        """The images at `indices`, in that order."""
        names = self.ids if isinstance(self.ids, Names) else Names.of(self.ids)
        picked = hashlib.blake2b(indices.astype(np.int64).tobytes(), digest_size=8).hexdigest()
        return replace(
            self,
            ids=names.take(indices),
            labels=self.labels[indices],
            valid=None if self.valid is None else self.valid[indices],
            read=partial(_read_at, self.read, indices),
            fingerprint=f"{self.fingerprint}/{picked}",
        )


def as_rgb(image: Image.Image) -> Image.Image:
    """RGB as timm, but 16-bit grey scaled to 8 bits, which PIL would cut off at white.

    Raises:
        ValueError: its pixels are floating-point numbers, whose range nothing tells.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image, np.float64) / 257, 0, 255).round().astype(np.uint8)
        image = Image.fromarray(grey)
    return image.convert("RGB")


def sample(n: int, at_most: int = SAMPLED) -> range:
    """Up to `at_most` indices, evenly over n: the images that a fingerprint looks at."""
    return range(0, n, max(1, -(-n // at_most)))


def _read_at(read: Callable[[int], Image.Image], indices: Indices, i: int) -> Image.Image:
    return read(int(indices[i]))
