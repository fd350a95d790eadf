"""The table of transfer methods: a partition, a loss, and whether weights move slowly.

Adding a method is one entry; CONTRIBUTING.md shows how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from kt_cli.distillation import losses, partition
from kt_cli.distillation.order import order_of
from kt_cli.distillation.partition import Partition, Sources
from kt_cli.errors import UsageError, unknown, warn
from kt_cli.settings import PUBLISHED, TransferSpec
from kt_cli.settings.transfer import guard_of

CRD_WEIGHT = 0.8
CD_CROSS_ENTROPY, CD_SIMILARITY = 0.1, 10.0
FEW_UPDATES, PUBLISHED_UPDATES = 1_000, 10_000
MOSTLY = 0.9  # of the weights before are left in the slow ones: they hardly moved


@dataclass(frozen=True)
class LossInputs:
    """What a loss sees: b samples."""

    student: Tensor  # logits (b, C), with gradient
    # Logits (b, C) of each sample's source, or their most probable classes; without gradient, but
    # where the authors' code lets the student in training take part.
    target: Tensor | losses.TopK
    weight: Tensor | None  # (b,) of distillation, 0 where a sample is left out; None for one
    labels: Tensor  # (b,)
    indices: Tensor  # (b,) among the training images
    features: Tensor | None = None  # (b, d) pooled, where the method asks for them
    teacher_features: Tensor | None = None  # (b, e)
    contrast: nn.Module | None = None  # the memory of `crd`


Loss = Callable[[LossInputs, TransferSpec], Tensor]


def _distil(inputs: LossInputs, spec: TransferSpec) -> Tensor:
    target = inputs.target
    if isinstance(target, Tensor) and not spec.reference_compat:
        target = target.detach()
    topk = spec.kd_topk or 0
    loss = losses.distillation(inputs.student, target, spec.temperature, inputs.weight, topk)
    if spec.reference_compat and inputs.weight is not None:  # the mean over what is distilled
        loss = loss * len(inputs.weight) / inputs.weight.sum().clamp_min(1)
    return loss


def _classify(inputs: LossInputs, spec: TransferSpec) -> Tensor:
    logits, labels, smoothing = inputs.student, inputs.labels, spec.label_smoothing
    if spec.reference_compat:
        return losses.double_softmax_cross_entropy(logits, labels, smoothing)
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def _distil_and_classify(inputs: LossInputs, spec: TransferSpec) -> Tensor:
    share = spec.with_defaults.kd_lambda or 0.0
    return share * _distil(inputs, spec) + (1 - share) * _classify(inputs, spec)


def _contrast(inputs: LossInputs, spec: TransferSpec) -> Tensor:
    assert inputs.contrast is not None
    features = inputs.features, inputs.teacher_features
    contrast: Tensor = inputs.contrast(*features, inputs.indices, inputs.labels)
    return _classify(inputs, spec) + CRD_WEIGHT * contrast


def _similarities(inputs: LossInputs, spec: TransferSpec) -> Tensor:
    assert inputs.features is not None and inputs.teacher_features is not None
    alike = losses.similarity(inputs.features, inputs.teacher_features)
    return CD_CROSS_ENTROPY * _classify(inputs, spec) + CD_SIMILARITY * alike


@dataclass(frozen=True)
class Method:
    """How one method teaches."""

    summary: str
    loss: Loss
    partition: Partition = partition.teacher_only  # who teaches which sample, on each view
    teacher: bool = True  # asks the teacher
    frozen: bool = False  # asks the frozen student
    labels: bool = False  # reads the labels of the training images
    slow: bool = False  # the student after transfer is the slow weights
    many: bool = False  # its partition chooses among any number of teachers
    features: bool = False  # distils pooled features
    contrast: bool = False  # with a memory of them
    compat: bool = False  # the authors' code departs from the paper here (`reference_compat`)

    def sources(self, spec: TransferSpec, sources: Sources) -> tuple[Tensor, Tensor | None]:
        """Weights (n, 1 + K) of the sources, and which samples (n,) are distilled; None for all.

        Flips are of the teacher against the first source, whoever that is.
        """
        weights = self.partition(partition.behind(sources, spec.margin))
        on = spec.with_defaults.distil_on
        if on == "all":
            return weights, None
        positive, negative = partition.flips(sources)
        return weights, (positive if on == "positive" else ~negative).float()


METHODS: dict[str, Method] = {
    "kl": Method("plain distillation from the teacher (KL-Dist)", _distil),
    "xekl": Method(
        "distillation and cross-entropy (XE-KL)", _distil_and_classify, labels=True, compat=True
    ),
    "kl-mcl": Method(
        "plain distillation with slow weights (KL-Dist+MCL)", _distil, slow=True, compat=True
    ),
    "xekl-mcl": Method(
        "distillation and cross-entropy with slow weights (XE-KL+MCL)",
        _distil_and_classify, labels=True, slow=True, compat=True,
    ),
    "kl-dp": Method(
        "data partitioning by the label's probability (KL-Dist+DP)",
        _distil, partition.by_label, frozen=True, labels=True, many=True,
    ),
    "kl-dp-u": Method(
        "data partitioning by confidence, without labels (KL-Dist+DP, unsupervised)",
        _distil, partition.by_confidence, frozen=True, many=True,
    ),
    "self": Method(
        "distillation of the student into itself: a control",
        _distil, partition.frozen_only, teacher=False, frozen=True,
    ),
    "flip-st": Method(
        "partition by flips: the teacher on positive ones only",
        _distil, partition.flip_st, frozen=True, labels=True, compat=True,
    ),
    "flip-t": Method(
        "partition by flips: the frozen student on negative ones only",
        _distil, partition.flip_t, frozen=True, labels=True, compat=True,
    ),
    "flip-avg": Method(
        "partition by flips: the mean of both where neither flips",
        _distil, partition.flip_avg, frozen=True, labels=True, compat=True,
    ),
    "crd": Method(
        "contrastive representation distillation (CRD) and cross-entropy",
        _contrast, labels=True, features=True, contrast=True,
    ),
    "cd": Method(
        "distillation of similarities within a batch (CD) and cross-entropy",
        _similarities, labels=True, features=True,
    ),
}  # fmt: skip


def find(name: str) -> Method:
    """The method called `name`, without its guard, or UnknownName with the nearest ones."""
    base = TransferSpec(method=name).base_method
    if base not in METHODS:
        raise unknown("transfer method", base, METHODS)
    guard_of(name)  # which may be none
    return METHODS[base]


def needs_frozen(spec: TransferSpec) -> bool:
    """Whether the frozen student is asked about the views."""
    by_flips = spec.with_defaults.distil_on != "all" and not spec.reference_compat
    return find(spec.method).frozen or by_flips


def needs_labels(spec: TransferSpec) -> bool:
    """Whether the labels of the training images are read."""
    return find(spec.method).labels or spec.with_defaults.distil_on != "all"


def require_possible(spec: TransferSpec, teachers: int, labelled: bool) -> None:
    """Refuse what cannot work with so many teachers and these training images.

    Raises:
        UsageError: the combination is none; UnknownName: no such method.
    """
    method, name = find(spec.method), spec.method
    if spec.reference_compat and not method.compat and spec.with_defaults.distil_on == "all":
        able = ", ".join(n for n, m in METHODS.items() if m.compat)
        raise UsageError(f"--reference-compat changes nothing in {name}", f"It is for {able}.")
    if spec.compile and method.features:
        raise UsageError(f"--compile cannot be had with {name}, which reads inside the student")
    chooses = method.partition is not partition.teacher_only or method.features
    if spec.with_defaults.distil_on != "all" and chooses:
        raise UsageError(f"--distil-on {spec.distil_on} is for kl and xekl, not for {name}")
    if needs_labels(spec) and not labelled:
        others = (replace(spec, method=n, distil_on=None) for n in METHODS)
        free = ", ".join(other.method for other in others if not needs_labels(other))
        raise UsageError(
            f"{name} needs labels, and the transfer images have none",
            f"Without labels: {free}; with --distil-on all, kl-mcl too.",
        )
    if spec.margin and not method.many:
        able = ", ".join(n for n, m in METHODS.items() if m.many)
        raise UsageError(f"--margin changes nothing in {name}", f"It is for {able}.")
    if spec.average != "none" and method.slow:
        raise UsageError(
            f"--average changes nothing in {name}", "Its slow weights are the student already."
        )
    _require_drift(spec, method)
    _require_teachers(spec, method, teachers)
    if spec.target_topk and not takes_topk(spec, spec.target_topk):
        raise UsageError(f"target_topk {spec.target_topk} is too little for {name}")


def _require_drift(spec: TransferSpec, method: Method) -> None:
    if not spec.subtract_drift:
        return
    if method.slow or method.features or not method.teacher:
        able = [n for n, m in METHODS.items() if m.teacher and not (m.slow or m.features)]
        raise UsageError(
            f"--subtract-drift cannot be had with {spec.method}", f"It is for {', '.join(able)}."
        )
    if spec.together == "sequential":
        raise UsageError(
            "--subtract-drift cannot be had with sequential teachers, whose student drifts from "
            "turn to turn", "Say --together parallel or soup.",
        )  # fmt: skip


def takes_topk(spec: TransferSpec, topk: int) -> bool:
    """Whether targets of the `topk` most probable classes are enough for the method.

    Means of logits and features need whole ones; `kd_topk` needs as many as it distils.
    """
    method = find(spec.method)
    whole = method.partition is partition.flip_avg or method.features
    return not whole and topk >= (spec.with_defaults.kd_topk or 0)


def _require_teachers(spec: TransferSpec, method: Method, teachers: int) -> None:
    if spec.together == "single" and teachers > 1:
        raise UsageError(
            f"{teachers} teachers need a way to teach together",
            "Say --together sequential, parallel or soup.",
        )
    if spec.together == "soup" and teachers == 1:
        raise UsageError("a soup needs at least two teachers, not one", "Leave out --together.")
    if spec.together == "parallel" and teachers > 1 and not method.many:
        able = ", ".join(name for name, entry in METHODS.items() if entry.many)
        raise UsageError(
            f"{spec.method} cannot choose among parallel teachers",
            f"Methods that can: {able}. Or --together sequential or soup.",
        )


def warn_if_short(spec: TransferSpec, images: int) -> None:
    """Say so where the published settings will hardly change the student.

    Args:
        spec: settled. images: number of training images.
    """
    updates = order_of(spec, images).updates
    if updates >= FEW_UPDATES:
        return
    if spec.lr is not None and spec.lr <= PUBLISHED[""]["lr"]:
        warn(
            f"{updates} updates at learning rate {spec.lr:g} will hardly move the student; "
            f"the default is made for about {PUBLISHED_UPDATES:,}. "
            "Raise --lr (say 0.01) or --epochs."
        )
    if find(spec.method).slow:
        _warn_of_slow_weights(spec, updates)


def _warn_of_slow_weights(spec: TransferSpec, updates: int) -> None:
    default = TransferSpec(method=spec.method).with_defaults
    assert spec.mcl_every is not None and default.mcl_every is not None
    steps = updates // spec.mcl_every
    if not steps:
        warn(
            f"the slow weights take a step every {spec.mcl_every} updates, and there are only "
            f"{updates}: the student stays as it was. Lower --mcl-every."
        )
    elif (kept := spec.mcl_tau**steps) > MOSTLY:
        # What the published settings keep of the weights before, over as many steps as here.
        usual = default.mcl_tau ** (PUBLISHED_UPDATES // default.mcl_every)
        warn(
            f"after {updates} updates at τ = {spec.mcl_tau:g} the slow weights are still "
            f"{kept:.1%} those before; the default is made for about {PUBLISHED_UPDATES:,}. "
            f"Lower --mcl-tau (say {usual ** (1 / steps):.2g})."
        )
