"""Areas of expertise on embeddings whose groups are known."""

from __future__ import annotations

import numpy as np

from kt_cli.knowledge.areas import areas
from kt_cli.knowledge.class_similarity import ClassEmbedding

C = 60


def grouped() -> ClassEmbedding:
    """Twelve groups of five classes that are alike."""
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    return ClassEmbedding.of(
        "test", np.repeat(centres, 5, axis=0) + 0.02 * rng.normal(size=(C, 12))
    )


def test_the_groups_with_most_flips_are_found() -> None:
    flips = np.zeros(C, np.int64)
    flips[10:15] = [9, 10, 8, 7, 6]
    flips[40:43] = [5, 4, 3]
    flips[0] = 5
    flips[55] = 2
    (area,) = areas(flips, grouped())
    assert area.classes == (11, 10, 12, 13)  # half of the 59 flips, largest first
    assert area.flips == 34
    assert area.share == 100 * 34 / 59


def test_flips_that_tie_are_all_looked_at() -> None:
    flips = np.zeros(C, np.int64)
    flips[20:30] = 1  # two whole groups, one flip each
    found = areas(flips, grouped())
    assert [area.classes for area in found] == [tuple(range(20, 25)), tuple(range(25, 30))]
    assert [area.share for area in found] == [50.0, 50.0]


def test_without_flips_or_embedding_there_are_none() -> None:
    assert areas(np.zeros(C, np.int64), grouped()) == []
    assert areas(np.ones(C, np.int64), None) == []
