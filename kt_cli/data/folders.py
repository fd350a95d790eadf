"""Folders of class folders, in timm's order of classes and files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from kt_cli.data.broken import NAMED as FEW
from kt_cli.data.broken import TIP, decodable
from kt_cli.data.contents import Digests, of_files
from kt_cli.data.images import NO_LABEL, ImageSet, Names, Split, as_rgb, listing
from kt_cli.data.labels import EXTENSIONS, class_map, ground_truth, is_image, is_unread
from kt_cli.data.remembered import remembered
from kt_cli.data.subsets import Indices
from kt_cli.errors import DataError, counted, near, some_of, warn
from kt_cli.files import escaped
from kt_cli.progress import Progress
from kt_cli.settings import HOW_TO_NAME_DATA, DataSpec
from kt_cli.zoo.local_models import natural

SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "eval", "dev", "test", "testing"),
}
NO_IMAGES = ("@eaDir", "__MACOSX")  # of Synology's and Apple's, with thumbnails


def folder(spec: DataSpec, split: Split) -> ImageSet | None:
    """The split of a root with train/ and val/, or a folder of class folders to evaluate on."""
    root = Path(spec.source).expanduser()
    if not root.is_dir():
        raise DataError(f"no folder {root}", near(root, HOW_TO_NAME_DATA))
    train, val = (_split_folder(root, name, spec.labels) for name in ("train", "val"))
    if train is None and val is None:
        val = root  # class folders without splits: images to evaluate on
    here = train if split == "train" else val
    if here is None:
        return None
    classes = class_map(Path(spec.class_map)) if spec.class_map else None
    if split == "val" and spec.labels:
        classes = classes or tuple(map(escaped, _class_names(train))) or None
        return flat_folder(here, spec.source, Path(spec.labels), classes, spec.skip_broken)
    return class_folders(here, spec.source, classes, spec.skip_broken)


def training_classes(spec: DataSpec) -> tuple[str, ...]:
    """Names of the class folders in train/; () where there is none."""
    train = _split_folder(Path(spec.source).expanduser(), "train")
    return tuple(map(escaped, _class_names(train)))


def _split_folder(root: Path, split: Split, labels: str | None = None) -> Path | None:
    """The folder of a split; none where it is a class beside others, which may be called so.

    In any capitals; where two differ by these alone, the first by name.
    """
    there = _class_names(root)
    written = {name.lower(): name for name in sorted(there, reverse=True)}
    names = itertools.chain.from_iterable(SPLIT_FOLDERS.values())
    found = {name: root / written[name] for name in names if name in written}
    if not found:
        return None
    others = len(there) > len(found)
    if others and not labels and not any(map(_class_names, found.values())):
        return None
    return next((found[name] for name in SPLIT_FOLDERS[split] if name in found), None)


def _class_names(root: Path | None) -> list[str]:
    """Names of class folders in timm's order."""
    if root is None:
        return []
    found = [e.name for e in os.scandir(root) if e.is_dir() and not _is_hidden(e.name)]
    return sorted(found, key=natural)


@remembered(8)
def class_folders(
    root: Path, name: str, classes: tuple[str, ...] | None = None, skip: bool = False
) -> ImageSet:
    """Images in one folder per class; `classes` in label order, None for timm's order of them."""
    folders = {escaped(name): name for name in _class_names(root)}
    if not folders:
        raise DataError(
            f"no class folders in {root}",
            "Expected one folder per class, with images; or a flat folder with --labels FILE.",
        )
    classes = tuple(folders) if classes is None else classes
    outside = sorted(folders.keys() - set(classes))
    if outside:
        raise DataError(
            f"the class map does not name {len(outside)} folders of {root}, such as {outside[0]}",
            "It must name every class folder, one a line, in label order.",
        )
    ids, labels, unread = list[str](), list[int](), list[str]()
    for label, class_name in enumerate(classes):
        here = folders.get(class_name, class_name)
        files, others = _image_files(root / here)
        ids += [f"{here}/{file}" for file in sorted(files, key=natural)]
        labels += [label] * len(files)
        unread += [f"{here}/{file}" for file in others]
    return _images(root, name, classes, ids, np.asarray(labels, np.int64), skip, unread)


