"""The guard: how far the student goes, judged on images that it never trained on.

On the line θ(α) = (1 − α) θ₀ + α θ₁ (WiSE-FT; Wortsman et al., 2022) it goes where a lower bound
of the difference to θ₀ is best, and nowhere if none is above zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta
from torch import nn

from kt_cli.data.images import ImageSet
from kt_cli.data.loading import batches
from kt_cli.distillation.batch_norm import statistics
from kt_cli.distillation.weight_averaging import State, between, load
from kt_cli.knowledge.evaluate import Evaluator
from kt_cli.knowledge.predictions import Predictions

ALPHAS = tuple(i / 10 for i in range(1, 11))
LEVEL = 0.05
BATCH = 128
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
        answers = np.choose(surest, [said.pred for said in everyone])
        return cls(student.images, student.pred == answers, answers)

    def right(self, predicted: NDArray[np.integer]) -> Right:
        """Whether classes (…, n) are right."""
        if self.answers is None:
            return self.images.right(predicted)
        return np.asarray(predicted == self.answers)


@dataclass(frozen=True)
class Choice:
    """How far the student goes."""

    alpha: float  # 0 for not at all
    score: float  # lower bound of the gain, percentage points
    n: int  # images on which it was judged
    images: str  # their fingerprint


def choose(
    evaluator: Evaluator,
    start: State,
    end: State,
    judge: Judge,
    restore_statistics: Callable[[nn.Module], None],
) -> Choice:
    """Put the evaluator's module, with statistics of its own, at the best place between states."""
    module = evaluator.module
    kept = [_statistics(module, between(start, end, a), restore_statistics) for a in ALPHAS]
    predicted: list[list[NDArray[np.integer]]] = [[] for _ in ALPHAS]
    transforms = [evaluator.geometry.transform()]
    for (images,) in batches(judge.images, transforms, BATCH, device=evaluator.device):
        for alpha, own, found in zip(ALPHAS, kept, predicted, strict=True):
            load(module, {**between(start, end, alpha), **own})
            found.append(evaluator(images).argmax(dim=1).cpu().numpy())
    scores = [score(judge.before, judge.right(np.concatenate(found))) for found in predicted]
    best = int(np.argmax(scores))
    alpha, won = (ALPHAS[best], 100 * scores[best]) if scores[best] > 0 else (0.0, 0.0)
    load(module, {**between(start, end, alpha), **kept[best]} if alpha else start)
    return Choice(alpha, won, len(judge.images), judge.images.fingerprint)


def _statistics(
    module: nn.Module, state: State, restore_statistics: Callable[[nn.Module], None]
) -> State:
    """The module's running statistics where its weights are those of a state."""
    names = statistics(module)
    if names:
        load(module, state)
        restore_statistics(module)
    return {name: v.clone() for name, v in module.state_dict().items() if name in names}


def score(before: Right, after: Right) -> float:
    """Lower bound of the share of images gained minus lost; it holds for all of ALPHAS at once.

    Given the m images on which the two differ, gains are binomial: the bound is Clopper and
    Pearson's of their probability, at level 0.05 / 10 (Bonferroni). Positive exactly where the
    one-sided McNemar test rejects at that level.
    """
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    if gained == 0:
        return -lost / len(before)
    lowest = float(beta.ppf(LEVEL / len(ALPHAS), gained, lost + 1))
    return (gained + lost) / len(before) * (2 * lowest - 1)
