"""The loop: update a student towards its targets. Knows tensors, no names, paths or tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kt_cli.data.views import Views, seed_of
from kt_cli.errors import KtError
from kt_cli.progress import Progress, silent
from kt_cli.spec import TransferSpec
from kt_cli.transfer.methods import Method
from kt_cli.transfer.targets import EpochTargets

Prepare = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Fit:
    """What training says about itself.

    losses: mean training loss of each epoch. share_taught: samples whose target was the
    teacher's, in percent over all epochs. samples: images that went through the student.
    """

    losses: tuple[float, ...]
    share_taught: float
    samples: int


def distil(
    student: nn.Module,
    views: Views,
    prepare: Prepare,
    targets: Callable[[int], EpochTargets],
    method: Method,
    spec: TransferSpec,
    progress: Progress = silent,
) -> Fit:
    """Train `student` in place with SGD, as the paper does: momentum, constant learning rate.

    Raises:
        KtError: the loss of an epoch is not finite.
    """
    torch.manual_seed(seed_of("transfer", spec.seed))
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=spec.lr * spec.batch_size / 256,
        momentum=spec.momentum,
        weight_decay=spec.weight_decay,
    )
    losses: list[float] = []
    taught = samples = 0.0
    for epoch in range(spec.epochs):
        target = targets(epoch)
        student.train()
        total = torch.zeros((), device=views.device)
        for batch in epoch_batches(len(views), spec.batch_size, spec.seed, epoch):
            total += _step(student, optimizer, views, prepare, target, method, spec, epoch, batch)
            samples += len(batch)
        losses.append(_finite(total, epoch) / batches_per_epoch(len(views), spec.batch_size))
        taught += float(target.taught.float().mean())
        progress(epoch + 1, spec.epochs, "transfer")
    student.eval()
    share = 100 * taught / spec.epochs if spec.epochs else 0.0
    return Fit(tuple(losses), share, int(samples))


def _step(
    student: nn.Module,
    optimizer: torch.optim.Optimizer,
    views: Views,
    prepare: Prepare,
    target: EpochTargets,
    method: Method,
    spec: TransferSpec,
    epoch: int,
    batch: Tensor,
) -> Tensor:
    """One update from the views `batch` (b,), in micro-batches; its mean loss, on the device."""
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=views.device)
    for indices in batch.split(spec.micro_batch):
        here = indices.to(views.device, non_blocking=True)
        logits = student(prepare(views.batch(epoch, indices)))
        loss = method.loss(logits, target.logits[here], views.labels[here], spec)
        loss = loss * (len(indices) / len(batch))
        loss.backward()
        total += loss.detach()
    optimizer.step()
    return total


def batches_per_epoch(n: int, batch_size: int) -> int:
    return max(1, n // batch_size)


def epoch_batches(n: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Index batches of an epoch in an order of (seed, epoch); an incomplete last one is dropped.

    A set smaller than a batch is one batch.
    """
    generator = torch.Generator().manual_seed(seed_of("order", seed, epoch))
    order = torch.randperm(n, generator=generator)
    size = min(n, batch_size)
    for i in range(batches_per_epoch(n, batch_size)):
        yield order[i * size : (i + 1) * size]


def _finite(total: Tensor, epoch: int) -> float:
    value = float(total)
    if not torch.isfinite(total):
        raise KtError(f"the loss is {value} in epoch {epoch + 1}", "Try a smaller learning rate.")
    return value
