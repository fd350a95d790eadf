"""One training of a student towards its targets, as its method says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kt_cli.data.views import Views, preprocess, seed_of
from kt_cli.device import place
from kt_cli.distillation import batch_norm, methods
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.contrast import Contrast
from kt_cli.distillation.losses import full
from kt_cli.distillation.methods import LossInputs
from kt_cli.distillation.order import Order, order_of
from kt_cli.distillation.targets import Targets
from kt_cli.distillation.train import SCHEDULES, Curve, Loop, OnEpoch, fit
from kt_cli.distillation.weight_averaging import EMA, LastHalf, load
from kt_cli.settings import TransferSpec
from kt_cli.zoo.features import FeatureTap, width


def distil(
    student: nn.Module,
    data_config: Mapping[str, Any],
    views: Views,
    targets: Targets,
    spec: TransferSpec,
    *,
    teacher_width: int = 0,
    checkpoint: Checkpoint | None = None,
    on_epoch: OnEpoch = lambda done, total: None,
) -> Curve:
    """Train `student` in place, with SGD as the paper does.

    Args:
        data_config: its preprocessing at training size.
        teacher_width: pooled features of the teacher, where the method distils them.

    Raises:
        NotFinite: the loss is not finite.
    """
    spec = spec.with_defaults
    method = methods.find(spec.method)
    place(student, views.device, spec.amp)
    prepare = preprocess(data_config, views.device)
    tap = FeatureTap(student, method.features)
    contrast = _contrast(student, teacher_width, views, spec) if method.contrast else None
    order = order_of(spec, len(views))
    averaged = _averaged(student, spec, order)
    run = torch.compile(student) if spec.compile and not method.features else student

    def loss_of(epoch: int, indices: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        outputs = targets.answers(indices, images)
        logits = full(run(prepare(images)))
        here = views.here(indices)
        labels = views.labels[here]
        features = tap.take() if method.features else None
        taught = targets.taught(outputs, logits, labels)
        inputs = LossInputs(logits, taught.target, taught.weight, labels, here,
                            features, taught.features, contrast)  # fmt: skip
        right = (logits.detach().argmax(dim=1) == labels).sum()
        return method.loss(inputs, spec), torch.cat([right[None], taught.samples_by_teacher])

    kept = {"slow": averaged.state} if averaged is not None else {}
    if contrast is not None:
        kept["contrast"] = contrast.state_dict()
    loop = Loop(
        spec.amp, spec.bn, begin_epoch=targets.begin, kept=kept, checkpoint=checkpoint,
        on_epoch=on_epoch, lr_factor=lambda done: SCHEDULES[spec.schedule](done / order.updates),
        after_update=averaged.after_update if averaged is not None else lambda updates: None,
    )  # fmt: skip
    modules = [student] if contrast is None else [student, contrast]
    try:
        curve = fit(student, _sgd(modules, spec), views, loss_of, targets.count, order, loop)
    finally:
        tap.close()
    if averaged is not None:
        load(student, averaged.state)
    if spec.statistics_anew:
        batch_norm.recompute(student, views, prepare)
    return curve


def _averaged(student: nn.Module, spec: TransferSpec, order: Order) -> _Slow | LastHalf | None:
    """What the student is at the end, where that is not its weights after the last update."""
    if methods.find(spec.method).slow:
        return _Slow(student, spec, order.updates_per_epoch)
    return LastHalf(student, order.updates) if spec.average == "last-half" else None


class _Slow(EMA):
    """Slow weights of a student; with `reference_compat` as the authors' code has them.

    There they start after the first update and take a step after the first, the (1 + N)th, … of
    each epoch, not the Nth, 2Nth, … of all; and the student restarts from them every epoch.
    """

    def __init__(self, student: nn.Module, spec: TransferSpec, updates_per_epoch: int) -> None:
        super().__init__(student, spec.mcl_tau)
        assert spec.mcl_every is not None
        self._student, self._every, self._compat = student, spec.mcl_every, spec.reference_compat
        self._epoch = updates_per_epoch

    def after_update(self, updates: int) -> None:
        if self._compat and updates == 1:
            for name, value in self._student.state_dict().items():
                self.state[name].copy_(value)
        since = (updates - 1) % self._epoch if self._compat else updates
        if since % self._every == 0:
            self.step(self._student)
        if self._compat and updates % self._epoch == 0:
            load(self._student, self.state)


def _contrast(student: nn.Module, teacher_width: int, views: Views, spec: TransferSpec) -> Contrast:
    seed = seed_of("contrast", spec.seed)
    return Contrast(width(student), teacher_width, views.labels, seed).to(views.device)


def _sgd(modules: list[nn.Module], spec: TransferSpec) -> torch.optim.SGD:
    assert spec.lr is not None
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    return torch.optim.SGD(
        parameters, lr=spec.lr * spec.batch_size / 256, momentum=spec.momentum,
        weight_decay=spec.weight_decay, fused=parameters[0].is_cuda,
    )  # fmt: skip
