"""One student and its teachers: one, in sequence, in parallel, or a soup of their students."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kt_cli.data.views import Views, preprocess
from kt_cli.distillation import batch_norm
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.distil import Curve, distil
from kt_cli.distillation.target_cache import TargetCache
from kt_cli.distillation.targets import Opened, Source, Targets, TeacherQuery
from kt_cli.distillation.train import OnEpoch
from kt_cli.distillation.weight_averaging import copied, load, mean
from kt_cli.settings import TransferSpec


@dataclass(frozen=True)
class Asked:
    """A model that is asked about views.

    key: as in `targets.Source`. load: opens it.
    width: of its pooled features, where they are distilled.
    """

    key: str
    load: Callable[[], Opened]
    width: int = 0


@dataclass(frozen=True)
class TransferJob:
    """Who learns from whom, and how.

    Attributes:
        module, data_config: the student and its preprocessing at training size.
        student: the student before transfer, as it is asked about views.
        teachers: in the order in which they teach.
        cache: where answers are kept; None for nowhere.
        checkpoint: of each training, by a name for it.
        after_step: called with the student after each teacher's turn, where they take turns.
    """

    module: nn.Module
    data_config: Mapping[str, Any]
    views: Views
    student: Asked
    teachers: Sequence[Asked]
    spec: TransferSpec
    cache: TargetCache | None = None
    checkpoint: Callable[[str], Checkpoint | None] = lambda name: None
    after_step: Callable[[nn.Module], object] = lambda module: None
    on_epoch: OnEpoch = lambda done, total: None


def teach(job: TransferJob) -> list[Curve]:
    """Train the student in place; one curve for each training."""
    if job.spec.compile:
        # Code compiled for the students before counts towards a limit, beyond which nothing is.
        torch.compiler.reset()
    return WAYS[job.spec.teachers](job)


def _together(job: TransferJob) -> list[Curve]:
    return [_train(job, job.student, job.teachers)]


def _sequential(job: TransferJob) -> list[Curve]:
    """One after another; the frozen student is what the one before made of it."""
    curves, frozen = [], job.student
    for turn, teacher in enumerate(job.teachers):
        curves.append(_train(job, frozen, [teacher], turn))
        job.after_step(job.module)
        copy = deepcopy(job.module)
        frozen = Asked("", lambda copy=copy: (copy, job.data_config))  # type: ignore[misc]
    return curves


def _soup(job: TransferJob) -> list[Curve]:
    """Each from the student before transfer; then the mean of their weights."""
    start, curves, parts = copied(job.module), [], []
    for turn, teacher in enumerate(job.teachers):
        load(job.module, start)
        curves.append(_train(job, job.student, [teacher], turn))
        parts.append(copied(job.module))
        job.after_step(job.module)
    load(job.module, mean(parts))
    if job.spec.bn == "recompute":
        prepare = preprocess(job.data_config, job.views.device)
        batch_norm.recompute(job.module, job.views, prepare)
    return curves


WAYS: dict[str, Callable[[TransferJob], list[Curve]]] = {
    "single": _together,
    "parallel": _together,
    "sequential": _sequential,
    "soup": _soup,
}


def _train(job: TransferJob, frozen: Asked, teachers: Sequence[Asked], turn: int = 0) -> Curve:
    query = TeacherQuery.by(job.spec, job.views)
    student, *others = (
        Source(query, asked.load, asked.key, job.cache) for asked in (frozen, *teachers)
    )
    turns = len(job.teachers) if job.spec.teachers in ("sequential", "soup") else 1

    def on_epoch(done: int, total: int) -> None:
        job.on_epoch(turn * total + done, turns * total)

    return distil(
        job.module, job.data_config, job.views, Targets(job.spec, student, others),
        job.spec, teacher_width=teachers[0].width, checkpoint=job.checkpoint(str(turn)),
        on_epoch=on_epoch,
    )  # fmt: skip
