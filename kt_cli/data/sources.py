"""Where images come from: the table SOURCES, each entry giving one split as an `ImageSet`.

- `digits`: scikit-learn's 1,797 real handwritten digits (8 × 8); a fixed stratified half for
  training, the other for evaluation. In the package, no download.
- a folder of class folders, or a root with `train/` and `val/`. Classes are in timm's order
  (natural sort of the folder names), so that labels are what timm models were trained with.
- `hfds/NAME`, `torch/NAME`: timm's own random-access sources, through `timm.data.create_dataset`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kt_cli.data.subsets import Indices, stratified
from kt_cli.errors import DataError, unknown
from kt_cli.spec import DataSpec

Split = Literal["train", "val"]

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
)
SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "test"),
}
STREAMS = ("wds/", "tfds/")
HOW_TO_NAME_DATA = (
    "Name the images with --data (or the environment variable KT_DATA): a folder with train/ and "
    "val/ class folders, a timm source such as hfds/NAME, or 'digits' to try things out."
)
GUARD_SEED = 2_310_17653
DIGITS_SEED = 0
# Sizes tell a changed file from its name's twin, but 1.3 million stats take minutes on NFS.
STAT_ALL_UP_TO = 200_000


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


@dataclass(frozen=True)
class Data:
    """The three disjoint roles of images. train and guard are None where a source has none."""

    eval: ImageSet
    train: ImageSet | None = None
    guard: ImageSet | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.eval.classes

    def training(self) -> ImageSet:
        if self.train is None:
            raise DataError(
                f"{self.eval.name} has no training images",
                "Name a root that holds train/ and val/ folders, each with one folder per class.",
            )
        return self.train


@lru_cache(maxsize=8)
def open_data(spec: DataSpec, training: bool = False) -> Data:
    """Open the evaluation images, with `training` also the training and guard images.

    Raises:
        DataError: a folder is missing, empty, or its splits disagree in their classes.
    """
    source = _source(spec)
    images = source(spec, "val")
    if images is None:
        raise DataError(f"{spec.source} has no evaluation images", HOW_TO_NAME_DATA)
    if spec.limit is not None and spec.limit < len(images):
        images = images.subset(stratified(images.labels, spec.limit, spec.seed))
    everything = source(spec, "train") if training else None
    if everything is None:
        return Data(images)
    _same_classes(everything, images)
    train, guard = _without_guard(everything, spec.guard)
    if spec.fraction < 1:
        train = train.subset(stratified(train.labels, float(spec.fraction), spec.seed))
    return Data(images, train, guard)


def _without_guard(images: ImageSet, share: float) -> tuple[ImageSet, ImageSet | None]:
    if share <= 0:
        return images, None
    inside = stratified(images.labels, float(share), GUARD_SEED)
    outside = np.setdiff1d(np.arange(len(images)), inside)
    return images.subset(outside), images.subset(inside)


def _same_classes(train: ImageSet, images: ImageSet) -> None:
    if train.classes == images.classes:
        return
    differing = sorted(set(train.classes) ^ set(images.classes)) or ["their order"]
    raise DataError(
        f"{images.name}: training and evaluation images disagree in their classes: "
        f"{len(train.classes)} against {len(images.classes)}; {', '.join(differing[:5])}",
        "Both splits need the same class folders.",
    )


def _source(spec: DataSpec) -> Callable[[DataSpec, Split], ImageSet | None]:
    if spec.source in SOURCES:
        return SOURCES[spec.source]
    if spec.source.startswith(STREAMS):
        raise DataError(
            f"{spec.source} is a stream, and kt reads images at random",
            "Use its hfds/ twin, or unpack it into class folders.",
        )
    for prefix, source in SOURCES.items():
        if prefix.endswith("/") and spec.source.startswith(prefix):
            return source
    if os.sep not in spec.source and not Path(spec.source).exists():
        raise unknown(
            "data source", spec.source, [s for s in SOURCES if s != "folder"], HOW_TO_NAME_DATA
        )
    return SOURCES["folder"]


def _read_at(read: Callable[[int], Image.Image], indices: Indices, i: int) -> Image.Image:
    return read(int(indices[i]))


# --- digits ---------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _load_digits() -> tuple[NDArray[np.uint8], Indices]:
    from sklearn.datasets import load_digits

    raw = load_digits()
    pixels = np.round(raw.images * (255 / 16)).astype(np.uint8)
    return pixels, raw.target.astype(np.int64)


def _digit(i: int) -> Image.Image:
    return Image.fromarray(_load_digits()[0][i]).convert("RGB")


def _digits(spec: DataSpec, split: Split) -> ImageSet:
    pixels, labels = _load_digits()
    content = hashlib.blake2b(pixels.tobytes() + labels.tobytes(), digest_size=8).hexdigest()
    every = ImageSet(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        ids=[f"digit-{i:04d}" for i in range(len(labels))],
        labels=labels,
        read=_digit,
        fingerprint=f"digits-{content}",
    )
    train = stratified(labels, 0.5, DIGITS_SEED)
    return every.subset(train if split == "train" else np.setdiff1d(np.arange(len(labels)), train))


# --- folders --------------------------------------------------------------------------------


def _folder(spec: DataSpec, split: Split) -> ImageSet | None:
    root = Path(spec.source).expanduser()
    if not root.is_dir():
        raise DataError(f"no folder {root}", HOW_TO_NAME_DATA)
    here = _split_folder(root, split)
    if here is None and _split_folder(root, "val") is None and _split_folder(root, "train") is None:
        # Class folders without splits: images to evaluate on.
        here = root if split == "val" else None
    return None if here is None else _class_folders(here, spec.source)


def _split_folder(root: Path, split: Split) -> Path | None:
    return next((root / name for name in SPLIT_FOLDERS[split] if (root / name).is_dir()), None)


@lru_cache(maxsize=8)
def _class_folders(root: Path, name: str) -> ImageSet:
    folders = [e for e in os.scandir(root) if e.is_dir() and not e.name.startswith(".")]
    classes = tuple(sorted((entry.name for entry in folders), key=_natural))
    if not classes:
        raise DataError(
            f"no class folders in {root}", "Expected one folder per class, with images."
        )
    ids, labels = [], []
    for label, class_name in enumerate(classes):
        files = sorted(_image_files(root / class_name), key=_natural)
        ids += [f"{class_name}/{file}" for file in files]
        labels += [label] * len(files)
    if not ids:
        raise DataError(
            f"no images in the class folders of {root}", f"Known: {', '.join(sorted(EXTENSIONS))}."
        )
    return ImageSet(
        name=name,
        classes=classes,
        ids=ids,
        labels=np.asarray(labels, np.int64),
        read=partial(_read_file, root, ids),
        fingerprint=_folder_fingerprint(root, classes, ids),
    )


def _natural(name: str) -> list[str | int]:
    """timm's order of names: digits count as numbers, case does not count."""
    return [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", name.lower())]


def _image_files(folder: Path) -> list[str]:
    """Paths of images anywhere below `folder`, relative to it, with forward slashes."""
    found = []
    for parent, _, files in os.walk(folder):
        inside = Path(parent).relative_to(folder)
        found += [(inside / f).as_posix() for f in files if Path(f).suffix.lower() in EXTENSIONS]
    return found


def _folder_fingerprint(root: Path, classes: Sequence[str], ids: Sequence[str]) -> str:
    step = max(1, len(ids) // STAT_ALL_UP_TO + (len(ids) % STAT_ALL_UP_TO > 0))
    state = hashlib.blake2b("\n".join(classes).encode(), digest_size=8)
    state.update("\n".join(ids).encode())
    sizes = [(root / ids[i]).stat().st_size for i in range(0, len(ids), step)]
    state.update(np.asarray(sizes, np.int64).tobytes())
    return f"folder-{state.hexdigest()}"


def _read_file(root: Path, ids: Sequence[str], i: int) -> Image.Image:
    path = root / ids[i]
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot decode {path}: {error}", "Repair or remove the file.") from error


# --- timm's own sources -----------------------------------------------------------------------


def _timm(spec: DataSpec, split: Split) -> ImageSet | None:
    from timm.data.dataset_factory import create_dataset

    split_name = spec.train_split if split == "train" else spec.val_split
    try:
        dataset = create_dataset(spec.source, root=spec.root, split=split_name, download=False)
    except Exception as error:  # any library below timm may refuse, each in its own way
        raise DataError(
            f"cannot open {spec.source} (split {split_name}): {_first_line(error)}",
            "Check --data-dir, --train-split and --val-split; "
            "hfds/ needs the package 'datasets' and the data in its cache.",
        ) from error
    labels = np.asarray(_timm_labels(dataset), np.int64)
    classes = _timm_classes(dataset, labels)
    state = hashlib.blake2b(labels.tobytes(), digest_size=8, person=b"kt-timm")
    state.update("\n".join((spec.source, split_name, *classes)).encode())
    return ImageSet(
        name=spec.source,
        classes=classes,
        ids=[str(i) for i in range(len(labels))],
        labels=labels,
        read=partial(_read_timm, dataset, spec.source),
        fingerprint=f"timm-{state.hexdigest()}",
    )


def _timm_labels(dataset: Any) -> Any:
    """Labels without decoding the images where the source offers them, else by one pass."""
    reader = getattr(dataset, "reader", None)
    if reader is not None:
        return reader.dataset[reader.label_key]
    for name in ("targets", "labels", "_labels"):
        if hasattr(dataset, name):
            return getattr(dataset, name)
    return [dataset[i][1] for i in range(len(dataset))]


def _timm_classes(dataset: Any, labels: Indices) -> tuple[str, ...]:
    reader = getattr(dataset, "reader", None)
    if reader is not None:
        names: Sequence[Any] = sorted(reader.class_to_idx, key=reader.class_to_idx.get)
    else:
        names = getattr(dataset, "classes", None) or range(int(labels.max()) + 1)
    return tuple(", ".join(n) if isinstance(n, (tuple, list)) else str(n) for n in names)


def _read_timm(dataset: Any, source: str, i: int) -> Image.Image:
    try:
        if hasattr(dataset, "reader"):
            # timm's ImageDataset silently gives the next image in place of a corrupt one.
            with dataset.reader[i][0] as file, Image.open(file) as image:
                return image.convert("RGB")
        return cast(Image.Image, dataset[i][0]).convert("RGB")
    except Exception as error:
        raise DataError(f"cannot decode image {i} of {source}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


SOURCES: dict[str, Callable[[DataSpec, Split], ImageSet | None]] = {
    "digits": _digits,
    "folder": _folder,
    "hfds/": _timm,
    "torch/": _timm,
}
