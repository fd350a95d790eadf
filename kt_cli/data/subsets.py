"""Stratified subsets: the same images for the same labels, fraction and seed, on any machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def stratified(labels: Indices, size: float | int, seed: int) -> Indices:
    """(m,) sorted indices of a stratified random subset, by the (n,) class of each sample.

    Every class keeps its share to within one sample, and at least one where the subset is large
    enough. For one seed, a smaller subset is contained in a larger one of the same kind up to one
    sample per class. size: a fraction in (0, 1] of the samples (float), or their number (int).
    """
    n = len(labels)
    wanted = round(size * n) if isinstance(size, float) else min(size, n)
    keys = np.random.default_rng(seed).random(n)
    order = np.lexsort((keys, labels))
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    quota = _quotas(counts, wanted)
    rank = np.arange(n) - np.repeat(starts, counts)
    chosen = order[rank < np.repeat(quota, counts)]
    return np.sort(chosen).astype(np.int64)


def _quotas(counts: Indices, wanted: int) -> Indices:
    """Largest-remainder shares of `wanted` in proportion to `counts`; the sum is exact."""
    exact = counts * (wanted / max(1, int(counts.sum())))
    quota = np.floor(exact).astype(np.int64)
    if wanted >= len(counts):
        quota = np.maximum(quota, 1)
    missing = wanted - int(quota.sum())
    if missing > 0:
        quota[np.argsort(-(exact - quota), kind="stable")[:missing]] += 1
    for _ in range(-missing):
        # Not from a class that would lose its only sample, unless there are none but these.
        spare = np.where(quota > min(1, quota.max() - 1), quota - exact, -np.inf)
        quota[np.argmax(spare)] -= 1
    result: Indices = np.minimum(quota, counts)
    return result
