"""A set of labelled images: what every source gives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kt_cli.data.broken import broken_error
from kt_cli.data.contents import Digests, keep_set, kept_set
from kt_cli.data.subsets import Indices
from kt_cli.errors import DataError, some_of, warn
from kt_cli.progress import Progress, silent
from kt_cli.zoo.classes import Select

Split = Literal["train", "val"]
Contents = Callable[[Indices, Progress], Digests]
NO_LABEL = -1
NAMED = 5


class Names(Sequence[str]):
    """Strings in two buffers; a list of a million would be copied by every decoding process."""

    def __init__(self, text: bytes, ends: Indices) -> None:
        self._text, self._ends = text, ends

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        if isinstance(names, Names):
            return names
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
        ends = np.cumsum(np.append(0, np.diff(self._ends)[indices]), dtype=np.int64)
        return Names(b"".join(self._pieces(indices)), ends)

    @property
    def framed(self) -> tuple[bytes, bytes]:
        """All strings, and where each ends: equal only for equal strings."""
        return self._text, self._ends.tobytes()

    def _pieces(self, indices: Indices) -> Iterator[bytes]:
        starts, ends = self._ends[:-1][indices].tolist(), self._ends[1:][indices].tolist()
        return (self._text[start:end] for start, end in zip(starts, ends, strict=True))


def no_contents(indices: Indices, progress: Progress) -> Digests:
    """For images that are not there."""
    return np.empty((len(indices), 0), np.uint8)


@dataclass(frozen=True)
class ImageSet:
    """n labelled images of C classes."""

    name: str  # the source, for messages
    classes: tuple[str, ...]  # in label order
    ids: Sequence[str]  # unique: file names relative to the split, or numbers
    labels: Indices  # (n,) in [0, C), or all NO_LABEL
    read: Callable[[int], Image.Image]  # the i-th in RGB; DataError where it cannot be decoded
    origin: str  # `listing` of the set that this is a part of
    # (n, k) labels that count as right, padded with −1, where there are several (ReaL); `labels`
    # then only says which class an image counts for.
    valid: NDArray[np.int32] | None = None
    select: Select = None  # what the user says about models' outputs
    contents: Contents = no_contents  # digests of the images at some indices, (m, 16)
    skipped: int | None = None  # that cannot be decoded and were left out, where that was asked

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the images: classes, ids, what is right, and what each image holds."""
        valid = b"" if self.valid is None else self.valid.tobytes()
        right = (*Names.of(self.ids).framed, self.labels.tobytes(), valid)
        found = _hash(repr(self.select).encode(), *right, self._digests.tobytes())
        fingerprint = f"{self.origin}/{found}"
        keep_set(fingerprint, self.name, self._digests)
        return fingerprint

    @cached_property
    def _digests(self) -> Digests:
        return self._read_contents(silent)

    def shares_most(self, others: ImageSet) -> bool:
        """Whether most of the images hold what some of the others hold."""
        both = np.concatenate([others._digests, self._digests])
        _, places = np.unique(both, axis=0, return_inverse=True)
        theirs, ours = np.split(places.ravel(), [len(others)])
        return bool(2 * np.isin(ours, theirs).sum() > len(self))

    def _read_contents(self, progress: Progress) -> Digests:
        try:
            return self.contents(np.arange(len(self)), progress)
        except DataError as error:
            raise self.broken(error) from error

    def broken(self, met: DataError) -> DataError:
        """The error for all images that cannot be decoded, where one was `met`."""
        return broken_error(self.name, self.ids, self.read, met)

    def identify(self, progress: Progress) -> str:
        """The fingerprint; tells how far it is with reading images that are not remembered."""
        if "_digests" not in self.__dict__:
            self.__dict__["_digests"] = self._read_contents(progress)
        return self.fingerprint

    def require_unchanged(self) -> None:
        """Refuse images that changed since their fingerprint was asked for (DataError)."""
        if "_digests" not in self.__dict__:
            return
        differing = self._differing(self.contents(np.arange(len(self)), silent))
        if differing:
            raise DataError(
                f"the images of {self.name} changed while they were in use: {differing}",
                "Run the command again.",
            )

    def difference(self, fingerprint: str) -> str:
        """What parts these images from those of another fingerprint."""
        if fingerprint.split("/")[0] != self.origin:
            return "other classes, files or labels"
        kept = kept_set(fingerprint)
        if kept is None or kept.shape != self._digests.shape:
            return "other files, contents or labels"
        return self._differing(kept) or "other labels or --valid-labels"

    def _differing(self, others: Digests) -> str:
        differ = np.flatnonzero((others != self._digests).any(axis=1)).tolist()
        if not differ:
            return ""
        return f"{len(differ):,} of {len(self):,} differ, first {self.ids[differ[0]]}"

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
        return [self.classes[c] for c in np.flatnonzero(self.class_sizes == 0)]

    def warn_of_empty_classes(self) -> None:
        empty = self.empty_classes
        if empty and len(self) >= len(self.classes):
            warn(f"no images of {some_of(empty, NAMED)}: these classes keep their labels.")

    def subset(self, indices: Indices) -> ImageSet:
        """The images at `indices`, in that order."""
        return replace(
            self,
            ids=Names.of(self.ids).take(indices),
            labels=self.labels[indices],
            valid=None if self.valid is None else self.valid[indices],
            read=partial(_read_at, self.read, indices),
            contents=partial(_contents_at, self.contents, indices),
        )


def listing(
    kind: str, classes: Sequence[str], ids: Sequence[str], labels: Indices, *more: str
) -> str:
    """Identity of a list of labelled images, whatever they hold."""
    names = (*Names.of(classes).framed, *Names.of(ids).framed, *Names.of(more).framed)
    return f"{kind}-{_hash(*names, labels.tobytes())}"


def as_rgb(image: Image.Image) -> Image.Image:
    """RGB as timm, but 16-bit grey scaled to 8 bits, which PIL would cut off at white.

    ValueError where pixels are floating-point numbers, whose range nothing tells.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image, np.float64) / 257, 0, 255).round().astype(np.uint8)
        image = Image.fromarray(grey)
    return image.convert("RGB")


def _read_at(read: Callable[[int], Image.Image], indices: Indices, i: int) -> Image.Image:
    return read(int(indices[i]))


def _contents_at(
    contents: Contents, places: Indices, indices: Indices, progress: Progress
) -> Digests:
    return contents(places[indices], progress)


def _hash(*parts: bytes) -> str:
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        state.update(len(part).to_bytes(8, "big") + part)
    return state.hexdigest()
