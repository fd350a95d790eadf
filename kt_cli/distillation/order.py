"""In which order samples are gone through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kt_cli.data.views import seed_of
from kt_cli.settings import PretrainSpec, TransferSpec


@dataclass(frozen=True)
class Order:
    """How n samples are gone through: batches of an epoch, micro-batches of a batch, the seed."""

    n: int
    epochs: int
    batch_size: int
    micro_batch: int
    seed: int

    @property
    def updates_per_epoch(self) -> int:
        return max(1, self.n // self.batch_size)

    @property
    def updates(self) -> int:
        return self.epochs * self.updates_per_epoch

    @property
    def samples_per_epoch(self) -> int:
        return self.updates_per_epoch * min(self.n, self.batch_size)

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Index batches of an epoch, shuffled by (seed, epoch); an incomplete last one is dropped.

        A set smaller than a batch is one batch.
        """
        generator = torch.Generator().manual_seed(seed_of("order", self.seed, epoch))
        order = torch.randperm(self.n, generator=generator)
        size = min(self.n, self.batch_size)
        for i in range(self.updates_per_epoch):
            yield order[i * size : (i + 1) * size]

    def micro_batches(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Equal parts of at most `micro_batch`: batch normalisation cannot take a lone sample."""
        return batch.tensor_split(-(-len(batch) // self.micro_batch))


def order_of(spec: TransferSpec | PretrainSpec, n: int) -> Order:
    return Order(n, spec.epochs, spec.batch_size, spec.micro_batch, spec.seed)
