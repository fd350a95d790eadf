"""How similar classes are: embeddings of classes, and how alike a set of them is by chance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RANDOM_SETS = 500
SEED = 0
ROUNDING = 1e-6  # of mean cosines, which are summed in another order for each set of classes


@dataclass(frozen=True, eq=False)
class ClassEmbedding:
    """One vector for each of C classes, of `head:MODEL` (rows of its classifier) or `clip:MODEL`.

    vectors: (C, r) float32 with rows of length 1 and r ≤ C.
    """

    name: str
    vectors: Tensor

    @classmethod
    def of(cls, name: str, rows: NDArray[np.floating]) -> ClassEmbedding:
        """From (C, d) rows of any length and any d."""
        values = torch.from_numpy(np.asarray(rows, np.float64))
        values = values / values.norm(dim=1, keepdim=True).clamp_min(1e-12)
        if values.shape[1] > values.shape[0]:
            # All cosines V Vᵀ stay as they are with V = Rᵀ Qᵀ shortened to Rᵀ.
            values = torch.linalg.qr(values.T, mode="r").R.T
        return cls(name, values.float().contiguous())

    @cached_property
    def mean(self) -> float:
        """Mean cosine of all pairs of classes, s̄."""
        return float(_mean_cosine(self.vectors.double().sum(0).square().sum(), len(self.vectors)))

    @cached_property
    def by_chance(self) -> NDArray[np.float32]:
        """Sorted mean cosines of random sets of k classes in row k: (C + 1, RANDOM_SETS).

        Rows 0 and 1 are NaN: one class has no pairs.
        """
        count = len(self.vectors)
        generator = torch.Generator().manual_seed(SEED)
        draws = [torch.randperm(count, generator=generator) for _ in range(RANDOM_SETS)]
        found = np.full((count + 1, RANDOM_SETS), np.nan, np.float32)
        sums = torch.zeros(RANDOM_SETS, self.vectors.shape[1])
        for size, added in enumerate(torch.stack(draws, dim=1), 1):
            sums += self.vectors[added]
            if size > 1:
                found[size] = _mean_cosine(sums.square().sum(1), size).numpy()
        found.sort(axis=1)
        return found

    def percentile(self, similarity: Tensor, sizes: Tensor) -> Tensor:
        """Percentage of random sets of the same size that are less alike; ties count half.

        Args:
            similarity: (P,) mean cosines; NaN gives NaN. sizes: (P,) numbers of classes.
        """
        rows, values = torch.from_numpy(self.by_chance)[sizes], similarity.float()[:, None]
        below = torch.searchsorted(rows, values - ROUNDING)
        below += torch.searchsorted(rows, values + ROUNDING, right=True)
        share = below[:, 0].double() * (50 / RANDOM_SETS)
        return torch.where(similarity.isnan(), torch.nan, share)

    def top_similarity(self, counts: Tensor, ascending: Tensor, sizes: Tensor) -> Tensor:
        """Mean pairwise cosine of the classes with most flips, for P pairs at once.

        Where several classes tie for the last places, it is the mean over all ways to choose
        among them, so that it does not depend on the order of the classes.

        Args:
            counts: (P, C) flips by class. ascending: the same, each row sorted.
            sizes: (P,) numbers of classes to take.

        Returns:
            (P,) float64; NaN where one class alone is taken.
        """
        least = ascending.gather(1, ascending.shape[1] - sizes[:, None])
        fewer = torch.searchsorted(ascending, least)[:, 0]
        no_more = torch.searchsorted(ascending, least, right=True)[:, 0]
        above, tied = ascending.shape[1] - no_more, no_more - fewer
        # Sums of the vectors of the classes that are surely taken, and of those that tie: (P, r).
        sure = (counts > least).float() @ self.vectors
        last = (counts == least).float() @ self.vectors
        chosen = (sizes - above).double()
        share = chosen / tied
        both = chosen * (chosen - 1) / (tied * (tied - 1)).clamp_min(1)
        inside = sure.square().sum(1).double() - above
        across = 2 * (sure * last).sum(1).double()
        among = last.square().sum(1).double() - tied
        total = inside + share * across + both * among
        return torch.where(sizes > 1, total / (sizes * (sizes - 1)).double(), torch.nan)


def _mean_cosine(squared_length: Tensor, size: Tensor | int) -> Tensor:
    """Of `size` unit vectors whose sum has this squared length: |Σe|² = k + Σ_{i≠j} e_i·e_j."""
    return (squared_length - size) / (size * (size - 1))
