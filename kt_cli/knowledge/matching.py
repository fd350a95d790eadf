"""Which row of a file is which image, and which of its values is which class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kt_cli.errors import DataError
from kt_cli.zoo.imagenet_names import AMBIGUOUS, described

SAME_IMAGES = "All images of the data are needed; --limit cuts the data's."


def row_order(
    path: Path, given: Sequence[str] | None, rows: int, wanted: Sequence[str]
) -> NDArray[np.int64]:
    """(n,) row of the file at `path` for each of n images.

    By whole names; else by folder and file name, by file name, or by that without its ending,
    where these tell the images apart. Images that the data lacks are passed over. Without names
    rows are taken to be in the images' order.

    Args:
        given: names of the file's rows, if it has some.
        wanted: names of the images, each once.

    Raises:
        DataError: images are missing or named twice.
    """
    if given is None:
        if rows != len(wanted):
            raise DataError(
                f"{path} has {rows:,} rows without names, the data has {len(wanted):,} images",
                "Add a column id with the images' file names.",
            )
        return np.arange(rows)
    require_once(path, given)
    best, closest = -1, ""
    for key in KEYS:
        there, place = [key(name) for name in wanted], {key(n): row for row, n in enumerate(given)}
        if len(place) < len(given) or len(set(there)) < len(there):
            continue  # these names do not tell the images apart
        found = sum(name in place for name in there)
        if found == len(there):
            return np.array([place[name] for name in there], np.int64)
        if found > best:
            best, closest = found, _difference(path, there, place, found)
    raise DataError(closest, SAME_IMAGES)


def require_once(path: Path, names: Sequence[str]) -> None:
    """Refuse names of which one comes twice.

    Raises:
        DataError: names the first of them.
    """
    for name, count in Counter(names).items():
        if count > 1:
            with_folders = "Name images with their folders (of timm's inference.py: --fullname)."
            tip = "Are rows in it twice?" if "/" in name else with_folders
            raise DataError(f"{path} names the image {name} twice", tip)


def _difference(path: Path, wanted: Sequence[str], place: dict[str, int], found: int) -> str:
    known = set(wanted)
    others = [name for name in place if name not in known]
    text = f"{path} has {found:,} of the data's {len(wanted):,} images"
    if others:
        text += f", and {len(others):,} others (first: {others[0]})"
    missing = next((name for name in wanted if name not in place), None)
    return text + (f"; it lacks, for example, {missing}" if missing else "")


def _whole(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _with_folder(name: str) -> str:
    return "/".join(_whole(name).split("/")[-2:])


def _file_name(name: str) -> str:
    return _whole(name).rpartition("/")[2]


def _without_ending(name: str) -> str:
    return _file_name(name).rpartition(".")[0] or _file_name(name)


KEYS: tuple[Callable[[str], str], ...] = (str, _whole, _with_folder, _file_name, _without_ending)


# --- classes ------------------------------------------------------------------------------------


def class_indices(
    path: Path, values: NDArray[Any], classes: Sequence[str], by_name: bool = False
) -> NDArray[np.int64]:
    """Indices into `classes` of `values`, which are int64, or names as objects; same shape.

    Args:
        by_name: integers are names of classes, not indices.

    Raises:
        DataError: a value is none of the classes, or may be two of them.
    """
    if values.dtype.kind == "i":
        indices = _by_number(values, classes) if by_name else values
        outside = (indices < 0) | (indices >= len(classes))
        if outside.any():
            raise DataError(
                f"{path} names class {values[outside][0]}, which is none of the data's "
                f"{len(classes):,} classes",
                "Classes are counted from 0, in the order of the class folders.",
            )
        return indices
    place = {name: index for index, name in enumerate(classes)}
    names, inverse = np.unique(values, return_inverse=True)
    if any(name not in place for name in names):
        place = described(classes) | place
    for name in names:
        if name not in place:
            raise DataError(
                f"{path} names the class {name!r}, which the data has not",
                "Classes are the names of the class folders, or integers in their order (of "
                "timm's inference.py: --include-index, which --by-position takes without its "
                "names).",
            )
        if place[name] == AMBIGUOUS:
            raise DataError(
                f"{path} names the class {name!r}, as two classes of the data are called",
                "Give classes as integers (of timm's inference.py: --include-index).",
            )
    return np.array([place[name] for name in names], np.int64)[inverse].reshape(values.shape)


def _by_number(values: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.int64]:
    """Indices of classes that are called by numbers; below 0 where none is."""
    place = numbered(classes) or {}
    numbers, inverse = np.unique(values, return_inverse=True)
    found = np.array([place.get(number, -1) for number in numbers.tolist()], np.int64)
    return found[inverse].reshape(values.shape)


def numbered(classes: Sequence[str]) -> dict[int, int] | None:
    """Index by name where the classes are called by numbers other than their indices."""
    if not all(name.isascii() and name.isdigit() for name in classes):
        return None
    place = {int(name): index for index, name in enumerate(classes)}
    same = all(number == index for number, index in place.items())
    return None if same or len(place) < len(classes) else place


def require_labels(
    path: Path,
    found: NDArray[np.int64],
    ids: Sequence[str],
    labels: NDArray[np.int64],
    classes: Sequence[str],
) -> None:
    """Refuse a file whose labels are not those of the data.

    Raises:
        DataError: tells how many, and one of them.
    """
    different = np.flatnonzero(found != labels)
    if different.size:
        i = int(different[0])
        there, here = (f"{classes[c]} (class {c})" for c in (found[i], labels[i]))
        raise DataError(
            f"{path} has other labels than the data for {different.size:,} of {len(labels):,} "
            f"images: {ids[i]} is {there} in the file and {here} in the data",
            "Are its classes in another order? Names of classes in place of integers tell.",
        )
