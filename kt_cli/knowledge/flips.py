"""Positive flips of many pairs of models by class, from products of 0/1 matrices.

Exact in float32 up to 2²⁴ samples a class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PRODUCT = 4_000_000  # values that are multiplied at once


class FlipCounter:
    """Counts positive flips by class: for M models, right (M, n) and labels (n,) as in `Outputs`.

    Classes are multiplied many at a time: threads that meet after each small product wait longer
    than they work. Those of similar size go together, padded with samples that nobody has right.
    """

    def __init__(
        self, right: NDArray[np.bool_], labels: NDArray[np.integer], num_classes: int
    ) -> None:
        order = np.argsort(labels, kind="stable")
        edges = np.searchsorted(labels[order], np.arange(num_classes + 1))
        order = np.append(order, len(labels))
        padded = np.pad(right, ((0, 0), (0, 1)))
        self._models = len(right)
        self._known = torch.zeros(num_classes, len(right), dtype=torch.int32)
        self._groups = []
        for classes in _of_similar_size(np.diff(edges), len(right)):
            first, last = edges[classes, None], edges[classes + 1, None]
            places = first + np.arange((last - first).max())
            inside = padded[:, order[np.where(places < last, places, -1)]].swapaxes(0, 1)
            here, samples = torch.from_numpy(classes), torch.from_numpy(inside)
            self._known[here] = samples.sum(dim=2, dtype=torch.int32)
            self._groups.append((here, samples))
        self._memory = torch.empty(0)

    def both_right(self, teachers: slice) -> Tensor:
        """(C, b, M) float32: samples of class c that t and s have right. Valid until called again.

        Always in the same memory: fresh pages cost more than the products.
        """
        shape = len(self._known), self._known[:, teachers].shape[1], self._models
        if self._memory.numel() < math.prod(shape):
            self._memory = torch.empty(math.prod(shape))
        both = self._memory[: math.prod(shape)].view(shape)
        for here, samples in self._groups:
            values = samples.float()
            both[here] = torch.bmm(values[:, teachers], values.transpose(1, 2))
        return both

    def flips_of(self, both: Tensor, teachers: slice) -> NDArray[np.int32]:
        """(b, M, C): samples of class c that teacher t has right and student s wrong.

        Args:
            both: what `both_right` gives for the b teachers.
        """
        flips = self._known[:, teachers, None] - both.int()
        return flips.permute(1, 2, 0).contiguous().numpy()


def _of_similar_size(sizes: NDArray[np.integer], models: int) -> Iterator[NDArray[np.int64]]:
    """Groups of classes: none is twice as large as another, so that padding stays small."""
    order = np.argsort(sizes, kind="stable")
    doubled = np.flatnonzero(np.diff(np.frexp(sizes[order])[1])) + 1
    for alike in np.split(order, doubled):
        parts = -(-len(alike) * models * int(sizes[alike[-1]]) // PRODUCT)
        yield from np.array_split(alike, min(len(alike), max(1, parts)))
