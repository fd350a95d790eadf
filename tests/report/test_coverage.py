"""The intervals of tables hold the truth as often as they say: benchmarks/coverage.py in short.

With so few samples a share may be two or three points off. The samples are the same each time.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import coverage
from benchmarks.coverage import DESIGNS, POPULATIONS

RUNS = 150


@pytest.mark.parametrize(
    ("design", "population"),
    [
        ("all of 7 models", "both roles matter"),
        ("all of 7 models", "opposite in both"),
        ("14 of 7 models", "pairs matter"),
        ("20 × 20", "alike in both"),
        ("1 × 10", "students matter"),
    ],
)
def test_transfers(design: str, population: str) -> None:
    found = coverage.of_transfers(
        DESIGNS[design], POPULATIONS[population], RUNS, ("Δ", "success", "difference")
    )
    assert all(90 <= share <= 100 for share in found.values()), found


def test_influence() -> None:
    names = ("ρ, student's", "ρ, pair's")
    design, population = DESIGNS["all of 7 models"], POPULATIONS["both roles matter"]
    found = coverage.of_transfers(design, population, 60, names)
    assert all(88 <= share <= 100 for share in found.values()), found


def test_pairs() -> None:
    found = coverage.of_pairs(DESIGNS["all of 7 models"], RUNS)
    assert len(found) == 7
    assert all(89 <= share <= 100 for share in found.values()), found


def test_intervals_over_independent_pairs_would_not_hold() -> None:
    """What coverage would be, were two pairs of one model two observations."""
    random, held = np.random.default_rng(0), 0
    design, population = DESIGNS["20 × 20"], POPULATIONS["both roles matter"]
    for _ in range(RUNS):
        delta = population.transfers(design.pairs(random), random)["delta"]
        held += abs(delta.mean() - population.mean) < 1.96 * delta.std() / math.sqrt(len(delta))
    assert held / RUNS < 0.6


@pytest.mark.parametrize(("images", "accuracy"), [(200, 0.5), (899, 0.9), (50_000, 0.8)])
def test_accuracies(images: int, accuracy: float) -> None:
    assert 94 <= coverage.of_accuracies(images, accuracy) <= 96
