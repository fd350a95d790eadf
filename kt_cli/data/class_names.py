"""What ImageNet's classes are called: WordNet ids, their words, and timm's descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from kt_cli.zoo.classes import SYNSET, synsets
from kt_cli.zoo.imagenet_facts import NUM_CLASSES

__all__ = ["AMBIGUOUS", "SYNSET", "described", "imagenet_synsets", "readable"]

AMBIGUOUS = -1
WORDNET = ("imagenet-1k", "imagenet-22k")


@lru_cache(maxsize=1)
def imagenet_synsets() -> tuple[str, ...]:
    """WordNet ids of ImageNet-1k's classes, in label order."""
    return tuple(synsets(NUM_CLASSES))


def readable(classes: Sequence[str]) -> list[str]:
    """`classes` with WordNet ids replaced by the first of their words; others as they are."""
    if not classes or not all(map(SYNSET.fullmatch, classes)):
        return list(classes)
    return [_descriptions().get(name, (name,))[0].split(",")[0] for name in classes]


def described(classes: Sequence[str]) -> dict[str, int]:
    """Index of each class by what timm's inference.py calls it: a short or detailed description.

    AMBIGUOUS where two share one ("crane"); {} where `classes` are no WordNet ids.
    """
    found: dict[str, int] = {}
    if not any(map(SYNSET.fullmatch, classes)):
        return found  # without importing timm
    for index, name in enumerate(classes):
        for text in _descriptions().get(name, ()):
            found[text] = AMBIGUOUS if text in found else index
    return found


@lru_cache(maxsize=1)
def _descriptions() -> dict[str, tuple[str, str]]:
    """Short and detailed description by WordNet id."""
    from timm.data.imagenet_info import ImageNetInfo

    found: dict[str, tuple[str, str]] = {}
    for subset in WORDNET:
        info: Any = ImageNetInfo(subset)
        for name in info.label_names():
            short = info.label_name_to_description(name)
            found[name] = (short, info.label_name_to_description(name, detailed=True))
    return found
