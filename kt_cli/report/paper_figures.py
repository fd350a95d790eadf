"""What Roth et al. (ICLR 2024) published, to stand beside one's own numbers.

`published.csv` holds facts from the authors' leaderboard, published beside their code and copied in
November 2026: of each student under each method, over 20 teachers, on ImageNet with 10% of its
training images, the percentage of teachers with Δ > 0 and the mean Δ in points. Methods and models
bear today's names beside the authors'; `common` marks the 20 students that all methods have. The
authors' `KL+MT_Dist` is `kl-dp`, `KL+MT_u_Dist` is `kl-dp-u`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

PAPER = "paper"  # the only source there is
SOURCE = "Roth et al. (ICLR 2024), the authors’ leaderboard"


class Result(NamedTuple):
    """One student (its name in the authors' timm 0.x; today's is `model`) under one method."""

    method: str
    student: str
    model: str
    success: float
    delta: float
    common: bool


class Success(NamedTuple):
    """Share of teachers with Δ > 0 in percent, over the students that all methods have."""

    median: float
    mean: float
    students: int


@lru_cache(maxsize=1)
def results() -> tuple[Result, ...]:
    """All published results."""
    text = files("kt_cli.report").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(
        Result(
            row["method"], row["student"], row["model"],
            float(row["success"]), float(row["delta"]), row["common"] == "1",
        )
        for row in csv.DictReader(text.splitlines())
    )  # fmt: skip


def success(method: str) -> Success | None:
    """What is published of a method, if anything."""
    shares = [r.success for r in results() if r.method == method and r.common]
    return (
        Success(float(np.median(shares)), float(np.mean(shares)), len(shares)) if shares else None
    )


def deltas(student: str) -> dict[str, float]:
    """Mean Δ in points by method of a model, as `published_as` finds it; empty if it is unknown."""
    name = published_as(student)
    return {r.method: r.delta for r in results() if r.student == name}


def published_as(model: str) -> str | None:
    """The published student that a model is: by today's name, by the authors', or without its tag.

    `resnetv2_50.a1h_in1k`, `resnetv2_50` and `resnetv2_50.other` are all `resnetv2_50`, but
    `mixer_b16_224.miil_in21k_ft_in1k` is `mixer_b16_224_miil`; `other_weights` finds the third.
    """
    name = _bare(model)
    by_name = {key: r.student for r in results() for key in (r.student, r.model)}
    return by_name.get(name) or by_name.get(name.partition(".")[0])


def other_weights(models: Iterable[str]) -> list[str]:
    """Those of the models whose tag says that the published weights were others."""
    known = {r.model for r in results()}
    return [m for m in models if published_as(m) and "." in m and _bare(m) not in known]


def _bare(model: str) -> str:
    """The name without the end of a key that tells two models of one name apart."""
    return re.sub(r" \([^()]*\)$", "", model)