@remembered(8)
def flat_folder(
    root: Path, name: str, truth: Path, classes: tuple[str, ...] | None = None, skip: bool = False
) -> ImageSet:
    """Images in one folder, with their labels in a file."""
    files, unread = _image_files(root)
    ids = sorted(files, key=natural)
    classes, labels = ground_truth(truth, list(map(escaped, ids)), classes)
    return _images(root, name, classes, ids, labels, skip, unread)


@remembered(8)
def unlabelled(root: Path, classes: tuple[str, ...], skip: bool = False) -> ImageSet:
    """All images below a folder, without labels, for data of these classes."""
    root = root.expanduser()
    if not root.is_dir():
        tip = near(root, "--unlabelled takes a folder of images.")
        raise DataError(f"no folder {root}", tip)
    files, unread = _image_files(root)
    ids = sorted(files, key=natural)
    return _images(root, str(root), classes, ids, np.full(len(ids), NO_LABEL), skip, unread)


def _images(
    root: Path, name: str, classes: tuple[str, ...], ids: list[str], labels: Indices, skip: bool,
    unread: Sequence[str],
) -> ImageSet:  # fmt: skip
    skipped = None
    kinds = f"{counted(len(unread), 'image')} of a kind that is not read"
    others = f"{kinds} ({some_of(sorted(map(escaped, unread)), FEW)})" if unread else ""
    if skip:
        whole = decodable(root, ids, partial(_read_file, root, ids))
        left_out = [escaped(ids[i]) for i in np.flatnonzero(~whole)]
        ids, labels = [ids[i] for i in np.flatnonzero(whole)], labels[whole]
        skipped = len(left_out)
        if left_out:
            text = f"{skipped:,} of {len(whole):,} images of {escaped(str(root))} cannot be decoded"
            warn(f"{text} and are left out: {some_of(left_out, FEW)}")
    if not ids:
        but = f", but {others}" if others else ""
        raise DataError(f"no images below {root}{but}", f"Known: {', '.join(sorted(EXTENSIONS))}.")
    if others:
        warn(f"left out of {escaped(str(root))}: {others}")
    names, written = Names.of(ids), Names.of(map(escaped, ids))
    origin = listing("folder", classes, written, labels)
    read, contents = partial(_read_file, root, names), partial(_contents, root, names)
    return ImageSet(
        escaped(name), classes, written, labels, read, origin, contents=contents, skipped=skipped
    )


def _image_files(folder: Path) -> tuple[list[str], list[str]]:
    """Paths of images anywhere below `folder`, relative to it, with forward slashes; then those of
    kinds that are not read.

    Nothing hidden. Links are followed as timm does; no folder is entered twice, none from below.
    """
    found: list[str] = []
    unread: list[str] = []
    entered = set(map(str, Path(os.path.realpath(folder)).parents))
    for parent, below, files in os.walk(folder, onerror=_unlisted, followlinks=True):
        real = os.path.realpath(parent)
        below[:] = sorted(n for n in below if not _is_hidden(n) and real not in entered)
        if real in entered:
            continue
        entered.add(real)
        inside = Path(parent).relative_to(folder).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        found += [prefix + f for f in files if is_image(f)]
        unread += [prefix + f for f in files if is_unread(f)]
    return found, unread


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in NO_IMAGES


def _unlisted(error: OSError) -> None:
    """What cannot be listed is not empty; a class of the class map need not be there."""
    if not isinstance(error, FileNotFoundError):
        raise DataError(f"cannot list {error.filename}: {error.strerror}", TIP) from error


def _contents(root: Path, ids: Names, indices: Indices, progress: Progress) -> Digests:
    return of_files(root, ids.take(indices), progress)


def _read_file(root: Path, ids: Sequence[str], i: int) -> Image.Image:
    path = root / ids[i]
    try:
        with Image.open(path) as image:
            return as_rgb(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot decode {path}: {error}", TIP) from error
