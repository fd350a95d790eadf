"""Several right labels of each image, from a file: ReaL, or one of one's own."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from kt_cli.data.images import ImageSet
from kt_cli.data.labels import keyed
from kt_cli.errors import DataError, first_line
from kt_cli.settings import DataSpec
from kt_cli.zoo.imagenet_names import imagenet_synsets


def relabelled(images: ImageSet, spec: DataSpec) -> ImageSet:
    """Images with the several right labels of --real-labels (else DataError), if they have any."""
    if spec.real_labels is None:
        return images
    listed = _translated(images, _real_labels(images, spec.real_labels))
    width = max([1, *map(len, listed)])
    valid = np.array([[*labels, *[-1] * (width - len(labels))] for labels in listed], np.int32)
    marked = replace(images, valid=valid)
    kept = np.flatnonzero((valid >= 0).any(axis=1))
    if not len(kept):
        raise DataError(f"{spec.real_labels} has no label for any image of {images.name}")
    return marked if len(kept) == len(images) else marked.subset(kept)


def _translated(images: ImageSet, listed: list[list[int]]) -> list[list[int]]:
    """Labels as places among the classes: ReaL counts ImageNet's, whatever order they have here."""
    synsets = imagenet_synsets()
    if images.classes == synsets or set(images.classes) != set(synsets):
        return listed
    place = {name: i for i, name in enumerate(images.classes)}
    return [[place[synsets[label]] for label in labels] for labels in listed]


def _real_labels(images: ImageSet, source: str) -> list[list[int]]:
    """The right labels of each image: by its ILSVRC2012_val number, or by file name."""
    named, of_imagenet = _read_real(source)
    count = len(images.classes)
    if of_imagenet and count != len(imagenet_synsets()):
        raise DataError(
            f"{source} is about ImageNet's 1000 classes, {images.name} has {count}",
            "Labels of other images go by file name: a JSON object of lists.",
        )
    keys, found = keyed(named.items(), images.ids, source, images.name)
    missing = [name for name, each in zip(images.ids, keys, strict=True) if each not in found]
    if missing:
        raise DataError(
            f"{source} knows {len(images) - len(missing):,} of the {len(images):,} images of "
            f"{images.name}; not, for example, {missing[0]}",
            "It goes by file name; ImageNet's are ILSVRC2012_val_00000001.JPEG and so on.",
        )
    listed = [found[each] for each in keys]
    if not all(0 <= label < count for labels in listed for label in labels):
        raise DataError(f"{source} names a class outside 0 to {count - 1}")
    return listed


def _read_real(source: str) -> tuple[dict[str, list[int]], bool]:
    """Right labels by image, and whether the file is a list, which only ImageNet's images have."""
    try:
        shipped = files("timm.data") / "_info" / "imagenet_real_labels.json"
        place = shipped if source == "timm" else Path(source)
        found = json.loads(place.read_text(encoding="utf-8"))
        of_imagenet = not isinstance(found, dict)
        if of_imagenet:
            found = {f"ILSVRC2012_val_{i:08d}": labels for i, labels in enumerate(found, 1)}
        return {name: list(map(int, labels)) for name, labels in found.items()}, of_imagenet
    except (OSError, ValueError, TypeError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"cannot read the labels {source}: {why}") from error
