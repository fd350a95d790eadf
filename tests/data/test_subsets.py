from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_cli.data.subsets import stratified


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    fraction=st.floats(0.01, 1.0),
    seed=st.integers(0, 5),
)
def test_classes_keep_their_shares(counts: list[int], fraction: float, seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    chosen = stratified(labels, fraction, seed)
    assert len(chosen) == len(set(chosen.tolist())) == round(fraction * len(labels))
    assert (np.diff(chosen) > 0).all()
    for c, count in enumerate(counts):
        got = int((labels[chosen] == c).sum())
        smallest_allowed = (
            fraction * count - 1 - len(counts) * (round(fraction * len(labels)) >= len(counts))
        )
        assert smallest_allowed <= got <= min(count, fraction * count + 1.5)


def test_every_class_is_in_a_large_enough_subset() -> None:
    labels = np.repeat(np.arange(3), [1000, 1000, 1])
    assert set(labels[stratified(labels, 0.01, 0)]) == {0, 1, 2}


def test_every_class_keeps_the_sample_that_it_was_granted() -> None:
    for counts, wanted in (([97, 1, 1, 1], 4), ([900, 5, 5, 5, 5], 10), ([50, 1, 1], 3)):
        labels = np.repeat(np.arange(len(counts)), counts)
        chosen = stratified(labels, wanted, 0)
        assert len(chosen) == wanted and len(set(labels[chosen])) == len(counts)


def test_same_seed_same_subset_other_seed_other_subset() -> None:
    labels = np.repeat(np.arange(4), 50)
    np.testing.assert_array_equal(stratified(labels, 0.3, 1), stratified(labels, 0.3, 1))
    assert not np.array_equal(stratified(labels, 0.3, 1), stratified(labels, 0.3, 2))


def test_larger_subsets_contain_smaller_ones() -> None:
    labels = np.repeat(np.arange(4), 50)
    small, large = (set(stratified(labels, f, 3).tolist()) for f in (0.2, 0.6))
    assert small < large


@pytest.mark.parametrize(("size", "expected"), [(10, 10), (500, 200), (1.0, 200)])
def test_sizes(size: float, expected: int) -> None:
    assert len(stratified(np.repeat(np.arange(4), 50), size, 0)) == expected
