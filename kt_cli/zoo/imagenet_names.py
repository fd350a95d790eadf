"""What ImageNet's classes are called in words, as timm tells it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from kt_cli.zoo import timm_package
from kt_cli.zoo.imagenet_facts import NUM_CLASSES

AMBIGUOUS = -1
WORDNET = ("imagenet-1k", "imagenet-22k")
SYNSET = re.compile(r"n\d{8}")
MOST = 0.9


@lru_cache(maxsize=8)
def synsets(count: int) -> dict[str, int]:
    """WordNet ids of the ImageNet that has so many classes, with their place; {} for none."""
    if count == NUM_CLASSES and (known := timm_package.imagenet_synsets()):
        return {name: i for i, name in enumerate(known)}
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": count})
    if subset is None:
        return {}
    names = ImageNetInfo(subset).label_names()  # type: ignore[no-untyped-call]
    return {name: i for i, name in enumerate(names)}


@lru_cache(maxsize=1)
def imagenet_synsets() -> tuple[str, ...]:
    """WordNet ids of ImageNet-1k's classes, in label order."""
    return tuple(synsets(NUM_CLASSES))


def readable(classes: Sequence[str]) -> list[str]:
    """`classes` with WordNet ids replaced by the first of their words; others as they are."""
    if not all(map(SYNSET.fullmatch, classes)):
        return list(classes)
    return [descriptions().get(name, (name,))[0].split(",")[0] for name in classes]


@lru_cache(maxsize=1)
def descriptions() -> dict[str, tuple[str, str]]:
    """Short and detailed description by WordNet id."""
    from timm.data.imagenet_info import ImageNetInfo

    found: dict[str, tuple[str, str]] = {}
    for subset in WORDNET:
        info: Any = ImageNetInfo(subset)
        for name in info.label_names():
            short = info.label_name_to_description(name)
            found[name] = (short, info.label_name_to_description(name, detailed=True))
    return found


def described(classes: Sequence[str]) -> dict[str, int]:
    """Index of each class by what timm's inference.py calls it: a short or detailed description.

    AMBIGUOUS where two share one ("crane"); {} where `classes` are no WordNet ids.
    """
    found: dict[str, int] = {}
    if not any(map(SYNSET.fullmatch, classes)):
        return found  # without importing timm
    for index, name in enumerate(classes):
        for text in descriptions().get(name, ()):
            found[text] = AMBIGUOUS if text in found else index
    return found


def words(count: int) -> list[str]:
    """The first word for each class of the ImageNet that has so many, in its order; [] for none."""
    return readable(list(synsets(count)))


def of_imagenet(names: Sequence[str]) -> bool:
    """Whether `names` are words of ImageNet's classes in its order, as other libraries tell them.

    Such names say no more than their number, and are spelled in many ways.
    """
    known = words(len(names))
    same = sum(_first(name) == _first(word) for name, word in zip(names, known, strict=False))
    return bool(known) and same > MOST * len(names)


def _first(name: str) -> str:
    return name.partition(",")[0].replace("_", " ").strip().casefold()
