"""Train or fine-tune a model on the user's own images, so that a zoo can be made of them."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kt_cli.data.views import Views, seed_of
from kt_cli.spec import PretrainSpec
from kt_cli.transfer.train import BatchLoss, OnEpoch, Order, Prepare, fit

WARM_UP = 0.1


def seed_everything(spec: PretrainSpec) -> None:
    """Fix initial weights and dropout; call before the module is built."""
    torch.manual_seed(seed_of("pretrain", spec.seed))


def pretrain(
    module: nn.Module,
    views: Views,
    prepare: Prepare,
    spec: PretrainSpec,
    on_epoch: OnEpoch = lambda done, total: None,
) -> tuple[float, ...]:
    """Train `module` in place on labelled views: AdamW, warm-up then cosine, cross-entropy.

    Returns:
        The mean loss of each epoch.
    """
    order = Order(len(views), spec.epochs, spec.batch_size, spec.batch_size, spec.seed)
    optimizer = torch.optim.AdamW(_groups(module, spec.weight_decay), lr=spec.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor(step, order.updates)
    )

    def epoch_loss(epoch: int) -> BatchLoss:
        def loss_of(indices: Tensor) -> Tensor:
            labels = views.labels[indices.to(views.device, non_blocking=True)]
            logits = module(prepare(views.batch(epoch, indices)))
            return F.cross_entropy(logits, labels, label_smoothing=spec.label_smoothing)

        return loss_of

    return fit(module, optimizer, epoch_loss, order, views.device, schedule.step, on_epoch)


def lr_factor(step: int, steps: int) -> float:
    """Linear warm-up over the first tenth of the steps, then a half cosine to zero."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only, as is usual: not for biases and normalisation."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
