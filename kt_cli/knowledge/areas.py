"""Areas of expertise: groups of similar classes in which one model knows what another does not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from kt_cli.knowledge.class_similarity import ClassEmbedding

PERCENT = 50  # of the flips: the classes that are grouped
ALIKE = 1.5  # standard deviations above the mean of all pairs' cosines: classes are alike
AT_MOST = 2_000  # classes: the grouping takes quadratic memory


class Area(NamedTuple):
    """classes: indices, by flips, descending. flips: in all of them. share: of all flips, %."""

    classes: tuple[int, ...]
    flips: int
    share: float


def areas(flips: NDArray[np.int64], embedding: ClassEmbedding | None) -> list[Area]:
    """Groups of two or more similar classes among those with most flips, largest first.

    The top-50% classes (all that tie for the last place included) are clustered by average
    linkage of their cosines, cut where they are no longer alike.

    Args:
        flips: (C,) positive flips by class.
        embedding: of the classes; without one there are no areas.
    """
    total = int(flips.sum())
    if embedding is None or not total:
        return []
    ranked = np.sort(flips)[::-1]
    last = ranked[np.searchsorted(np.cumsum(ranked), total * PERCENT / 100)]
    chosen = np.flatnonzero(flips >= max(1, last))
    if not 2 <= len(chosen) <= AT_MOST:
        return []
    vectors = embedding.vectors.numpy()
    near = vectors[chosen]
    distances = np.clip(1 - near @ near.T, 0, 2)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    groups = fcluster(tree, 1 - _alike(vectors), "distance")
    found = []
    for members in (chosen[groups == group] for group in np.unique(groups)):
        if len(members) > 1:
            classes = tuple(sorted(members.tolist(), key=lambda c: (-flips[c], c)))
            held = int(flips[members].sum())
            found.append(Area(classes, held, 100 * held / total))
    return sorted(found, key=lambda area: (-area.flips, area.classes))


def _alike(vectors: NDArray[np.float32]) -> float:
    """The cosine above which two classes count as alike."""
    some = vectors[np.random.default_rng(0).permutation(len(vectors))[:AT_MOST]]
    cosines = (some @ some.T)[np.triu_indices(len(some), 1)]
    return float(cosines.mean() + ALIKE * cosines.std())
