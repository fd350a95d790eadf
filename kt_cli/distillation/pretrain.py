"""Train or fine-tune a model on the user's own images, so that a zoo can be made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kt_cli.data.views import Views
from kt_cli.device import memory_exhausted, out_of_memory
from kt_cli.distillation import batch_norm
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.order import order_of
from kt_cli.distillation.train import SCHEDULES, Curve, Loop, Prepare, fit
from kt_cli.errors import UsageError
from kt_cli.settings import PretrainSpec
from kt_cli.zoo.features import classifier

MOMENTUM = 0.9  # of SGD


def lr_factor(update: int, updates: int, schedule: str, warmup: float) -> float:
    """The learning rate of an update, counted from 0, as a share of its peak.

    Args:
        schedule: a name of SCHEDULES; what comes after warm-up, towards zero at the end.
        warmup: share of the updates in which the rate rises linearly; the last has the peak.
    """
    warm = round(warmup * updates)
    if update < warm:
        return (update + 1) / warm
    return SCHEDULES[schedule](min(1.0, (update - warm) / max(1, updates - warm)))


def pretrain(
    module: nn.Module,
    views: Views,
    prepare: Prepare,
    spec: PretrainSpec,
    *,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[int, int, float], object] = lambda done, total, right: None,
) -> Curve:
    """Train `module` in place on labelled views with cross-entropy.

    Args:
        on_epoch: told of epochs that are done, of all, and the percentage of views that were right.

    Raises:
        UsageError: the classifier is to be trained alone, and there is none.
        NotFinite: the loss is not finite.
        KtError: the device's memory is exhausted.
    """
    order = order_of(spec, len(views))
    trained = _HeadFirst(module, spec)
    right, seen = torch.zeros((), device=views.device), 0

    def loss_of(epoch: int, indices: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal seen
        labels, seen = views.labels[views.here(indices)], seen + len(indices)
        logits = module(prepare(images)).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=spec.label_smoothing)
        hits = (logits.detach().argmax(dim=1) == labels).sum()
        right.add_(hits)
        return loss, hits[None]

    def epoch_ended(done: int, total: int) -> None:
        nonlocal seen
        if seen:  # none where it went on from a checkpoint at the end of an epoch
            on_epoch(done, total, 100 * float(right) / seen)
        right.zero_()
        seen = 0

    loop = Loop(
        spec.amp, begin_epoch=trained.begin, checkpoint=checkpoint, on_epoch=epoch_ended,
        lr_factor=lambda update: lr_factor(update, order.updates, spec.schedule, spec.warmup),
    )  # fmt: skip
    try:
        curve = fit(trained, _optimizer(module, spec), views, loss_of, 1, order, loop)
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise memory_exhausted(spec.micro_batch, "--amp", alone="Try --amp.") from error
    trained.begin(spec.freeze_epochs)  # leaves nothing frozen
    return curve


class _HeadFirst(nn.Module):
    """A module that trains its classifier alone in the first `freeze_epochs`.

    The frozen body's batch normalisation uses and keeps the statistics that it has.
    """

    def __init__(self, module: nn.Module, spec: PretrainSpec) -> None:
        super().__init__()
        self.module, self._epochs, self._frozen = module, spec.freeze_epochs, False
        head = _head(module, spec.arch) if self._epochs else set()
        # What the architecture itself keeps fixed, such as some position embeddings, stays so.
        self._body = [p for p in module.parameters() if p.requires_grad and id(p) not in head]

    def begin(self, epoch: int) -> None:
        self._frozen = epoch < self._epochs
        for parameter in self._body:
            parameter.requires_grad_(not self._frozen)

    def train(self, mode: bool = True) -> _HeadFirst:
        super().train(mode)
        if self._frozen:
            for layer in batch_norm.layers(self.module):
                layer.eval()
        return self


def _head(module: nn.Module, name: str) -> set[int]:
    """Ids of the classifier's parameters; of distilled models, those of both classifiers."""
    if classifier(module) is None:
        raise UsageError(
            f"{name} has no classifier of its own that could be trained first",
            "Train everything from the start: leave out --freeze (freeze_epochs).",
        )
    found = cast(Any, module).get_classifier()
    heads = found if isinstance(found, (tuple, list)) else [found]
    return {id(p) for head in heads for p in head.parameters()}


def _optimizer(module: nn.Module, spec: PretrainSpec) -> torch.optim.Optimizer:
    """Over all parameters, frozen ones too: those without a gradient are passed over.

    Weight decay for matrices only, as is usual: not for biases and normalisation.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = any(p.is_cuda for p in parameters)
    if spec.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=spec.lr, momentum=MOMENTUM, fused=fused)
    return torch.optim.AdamW(groups, lr=spec.lr, fused=fused)
