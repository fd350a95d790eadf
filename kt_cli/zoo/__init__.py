"""Models: how they are named (`names`), loaded and saved (`load`), and what is known of them.

`facts` is the published ImageNet table, `published` what timm and the hub hold, `own` the user's
folders, files and functions. Only modules of this package and of `kt_cli.data` import timm.
"""

from __future__ import annotations

SCHEMES = ("hf-hub", "local-dir", "py", "random", "predictions")


def scheme(ref: str) -> str:
    """The kind of a resolved reference: one of SCHEMES, "checkpoint" or "timm"."""
    prefix, colon, _ = ref.partition(":")
    if colon and prefix in SCHEMES:
        return prefix
    return "checkpoint" if "@" in ref else "timm"


def target(ref: str) -> str:
    """What follows the scheme of a resolved reference."""
    return ref.partition(":")[2] if scheme(ref) in SCHEMES else ref
