"""Folders of class folders, in timm's order of classes and files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from kt_cli.data.images import ImageSet, Split, sample
from kt_cli.errors import DataError
from kt_cli.spec import HOW_TO_NAME_DATA, DataSpec

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
)
SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "test"),
}
# Sizes tell a changed file from its name's twin, but 1.3 million stats take minutes on NFS.
STAT_ALL_UP_TO = 200_000


def folder(spec: DataSpec, split: Split) -> ImageSet | None:
    """The split of a root with train/ and val/, or a folder of class folders to evaluate on."""
    root = Path(spec.source).expanduser()
    if not root.is_dir():
        raise DataError(f"no folder {root}", HOW_TO_NAME_DATA)
    here = _split_folder(root, split)
    if here is None and _split_folder(root, "val") is None and _split_folder(root, "train") is None:
        # Class folders without splits: images to evaluate on.
        here = root if split == "val" else None
    return None if here is None else class_folders(here, spec.source)


def _split_folder(root: Path, split: Split) -> Path | None:
    return next((root / name for name in SPLIT_FOLDERS[split] if (root / name).is_dir()), None)


@lru_cache(maxsize=8)
def class_folders(root: Path, name: str) -> ImageSet:
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


def _natural(name: str) -> tuple[list[str | int], str]:
    """timm's order of names: digits count as numbers, case decides only between equals."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [int(s) if s.isascii() and s.isdigit() else s for s in parts], name


def _image_files(folder: Path) -> list[str]:
    """Paths of images anywhere below `folder`, relative to it, with forward slashes."""
    found = []
    for parent, _, files in os.walk(folder):
        inside = Path(parent).relative_to(folder)
        found += [(inside / f).as_posix() for f in files if Path(f).suffix.lower() in EXTENSIONS]
    return found


def _folder_fingerprint(root: Path, classes: Sequence[str], ids: Sequence[str]) -> str:
    state = hashlib.blake2b("\n".join(classes).encode(), digest_size=8)
    state.update("\n".join(ids).encode())
    sizes = [(root / ids[i]).stat().st_size for i in sample(len(ids), STAT_ALL_UP_TO)]
    state.update(np.asarray(sizes, np.int64).tobytes())
    for i in sample(len(ids)):
        state.update((root / ids[i]).read_bytes())
    return f"folder-{state.hexdigest()}"


def _read_file(root: Path, ids: Sequence[str], i: int) -> Image.Image:
    path = root / ids[i]
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot decode {path}: {error}", "Repair or remove the file.") from error
