"""The guard: how far the student goes, judged on images that it never trained on.

On the line θ(α) = (1 − α) θ₀ + α θ₁ (WiSE-FT; Wortsman et al., 2022) it goes where a rule puts it
(`guard_rules`), by what each place gains and loses against θ₀.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kt_cli.data.images import ImageSet
from kt_cli.data.loading import batches
from kt_cli.distillation.batch_norm import statistics
from kt_cli.distillation.guard_rules import ALPHAS, Flips, Verdict
from kt_cli.distillation.weight_averaging import State, between, load
from kt_cli.knowledge.evaluate import Evaluator, likeliest
from kt_cli.knowledge.predictions import Predictions

BATCH, AT_ONCE = 128, 8
Right = NDArray[np.bool_]


@dataclass(frozen=True)
class Judge:
    """What the guard judges by."""

    images: ImageSet  # n that the student never trained on
    before: Right  # (n,) whether θ₀ has each right
    answers: NDArray[np.integer] | None = None  # (n,) that count as right, where labels do not

    @classmethod
    def without_labels(cls, student: Predictions, teachers: Sequence[Predictions]) -> Judge:
        """By the answer of whoever is the most confident, the student in a tie."""
        everyone = [student, *teachers]
        surest = np.argmax([said.confidence for said in everyone], axis=0)
        answers = np.stack([said.pred for said in everyone])[surest, np.arange(len(surest))]
        return cls(student.images, student.pred == answers, answers)

    def right(self, predicted: NDArray[np.integer]) -> Right:
        """Whether classes (…, n) are right."""
        if self.answers is None:
            return self.images.right(predicted)
        return np.asarray(predicted == self.answers)


@dataclass(frozen=True)
class Choice:
    """How far the student goes."""

    verdict: Verdict
    flips: Flips  # by which it was judged
    images: str  # fingerprint of the images

    @property
    def alpha(self) -> float:
        return (0.0, *ALPHAS)[int(self.verdict.place)]


def choose(
    evaluator: Evaluator,
    start: State,
    end: State,
    judge: Judge,
    restore_statistics: Callable[[nn.Module], None],
    rule: Callable[[Flips], Verdict],
) -> Choice:
    """Put the evaluator's module, with statistics of its own, where the rule wants it to be."""
    module = evaluator.module
    kept = [_statistics(module, between(start, end, a), restore_statistics) for a in ALPHAS]
    predicted: list[list[NDArray[np.integer]]] = [[] for _ in ALPHAS]
    transforms, device = [evaluator.geometry.transform()], evaluator.device
    seen = (images for (images,) in batches(judge.images, transforms, BATCH, device=device))
    while some := list(islice(seen, AT_ONCE)):  # weights are put into place once for all of these
        for alpha, own, found in zip(ALPHAS, kept, predicted, strict=True):
            load(module, {**between(start, end, alpha), **own})
            answers = [likeliest(evaluator(images))[:, 0] for images in some]
            found.append(torch.cat(answers).cpu().numpy())
    after = np.stack([judge.right(np.concatenate(found)) for found in predicted])
    gained, lost = (after & ~judge.before).sum(axis=1), (judge.before & ~after).sum(axis=1)
    flips = Flips(gained, lost, len(judge.images))
    choice = Choice(rule(flips), flips, judge.images.fingerprint)
    place = int(choice.verdict.place)
    load(module, {**between(start, end, choice.alpha), **kept[place - 1]} if place else start)
    return choice


def _statistics(
    module: nn.Module, state: State, restore_statistics: Callable[[nn.Module], None]
) -> State:
    """The module's running statistics where its weights are those of a state."""
    names = statistics(module)
    if names:
        load(module, state)
        restore_statistics(module)
    return {name: v.clone() for name, v in module.state_dict().items() if name in names}
