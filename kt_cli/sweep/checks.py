"""Values that no setting can have. Standard library only."""

from __future__ import annotations

import math
from typing import Any

from kt_cli.errors import UsageError, unknown
from kt_cli.spec import DataSpec, PretrainSpec, TransferSpec
from kt_cli.transfer.schedules import OPTIMIZERS, SCHEDULES

AMP = ("", "float16", "bfloat16")
BN = ("train", "eval", "recompute")
TEACHERS = ("single", "sequential", "parallel", "soup")
ORDERS = ("asc", "desc", "given")
DISTIL_ON = ("all", "positive", "not-negative")
KEEP_TARGETS = ("auto", "memory", "disk", "online")


def check_name(name: str) -> None:
    """Errors for what cannot be the name of a folder."""
    if not name or "/" in name or name.startswith("."):
        raise UsageError(f"{name!r} cannot name a folder", "Use letters, digits, - and _.")


def check_transfer(spec: TransferSpec) -> None:
    """Errors for settings that no transfer can have."""
    settled = spec.settled
    for what, name, known in (
        ("precision", spec.eval_amp, AMP),
        ("precision", spec.amp, AMP),
        ("policy for batch normalisation", spec.bn, BN),
        ("way to teach together", spec.teachers, TEACHERS),
        ("order of teachers", spec.order, ORDERS),
        ("kind of samples to distil on", settled.distil_on, DISTIL_ON),
        ("place to keep targets", spec.keep_targets, KEEP_TARGETS),
    ):
        if name not in known:
            raise unknown(what, str(name), known)
    check_positive(settled, (
        "epochs", "lr", "batch_size", "micro_batch", "temperature", "crop", "side", "mcl_every",
    ))  # fmt: skip
    for name in ("crop", "kd_lambda", "mcl_tau", "label_smoothing"):
        if not 0 <= getattr(settled, name) <= 1:
            raise UsageError(f"{name} must be in [0, 1], not {getattr(settled, name)}")
    for name in ("kd_topk", "target_topk", "momentum", "weight_decay"):
        if not 0 <= getattr(settled, name) < math.inf:
            raise UsageError(f"{name} must not be negative: {getattr(settled, name)}")


def check_pretrain(spec: PretrainSpec) -> None:
    """Errors for settings that no training can have."""
    check_positive(spec, ("epochs", "lr", "batch_size", "micro_batch", "crop", "side", "fraction"))
    if spec.img_size is not None:
        check_positive(spec, ("img_size",))
    for name in ("crop", "fraction", "label_smoothing"):
        if getattr(spec, name) > 1:
            raise UsageError(f"{name} must be at most 1, not {getattr(spec, name)}")
    for name in ("weight_decay", "freeze_epochs", "label_smoothing"):
        if not 0 <= getattr(spec, name) < math.inf:
            raise UsageError(f"{name} must not be negative: {getattr(spec, name)}")
    if not 0 <= spec.warmup < 1:
        raise UsageError(f"warmup must be in [0, 1), not {spec.warmup}")
    for what, name, known in (
        ("schedule", spec.schedule, SCHEDULES),
        ("optimizer", spec.optimizer, OPTIMIZERS),
        ("type of mixed precision", spec.amp, AMP),
    ):
        if name not in known:
            raise unknown(what, name, known)


def check_data(data: DataSpec) -> None:
    """Errors for images that there cannot be."""
    if data.by_position and data.valid_labels:
        raise UsageError("--valid-labels and --by-position exclude each other", "Choose one.")
    check_positive(data, ("fraction",))
    if data.fraction > 1:
        raise UsageError(f"fraction must be at most 1, not {data.fraction}")
    if not 0 <= data.guard < 1:
        raise UsageError(f"guard must be in [0, 1), not {data.guard}")
    if data.limit is not None and data.limit < 1:
        raise UsageError(f"limit must be at least 1, not {data.limit}")


def check_positive(spec: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if not 0 < getattr(spec, name) < math.inf:
            raise UsageError(f"{name} must be positive, not {getattr(spec, name)}")
