"""What timm's inference.py calls ImageNet's classes: by default by their words, not WordNet ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

AMBIGUOUS = -1
WORDNET = ("imagenet-1k", "imagenet-22k")


def described(classes: Sequence[str]) -> dict[str, int]:
    """Index of each class by timm's short and detailed descriptions of its WordNet id.

    AMBIGUOUS where two classes share a description ("crane"); {} where `classes` are no WordNet
    ids.
    """
    found: dict[str, int] = {}
    if not any(re.fullmatch(r"n\d{8}", name) for name in classes):
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
