"""Who teaches which sample: weights (n, 1 + K) of the frozen student and of K teachers.

A row of weights sums to one: a one where a source teaches the sample alone, shares where the
mean of the logits does. Each function takes what the sources say, the frozen student first; one
that a method does not ask is None. In a tie the earlier source teaches, so the frozen student
before any teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kt_cli.knowledge.evaluate import label_probability


@dataclass(frozen=True)
class SampleStats:
    """What a source says about n views, as far as a partition needs it.

    label_prob: (n,) probability of the label, NaN without one. confidence: (n,) the largest.
    right: (n,) bool, whether the most probable class is the label.
    """

    label_prob: Tensor
    confidence: Tensor
    right: Tensor

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> SampleStats:
        """From logits (n, C) and labels (n,); below 0 is none: NaN, and never right."""
        probabilities = logits.softmax(dim=1)
        confidence, predicted = probabilities.max(dim=1)
        return cls(label_probability(probabilities, labels), confidence, predicted == labels)


Sources = Sequence[SampleStats | None]
Partition = Callable[[Sources], Tensor]


def behind(sources: Sources, margin: float) -> Sources:
    """The sources where a teacher must be ahead of the frozen student by a margin to teach."""
    student, *teachers = sources
    if student is None or not margin:
        return sources
    ahead = student.label_prob + margin, student.confidence + margin
    return [SampleStats(*ahead, student.right), *teachers]


def teacher_only(sources: Sources) -> Tensor:
    """Plain distillation: the teacher teaches all samples."""
    return _choose(torch.ones_like(_known(sources[1]).right, dtype=torch.long))


def frozen_only(sources: Sources) -> Tensor:
    """Distillation of the student into itself: a control."""
    return _choose(torch.zeros_like(_known(sources[0]).right, dtype=torch.long), len(sources))


def by_label(sources: Sources) -> Tensor:
    """Supervised data partitioning: who gives the label the most probability (Eq. 5)."""
    return _largest([_known(said).label_prob for said in sources])


def by_confidence(sources: Sources) -> Tensor:
    """Unsupervised data partitioning: who is the most confident."""
    return _largest([_known(said).confidence for said in sources])


def flip_st(sources: Sources) -> Tensor:
    """The teacher on positive flips only, else the frozen student."""
    return _choose(flips(sources)[0].long())


def flip_t(sources: Sources) -> Tensor:
    """The frozen student on negative flips only, else the teacher."""
    return _choose(1 - flips(sources)[1].long())


def flip_avg(sources: Sources) -> Tensor:
    """The teacher on positive flips, the frozen student on negative ones, else the mean of both."""
    positive, negative = flips(sources)
    teacher = 0.5 + 0.5 * (positive.float() - negative.float())
    return torch.stack([1 - teacher, teacher], dim=1)


def flips(sources: Sources) -> tuple[Tensor, Tensor]:
    """Positive and negative flips (n,) of one teacher against the student."""
    student, teacher = (_known(said).right for said in sources)
    return teacher & ~student, student & ~teacher


def _largest(scores: Sequence[Tensor]) -> Tensor:
    """Who has the largest of some (n,) scores, the first one in a tie."""
    return _choose(torch.stack(list(scores), dim=1).max(dim=1).indices, len(scores))


def _choose(source: Tensor, count: int = 2) -> Tensor:
    return F.one_hot(source, count).float()


def _known(said: SampleStats | None) -> SampleStats:
    assert said is not None, "the method does not say that it needs this source"
    return said
