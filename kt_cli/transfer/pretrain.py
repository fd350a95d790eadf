"""Train or fine-tune a model on the user's own images, so that a zoo can be made of them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kt_cli.data.views import Views, seed_of
from kt_cli.progress import Progress, silent
from kt_cli.spec import PretrainSpec
from kt_cli.transfer.train import Fit, Prepare, _finite, batches_per_epoch, epoch_batches

WARM_UP = 0.1


def pretrain(
    module: nn.Module,
    views: Views,
    prepare: Prepare,
    spec: PretrainSpec,
    progress: Progress = silent,
) -> Fit:
    """Train `module` in place on labelled views: AdamW, warm-up then cosine, cross-entropy.

    Raises:
        KtError: the loss of an epoch is not finite.
    """
    steps = spec.epochs * batches_per_epoch(len(views), spec.batch_size)
    optimizer = torch.optim.AdamW(_groups(module, spec.weight_decay), lr=spec.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, steps))
    losses: list[float] = []
    samples = 0
    for epoch in range(spec.epochs):
        module.train()
        total = torch.zeros((), device=views.device)
        for indices in epoch_batches(len(views), spec.batch_size, spec.seed, epoch):
            optimizer.zero_grad(set_to_none=True)
            labels = views.labels[indices.to(views.device)]
            logits = module(prepare(views.batch(epoch, indices)))
            loss = F.cross_entropy(logits, labels, label_smoothing=spec.label_smoothing)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
            samples += len(indices)
        losses.append(_finite(total, epoch) / batches_per_epoch(len(views), spec.batch_size))
        progress(epoch + 1, spec.epochs, spec.name)
    module.eval()
    return Fit(tuple(losses), 0.0, samples)


def lr_factor(step: int, steps: int) -> float:
    """Linear warm-up over the first tenth of the steps, then a half cosine to zero."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, list[Tensor] | float]]:
    """Weight decay for matrices only, as is usual: not for biases and normalisation."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def seed_everything(spec: PretrainSpec) -> None:
    """Fix initial weights and dropout; call before the module is built."""
    torch.manual_seed(seed_of("pretrain", spec.seed))
