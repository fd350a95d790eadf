"""One student and its teachers: one, in sequence, in parallel, or a soup of their students."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kt_cli.data.views import Views, preprocess
from kt_cli.distillation import normalisation
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.distil import Curve, distil
from kt_cli.distillation.interpolation import copied, load, mean
from kt_cli.distillation.keeping import Keeping
from kt_cli.distillation.targets import Asking, Opened, Source, Targets
from kt_cli.distillation.train import OnEpoch
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
class Course:
    """Who learns from whom, and how.

    Attributes:
        module, data_config: the student and its preprocessing at training size.
        student: the student before transfer, as it is asked about views.
        teachers: in the order in which they teach.
        keeping: where answers are kept; None for nowhere.
        checkpoint: of each training, by a name for it.
        after_step: called with the student after each teacher's turn, where they take turns.
    """

    module: nn.Module
    data_config: Mapping[str, Any]
    views: Views
    student: Asked
    teachers: Sequence[Asked]
    spec: TransferSpec
    keeping: Keeping | None = None
    checkpoint: Callable[[str], Checkpoint | None] = lambda name: None
    after_step: Callable[[nn.Module], object] = lambda module: None
    on_epoch: OnEpoch = lambda done, total: None


def teach(course: Course) -> list[Curve]:
    """Train the student in place; one curve for each training."""
    if course.spec.compile:
        # Code compiled for the students before counts towards a limit, beyond which nothing is.
        torch.compiler.reset()
    return WAYS[course.spec.teachers](course)


def _together(course: Course) -> list[Curve]:
    return [_train(course, course.student, course.teachers)]


def _sequential(course: Course) -> list[Curve]:
    """One after another; the frozen student is what the one before made of it."""
    curves, frozen = [], course.student
    for turn, teacher in enumerate(course.teachers):
        curves.append(_train(course, frozen, [teacher], turn))
        course.after_step(course.module)
        copy = deepcopy(course.module)
        frozen = Asked("", lambda copy=copy: (copy, course.data_config))  # type: ignore[misc]
    return curves


def _soup(course: Course) -> list[Curve]:
    """Each from the student before transfer; then the mean of their weights."""
    start, curves, parts = copied(course.module), [], []
    for turn, teacher in enumerate(course.teachers):
        load(course.module, start)
        curves.append(_train(course, course.student, [teacher], turn))
        parts.append(copied(course.module))
        course.after_step(course.module)
    load(course.module, mean(parts))
    if course.spec.bn == "recompute":
        prepare = preprocess(course.data_config, course.views.device)
        normalisation.recompute(course.module, course.views, prepare)
    return curves


WAYS: dict[str, Callable[[Course], list[Curve]]] = {
    "single": _together,
    "parallel": _together,
    "sequential": _sequential,
    "soup": _soup,
}


def _train(course: Course, frozen: Asked, teachers: Sequence[Asked], turn: int = 0) -> Curve:
    asking = Asking.by(course.spec, course.views)
    student, *others = (
        Source(asking, asked.load, asked.key, course.keeping) for asked in (frozen, *teachers)
    )
    turns = len(course.teachers) if course.spec.teachers in ("sequential", "soup") else 1

    def on_epoch(done: int, total: int) -> None:
        course.on_epoch(turn * total + done, turns * total)

    return distil(
        course.module, course.data_config, course.views, Targets(course.spec, student, others),
        course.spec, teacher_width=teachers[0].width, checkpoint=course.checkpoint(str(turn)),
        on_epoch=on_epoch,
    )  # fmt: skip
