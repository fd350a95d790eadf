"""Who teaches which sample: masks (n,), True where the teacher does, else the frozen student.

Each function takes the teacher's and the frozen student's logits (n, C) and the labels (n,).
In a tie the frozen student teaches.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Partition = Callable[[Tensor, Tensor, Tensor], Tensor]


def everything(teacher: Tensor, frozen: Tensor, labels: Tensor) -> Tensor:
    """Plain distillation: the teacher teaches all samples."""
    return torch.ones(len(teacher), dtype=torch.bool, device=teacher.device)


def by_label(teacher: Tensor, frozen: Tensor, labels: Tensor) -> Tensor:
    """Supervised data partitioning: where the teacher gives the label more probability."""
    return label_probability(teacher, labels) > label_probability(frozen, labels)


def by_confidence(teacher: Tensor, frozen: Tensor, labels: Tensor) -> Tensor:
    """Unsupervised data partitioning: where the teacher's largest probability is larger."""
    return largest_probability(teacher) > largest_probability(frozen)


def label_probability(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]


def largest_probability(logits: Tensor) -> Tensor:
    return logits.softmax(dim=1).max(dim=1).values
