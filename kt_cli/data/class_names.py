"""Class names for people: ImageNet's synset folders get their words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from kt_cli.zoo.classes import synsets
from kt_cli.zoo.imagenet_facts import NUM_CLASSES

SYNSET = re.compile(r"n\d{8}")


@lru_cache(maxsize=1)
def imagenet_synsets() -> tuple[str, ...]:
    """WordNet ids of ImageNet-1k's classes, in label order."""
    return tuple(synsets(NUM_CLASSES))


def readable(classes: Sequence[str]) -> list[str]:
    """`classes` with WordNet ids replaced by the first of their words; others as they are."""
    if not classes or not all(SYNSET.fullmatch(name) for name in classes):
        return list(classes)
    import timm.data

    words: Any = timm.data.ImageNetInfo("imagenet-22k")  # type: ignore[attr-defined]
    known = set(words.label_names())
    return [
        words.label_name_to_description(name).split(",")[0] if name in known else name
        for name in classes
    ]
