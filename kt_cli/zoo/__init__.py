"""Models: how they are named (`names`), loaded (`load`) and saved, and what is known of them."""

from __future__ import annotations

import re

SCHEMES = ("hf-hub", "local-dir", "py", "random", "predictions", "tv", "hf", "clip")


def scheme(ref: str) -> str:
    """The kind of a resolved reference: one of SCHEMES, "checkpoint" or "timm"."""
    prefix, colon, _ = ref.partition(":")
    if colon and prefix in SCHEMES:
        return prefix
    return "checkpoint" if "@" in ref else "timm"


def published(ref: str) -> bool:
    """Whether a resolved reference names weights of the hub, or that a library fetches."""
    if scheme(ref) in ("tv", "clip"):
        return not re.search(r"(^|@)/", target(ref))
    return scheme(ref) in ("timm", "hf-hub", "hf")


def target(ref: str) -> str:
    """What follows the scheme of a resolved reference."""
    return ref.partition(":")[2] if scheme(ref) in SCHEMES else ref
