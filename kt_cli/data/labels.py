"""Labels from files: which class is which, of images in a flat folder, and several right ones."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kt_cli.data.images import ImageSet
from kt_cli.errors import DataError, first_line, near
from kt_cli.settings import DataSpec
from kt_cli.zoo.classes import BY_POSITION
from kt_cli.zoo.imagenet_names import SYNSET, imagenet_synsets
from kt_cli.zoo.local_models import natural

EXTENSIONS = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif",
)  # fmt: skip
# Of photographs too, which Pillow does not read by itself.
UNREAD = (
    ".heic", ".heif", ".avif", ".jxl", ".jp2", ".tga", ".dng", ".raw", ".cr2", ".cr3", ".nef",
    ".arw",
)  # fmt: skip
IMAGENET_FILE = re.compile(r"ILSVRC2012_val_\d{8}")
HEADERS = (
    "filename", "file_name", "file", "image", "imageid", "image_id", "id", "name", "path", "img",
    "image_path", "img_path", "image_name", "filepath", "file_path",
)  # fmt: skip
LABELS = (
    "label", "labels", "class", "class_name", "classname", "target", "category", "truth",
    "ground_truth", "y", "wnid", "synset",
)  # fmt: skip
FORM = (
    "One label a line, in the order of the file names; or two columns, name and label; of more "
    "columns a header that names these: filename, label."
)
MOST_CLASSES = 1_000_000
T = TypeVar("T")


def is_image(name: str) -> bool:
    """Whether a file is an image, by its ending; hidden ones are what systems keep of others."""
    return _ends(name, EXTENSIONS)


def is_unread(name: str) -> bool:
    """Whether a file is an image of a kind that is not read, by its ending."""
    return _ends(name, UNREAD)


def _ends(name: str, endings: tuple[str, ...]) -> bool:
    name = name.rpartition("/")[2]
    return not name.startswith(".") and name.lower().endswith(endings)


def class_map(path: Path) -> tuple[str, ...]:
    """Names of the classes in label order, one a line (`--class-map`); else DataError."""
    classes = tuple(_first_synset(line) for line in _lines(path))
    twice = _twice(classes)
    if not classes or twice:
        reason = f"names the class {twice!r} twice" if classes else "is empty"
        raise DataError(f"{path} {reason}", "A class map has one class name a line.")
    return classes


def _twice(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _first_synset(text: str) -> str:
    """A WordNet id without what follows it (its words, or Kaggle's boxes); other text as it is."""
    return re.sub(r"^(n\d{8})[\s,].*", r"\1", text)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: it is not in UTF-8", "Save it in UTF-8.") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", near(path)) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def ground_truth(
    path: Path, names: Sequence[str], classes: tuple[str, ...] | None
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Classes, and labels of image files in their order, from a file (`--labels`); else DataError.

    The file has two columns, file name and class, or one class a line in the order of the names.
    `classes` are those of a class map or of the training folders, where there are any.
    """
    rows = _two_columns(path, [_columns(line) for line in _lines(path)])
    if not names:
        raise DataError(f"{path} has labels, but there are no images")
    alone = all(len(row) == 1 for row in rows)
    if alone and len(rows) != len(names):
        counts = f"{len(rows):,} labels, the folder has {len(names):,} images"
        raise DataError(f"{path} has {counts}", FORM)
    tokens = [row[0] for row in rows] if alone else _by_name(path, rows, names)
    by_class_name = classes is not None and set(classes).issuperset(tokens)
    whole = all(re.fullmatch(r"-?\d+", token) for token in tokens)
    if classes is None and whole and any(token.startswith("-") for token in tokens):
        raise DataError(f"{path} has classes below 0", "Numbers count the classes from 0.")
    if not by_class_name and all(token.isdecimal() for token in tokens):
        numbers = np.array([int(token) for token in tokens])
        imagenet = all(IMAGENET_FILE.match(Path(name).name) for name in names)
        if not (imagenet and _is_devkit(numbers, alone)):
            return _numbered(path, numbers, classes or (imagenet_synsets() if imagenet else None))
        tokens = _devkit(path, numbers)
    if classes is None:
        every = imagenet_synsets()
        found = every if set(every).issuperset(tokens) else sorted(set(tokens), key=natural)
        classes = tuple(found)
    place = {name: i for i, name in enumerate(classes)}
    unknown = next((token for token in tokens if token not in place), None)
    if unknown is not None:
        raise DataError(
            f"{path} names the class {unknown!r}, which is not among the {len(classes)} classes",
            "They are those of --class-map, or else of the training folders.",
        )
    return classes, np.array([place[token] for token in tokens], np.int64)


def _columns(line: str) -> list[str]:
    """The cells of a line. A space divides only what nothing else does, and once."""
    mark = next((mark for mark in "\t,;" if mark in line), None)
    cells = next(csv.reader([line], delimiter=mark)) if mark else line.split(maxsplit=1)
    return [cell.strip() for cell in cells]


def _two_columns(path: Path, rows: Sequence[list[str]]) -> list[list[str]]:
    """File name and class of each row, or the class alone: by a header where one names both."""
    header = [cell.lower() for cell in rows[0]] if rows else []
    name, label = (
        next((header.index(one) for one in known if one in header), None)
        for known in (HEADERS, LABELS)
    )
    if name is not None and label is not None:
        rows = [[row[i] if i < len(row) else "" for i in (name, label)] for row in rows[1:]]
    elif (wide := next((row for row in rows if any(row[2:])), None)) and not all(
        SYNSET.fullmatch("".join(row[1:2])) for row in rows
    ):
        raise DataError(f"{path} has {len(wide)} columns, and no header tells which to read", FORM)
    return [[one[0], _first_synset(one[1])] if len(one) > 1 else one for one in rows]


def _by_name(path: Path, rows: Sequence[Sequence[str]], names: Sequence[str]) -> list[str]:
    if rows[0][0].lower() in HEADERS and rows[0][0] not in map(_stem, names):
        rows = rows[1:]
    if short := next((row for row in rows if not "".join(row[1:])), None):
        raise DataError(f"{path} has no label for {short[0]}", FORM)
    once = dict.fromkeys((name, label) for name, label, *_ in rows)
    keys, given = keyed(once, names, str(path), "the folder")
    without = [name for name, each in zip(names, keys, strict=True) if each not in given]
    missing = given.keys() - set(keys)
    if without or missing:
        said = f"{path} labels {len(names) - len(without):,} of {len(names):,} images"
        if without:
            said += f" (not {without[0]})"
        if missing:
            said += f", and {len(missing):,} that are not there ({min(missing)})"
        raise DataError(said, FORM)
    return [given[each] for each in keys]


def keyed(
    pairs: Iterable[tuple[str, T]], names: Sequence[str], source: str, folder: str
) -> tuple[list[str], dict[str, T]]:
    """What each image is called (by whole names where some are given, or stems), and what is given.

    DataError where two are called the same, in the `source` of the pairs or in the `folder`.
    """
    given = list(pairs)
    key = _stem if set(names).isdisjoint(name for name, _ in given) else str
    keys, theirs = list(map(key, names)), [key(name) for name, _ in given]
    for whose, called in ((source, theirs), (folder, keys)):
        if twice := _twice(called):
            again = _twice(name for name, _ in given)
            tip = "It says different things of them." if again else "Name them with folders."
            raise DataError(f"{whose} has several images called {twice}", tip)
    return keys, {key(name): value for name, value in given}


def _stem(name: str) -> str:
    """The file name without folders, and without the ending of an image."""
    last = name.replace("\\", "/").rpartition("/")[2]
    base, dot, end = last.rpartition(".")
    return base if dot and f".{end.lower()}" in EXTENSIONS else last


def _numbered(
    path: Path, numbers: NDArray[np.int64], classes: tuple[str, ...] | None
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    most = MOST_CLASSES if classes is None else len(classes)
    if numbers.max() >= most:
        raise DataError(
            f"{path} names the class {numbers.max()}, which is not below {most:,}",
            "Numbers count the classes from 0.",
        )
    classes = classes or tuple(map(str, range(int(numbers.max()) + 1)))
    return classes, numbers.astype(np.int64)


def _is_devkit(numbers: NDArray[np.int64], alone: bool) -> bool:
    """Whether these are ILSVRC2012 ids, from 1 on: numbers from 0 would have some 0 among many."""
    many = alone or len(numbers) >= 1000 or numbers.max() == 1000
    return bool(numbers.min() >= 1 and numbers.max() <= 1000 and many)


def _devkit(path: Path, numbers: NDArray[np.int64]) -> list[str]:
    """Synsets of ILSVRC2012 ids, whose order only the devkit's meta.mat tells."""
    from scipy.io import loadmat

    meta = path.parent / "meta.mat"
    if not meta.is_file():
        raise DataError(
            f"{path} has ILSVRC2012 ids (1 to 1000), whose order only the devkit tells",
            "Put meta.mat of ILSVRC2012_devkit_t12/data beside it, or name synsets.",
        )
    try:
        synsets: Any = loadmat(str(meta), squeeze_me=True)["synsets"]
        words = dict(zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True))
        return [str(words[int(number)]) for number in numbers]
    except Exception as error:  # whatever a damaged file raises
        raise DataError(f"cannot read {meta}: {first_line(error)}") from error


def selecting(images: ImageSet, spec: DataSpec) -> ImageSet:
    """Images with what --valid-labels (else DataError) or --by-position says about outputs."""
    if spec.by_position:
        return replace(images, select=BY_POSITION)
    if spec.valid_labels is None:
        return images
    path = Path(spec.valid_labels)
    lines = _lines(path)
    meaning = "Line i is the number of class i among a model's outputs."
    if len(lines) != len(images.classes):
        said = f"{path} has {len(lines)} lines, the data has {len(images.classes)} classes"
        raise DataError(said, meaning)
    if other := next((line for line in lines if not line.isdecimal()), None):
        raise DataError(f"{path} has {other!r} where a number should be", meaning)
    if twice := _twice(lines):
        raise DataError(f"{path} names the output {twice} twice")
    return replace(images, select=tuple(map(int, lines)))
