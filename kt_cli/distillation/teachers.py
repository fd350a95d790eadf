"""One student and its teachers: one, in sequence, in parallel, or a soup of their students."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from kt_cli.data.views import Views, preprocess
from kt_cli.distillation import batch_norm
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.distil import distil
from kt_cli.distillation.target_cache import TargetCache
from kt_cli.distillation.targets import Opened, Source, Targets, TeacherQuery
from kt_cli.distillation.train import Curve, OnEpoch
from kt_cli.distillation.weight_averaging import State, copied, less, load, mean
from kt_cli.files import cache_folder, cached, keep_tensors, read_tensors
from kt_cli.precision import arithmetic
from kt_cli.settings import TransferSpec
from kt_cli.settings.declared import digest, signature
from kt_cli.spec import RunOf

FORMAT = 1  # of the drift that is kept; raise it when how it is computed changes


@dataclass(frozen=True)
class Asked:
    """A model that is asked about views."""

    key: str  # as in `targets.Source`
    load: Callable[[], Opened]
    width: int = 0  # of its pooled features, where they are distilled


@dataclass(frozen=True)
class TransferJob:
    """Who learns from whom, and how."""

    module: nn.Module  # the student
    data_config: Mapping[str, Any]  # its preprocessing at training size
    views: Views
    student: Asked  # before transfer
    teachers: Sequence[Asked]  # in the order in which they teach
    spec: TransferSpec
    cache: TargetCache | None = None  # of what they say; None for none
    checkpoint: Callable[[str], Checkpoint | None] = lambda name: None  # of each training
    # Called with the student after each teacher's turn, where they take turns.
    after_step: Callable[[nn.Module], object] = lambda module: None
    on_epoch: OnEpoch = lambda done, total: None


def order_of(accuracies: Sequence[float], spec: TransferSpec) -> list[int]:
    """The teachers of these accuracies in the order in which they teach, as indices."""
    given = list(range(len(accuracies)))
    if spec.together != "sequential" or spec.order == "given":
        return given
    return sorted(given, key=lambda i: accuracies[i], reverse=spec.order == "desc")


def teach(job: TransferJob) -> list[Curve]:
    """Train the student in place; one curve for each training.

    The frozen student of sequential teachers is what the one before made of the student. In a soup
    each teacher starts from the student before transfer; the mean of their weights is the end.
    """
    module, spec, way = job.module, job.spec, job.spec.together
    if spec.compile:
        # Code compiled for the students before counts towards a limit, beyond which nothing is.
        torch.compiler.reset()
    take_turns = way in ("sequential", "soup")
    groups = [[one] for one in job.teachers] if take_turns else [job.teachers]
    start = copied(module) if way == "soup" else {}
    before = int(spec.subtract_drift)  # trainings
    drifted = _drift(job, before + len(groups)) if spec.subtract_drift else None
    frozen, curves, parts = job.student, list[Curve](), list[State]()
    for turn, teachers in enumerate(groups):
        if way == "soup":
            load(module, start)
        curves.append(distil(
            module, job.data_config, job.views, _targets(job, frozen, teachers), spec,
            teacher_width=teachers[0].width, checkpoint=job.checkpoint(str(turn)),
            on_epoch=partial(_of_all_turns, job.on_epoch, before + turn, before + len(groups)),
        ))  # fmt: skip
        if drifted is not None:
            load(module, less(module.state_dict(), drifted))
            _estimate_statistics(job)
        if take_turns:
            job.after_step(module)
        if way == "soup":
            parts.append(copied(module))
        elif take_turns:
            frozen = _as_it_is(job)
    if way == "soup":
        load(module, mean(parts))
        _estimate_statistics(job)
    return curves


def _estimate_statistics(job: TransferJob) -> None:
    if job.spec.statistics_anew:
        prepare = preprocess(job.data_config, job.views.device)
        batch_norm.recompute(job.module, job.views, prepare)


def _targets(job: TransferJob, frozen: Asked, teachers: Sequence[Asked]) -> Targets:
    query = TeacherQuery.by(job.spec, job.views)
    student, *others = (Source(query, a.load, a.key, job.cache) for a in (frozen, *teachers))
    return Targets(job.spec, student, others)


def _of_all_turns(on_epoch: OnEpoch, turn: int, turns: int, done: int, total: int) -> None:
    on_epoch(turn * total + done, turns * total)


def _as_it_is(job: TransferJob) -> Asked:
    """The student in between, which nobody else will ask."""
    copy = deepcopy(job.module)
    return Asked("", lambda: (copy, job.data_config))


# --- drift: what as many updates towards itself change in a student ------------------------------


def drift_run(run: RunOf[TransferSpec]) -> RunOf[TransferSpec] | None:
    """That training as a run, one for all that take its drift off; None for others."""
    if not run.settings.subtract_drift:
        return None
    return replace(run, models=run.models[-1:], settings=_towards_itself(run.settings))


def _towards_itself(spec: TransferSpec) -> TransferSpec:
    """The same training of a student that teaches itself; one for all teachers and methods."""
    return replace(
        spec.with_defaults, method="self", together="single", margin=0.0, kd_lambda=None,
        distil_on=None, label_smoothing=0.0, subtract_drift=False, reference_compat=False,
    )  # fmt: skip


def _drift(job: TransferJob, turns: int) -> State:
    """θ_self − θ₀ of the student, by name of its floating-point tensors; θ₀ is in it again."""
    module, views, spec = job.module, job.views, _towards_itself(job.spec)
    how = arithmetic(views.device.type)
    said = digest([FORMAT, job.student.key, views.key, how, len(views), signature(spec)])
    path = cache_folder("drift") / f"{said[:24]}.safetensors"
    names = {name for name, v in module.state_dict().items() if v.is_floating_point()}
    kept = cached(path, read_tensors)
    if kept is not None and kept.keys() == names:
        return kept
    start, targets = copied(module), _targets(replace(job, spec=spec), job.student, ())
    distil(
        module, job.data_config, views, targets, spec,
        checkpoint=job.checkpoint("drift"), on_epoch=partial(_of_all_turns, job.on_epoch, 0, turns),
    )  # fmt: skip
    moved = {n: v.detach() - start[n] for n, v in module.state_dict().items() if n in names}
    load(module, start)
    keep_tensors(path, moved)
    return moved
