"""The loop: update a module towards a loss. Knows tensors; no names, paths or tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kt_cli.data.views import Views, seed_of
from kt_cli.errors import KtError
from kt_cli.spec import TransferSpec
from kt_cli.transfer.methods import Method
from kt_cli.transfer.targets import EpochTargets

Prepare = Callable[[Tensor], Tensor]
BatchLoss = Callable[[Tensor], Tensor]
OnEpoch = Callable[[int, int], None]


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


def fit(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch_loss: Callable[[int], BatchLoss],
    order: Order,
    device: torch.device,
    after_update: Callable[[], object] = lambda: None,
    on_epoch: OnEpoch = lambda done, total: None,
) -> tuple[float, ...]:
    """Train `module` in place; returns the mean loss of each epoch.

    Args:
        epoch_loss: gives for an epoch the function from indices (b,) to their mean loss.
        after_update: called after each update (a learning rate schedule, say).

    Raises:
        KtError: the loss of an epoch is not finite.
    """
    losses: list[float] = []
    for epoch in range(order.epochs):
        loss_of = epoch_loss(epoch)
        # Dropout must not depend on what was computed on the way to the epoch's targets.
        torch.manual_seed(seed_of("dropout", order.seed, epoch))
        module.train()
        total = torch.zeros((), device=device)
        for batch in order.batches(epoch):
            optimizer.zero_grad(set_to_none=True)
            for indices in order.micro_batches(batch):
                loss = loss_of(indices) * (len(indices) / len(batch))
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
            optimizer.step()
            after_update()
        # The only look at the device is here, once an epoch.
        losses.append(float(total) / order.updates_per_epoch)
        if not torch.isfinite(total):
            raise KtError(
                f"the loss is {losses[-1]} in epoch {epoch + 1}", "Try a smaller learning rate."
            )
        on_epoch(epoch + 1, order.epochs)
    module.eval()
    return tuple(losses)


def distil(
    student: nn.Module,
    views: Views,
    prepare: Prepare,
    targets: Callable[[int], EpochTargets],
    method: Method,
    spec: TransferSpec,
    on_epoch: OnEpoch = lambda done, total: None,
) -> tuple[tuple[float, ...], float]:
    """Train `student` in place towards its targets, with SGD as the paper does.

    Returns:
        The mean loss of each epoch, and the share of samples taught by the teacher in percent.
    """
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=spec.lr * spec.batch_size / 256,
        momentum=spec.momentum,
        weight_decay=spec.weight_decay,
    )
    taught: list[Tensor] = []

    def epoch_loss(epoch: int) -> BatchLoss:
        target = targets(epoch)
        taught.append(target.taught.float().mean())

        def loss_of(indices: Tensor) -> Tensor:
            here = indices.to(views.device, non_blocking=True)
            logits = student(prepare(views.batch(epoch, indices)))
            return method.loss(logits, target.logits[here], views.labels[here], spec)

        return loss_of

    order = Order(len(views), spec.epochs, spec.batch_size, spec.micro_batch, spec.seed)
    losses = fit(student, optimizer, epoch_loss, order, views.device, on_epoch=on_epoch)
    return losses, float(100 * torch.stack(taught).mean())
