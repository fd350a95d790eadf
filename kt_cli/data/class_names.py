"""What ImageNet's classes are called: WordNet ids, their words, and timm's descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from kt_cli.zoo.imagenet_facts import NUM_CLASSES
from kt_cli.zoo.imagenet_names import SYNSET, descriptions, readable, synsets

__all__ = ["AMBIGUOUS", "SYNSET", "described", "imagenet_synsets", "readable"]

AMBIGUOUS = -1


@lru_cache(maxsize=1)
def imagenet_synsets() -> tuple[str, ...]:
    """WordNet ids of ImageNet-1k's classes, in label order."""
    return tuple(synsets(NUM_CLASSES))


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
