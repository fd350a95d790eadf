"""The table of transfer methods. A method is a partition and a loss; adding one is one entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from kt_cli.errors import unknown
from kt_cli.spec import TransferSpec
from kt_cli.transfer import losses, partition

Loss = Callable[[Tensor, Tensor, Tensor, TransferSpec], Tensor]


def _distil(student: Tensor, target: Tensor, labels: Tensor, spec: TransferSpec) -> Tensor:
    return losses.distillation(student, target, spec.temperature)


def _distil_and_classify(
    student: Tensor, target: Tensor, labels: Tensor, spec: TransferSpec
) -> Tensor:
    return spec.kd_lambda * losses.distillation(student, target, spec.temperature) + (
        1 - spec.kd_lambda
    ) * losses.cross_entropy(student, labels)


@dataclass(frozen=True)
class Method:
    """How one method teaches.

    partition: which samples the teacher teaches, on each view.
    loss: from (student logits, target logits, labels, spec) to a scalar.
    needs_frozen: whether the frozen student's logits are part of the targets.
    """

    summary: str
    partition: partition.Partition
    loss: Loss
    needs_frozen: bool


METHODS: dict[str, Method] = {
    "kl": Method(
        "plain distillation from the teacher (KL-Dist)",
        partition.everything, _distil, needs_frozen=False,
    ),
    "xekl": Method(
        "distillation and cross-entropy (XE-KL)",
        partition.everything, _distil_and_classify, needs_frozen=False,
    ),
    "kl-dp": Method(
        "data partitioning by the label's probability (KL-Dist+DP)",
        partition.by_label, _distil, needs_frozen=True,
    ),
    "kl-dp-u": Method(
        "data partitioning by confidence, without labels (KL-Dist+DP, unsupervised)",
        partition.by_confidence, _distil, needs_frozen=True,
    ),
}  # fmt: skip


def find(name: str) -> Method:
    """The method called `name`, or UnknownName with the nearest ones."""
    if name not in METHODS:
        raise unknown("transfer method", name, METHODS)
    return METHODS[name]
