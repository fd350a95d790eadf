"""ImageNet-1k top-1 and cost of timm's pretrained models, as one small table.

`imagenet.csv` holds results/results-imagenet.csv of the timm repository (pytorch-image-models) as
published there, copied November 2026: for each model the row with the best top-1, which fixes
img_size. gmacs is infer_gmacs of the benchmark-infer table beside it, taken at the nearest
published input size of the architecture and scaled by the ratio of areas where sizes differ.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from kt_cli.errors import UsageError

NUM_CLASSES = 1000


@dataclass(frozen=True)
class Fact:
    model: str  # timm's name with its tag
    img_size: int  # pixels, side
    top1: float  # on ImageNet-1k's validation images, percent
    params_m: float  # millions
    gmacs: float | None  # 10⁹ multiply-adds per image


@lru_cache(maxsize=1)
def facts() -> tuple[Fact, ...]:
    """All published models, best first; equal ones by name."""
    text = files("kt_cli.zoo").joinpath("imagenet.csv").read_text(encoding="utf-8")
    rows = [
        Fact(name, int(size), float(top1), float(params), float(gmacs) if gmacs else None)
        for name, size, top1, params, gmacs in list(csv.reader(text.splitlines()))[1:]
    ]
    return tuple(sorted(rows, key=lambda fact: (-fact.top1, fact.model)))


def fact(name: str) -> Fact | None:
    """What is published of the model with this full name (with its tag), if anything."""
    return _by_name().get(name)


def fact_of_architecture(name: str) -> Fact | None:
    """What is published of a model, else of any with this architecture."""
    return fact(name) or next((f for f in facts() if f.model.partition(".")[0] == name), None)


def top(n: int) -> list[str]:
    """Names of the n most accurate models; UsageError where there are not so many."""
    if not 1 <= n <= len(facts()):
        raise UsageError(
            f"timm-top{n}: there are {len(facts())} models with published ImageNet results",
            f"Ask for 1 to {len(facts())}, or for timm-all.",
        )
    return [fact.model for fact in facts()[:n]]


@lru_cache(maxsize=1)
def _by_name() -> dict[str, Fact]:
    return {fact.model: fact for fact in facts()}
