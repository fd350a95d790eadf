"""Predictors of Δ that need whole outputs and features: the partition's KL, a pilot on the head.

Weighed by `python -m benchmarks.teachers … --outputs`; what came of it is in docs/teachers.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kt_cli.data.sources import open_data
from kt_cli.distillation.partition import SampleStats, by_label
from kt_cli.knowledge.evaluate import Evaluator, evaluate_all
from kt_cli.settings import DataSpec
from kt_cli.zoo import load, names
from kt_cli.zoo.features import classifier

PULL, STEPS = 0.1, 30  # of the head towards where it was; of L-BFGS


@dataclass(frozen=True)
class Outputs:
    """What a model makes of n images: features (n, d), logits (n, C), and its linear head."""

    features: Tensor
    logits: Tensor
    head: tuple[Tensor, Tensor]


def outputs(reference: str, data: str, limit: int) -> tuple[Outputs, Tensor]:
    """Of a model, and the images' labels (n,)."""
    images = open_data(DataSpec(data, limit=limit)).eval
    loaded = load.load(names.single(reference), classes=images.classes)
    head: Any = classifier(loaded.module)
    features, logits = [], []
    head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].flatten(1).clone()))
    evaluator = Evaluator(loaded.module, loaded.config("test"), torch.device("cpu"))
    for _, (said,) in evaluate_all([evaluator], images, keep_logits=True):
        logits.append(torch.from_numpy(said["logits"]).float())
    weights = head.weight.detach().flatten(1), head.bias.detach()
    return Outputs(torch.cat(features), torch.cat(logits), weights), torch.from_numpy(images.labels)


def scores(
    student: Outputs, teachers: Sequence[Outputs], labels: Tensor, among: Any
) -> dict[str, Any]:
    """(M,) each predictor of each teacher, from some of the images."""
    targets = [_taught(student, teacher, labels) for teacher in teachers]
    student_log = student.logits.log_softmax(1)
    divergence = [
        F.kl_div(student_log, target.log_softmax(1), reduction="none", log_target=True).sum(1)
        for target in targets
    ]
    return {
        "share taught × KL": np.array([float(each[among].mean()) for each in divergence]),
        "pilot on the head": np.array([_pilot(student, t, labels, among) for t in targets]),
    }


def _taught(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    """(n, C) logits that the partition would teach the student."""
    weights = by_label([SampleStats.of(said.logits, labels) for said in (student, teacher)])
    return torch.where(weights[:, 1:] > 0, teacher.logits, student.logits)


def _pilot(student: Outputs, target: Tensor, labels: Tensor, among: Any) -> float:
    """Δ in points of the student with a head taught by half of the images, on the other half."""
    mixed = np.random.default_rng(0).permutation(np.flatnonzero(among))
    halves = np.array_split(mixed, 2)
    gained = 0
    for learn, see in (halves, halves[::-1]):
        weight, bias = _head(student, target, learn)
        after = F.linear(student.features[see], weight, bias).argmax(1)
        before = student.logits[see].argmax(1)
        gained += int((after == labels[see]).sum() - (before == labels[see]).sum())
    return 100 * gained / len(mixed)


def _head(student: Outputs, target: Tensor, among: Any) -> tuple[Tensor, Tensor]:
    features, wanted = student.features[among], target[among].softmax(1)
    weight, bias = (part.clone().requires_grad_() for part in student.head)
    first, spread = student.head, features.std() ** 2
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimiser.zero_grad()
        moved = spread * ((weight - first[0]) ** 2).sum() + ((bias - first[1]) ** 2).sum()
        found = F.cross_entropy(F.linear(features, weight, bias), wanted) + PULL * moved
        found.backward()  # type: ignore[no-untyped-call]
        return float(found.detach())

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
