"""Contrastive representation distillation (CRD; Tian et al., 2020, Section 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIMENSIONS, NEGATIVES = 128, 4096
TEMPERATURE, MOMENTUM = 0.07, 0.5
EPS = 1e-7


class Contrast(nn.Module):
    """Student and teacher embeddings, and memories of what they were for n training images.

    Negatives of a sample are images of other classes. The embeddings, of features with student_dim
    and teacher_dim values, are trained with the student.
    """

    student_memory: Tensor
    teacher_memory: Tensor
    normaliser: Tensor
    by_class: Tensor
    starts: Tensor
    counts: Tensor

    def __init__(
        self, student_dim: int, teacher_dim: int, labels: Tensor, seed: int,
        negatives: int = NEGATIVES,
    ) -> None:  # fmt: skip
        super().__init__()
        n, self.negatives = len(labels), negatives
        generator = torch.Generator().manual_seed(seed)
        self.student_embedding = _linear(student_dim, generator)
        self.teacher_embedding = _linear(teacher_dim, generator)
        for name in ("student_memory", "teacher_memory"):
            self.register_buffer(name, _uniform((n, DIMENSIONS), DIMENSIONS / 3, generator))
        # Z of the student's and of the teacher's side: estimated on the first batch, as there.
        self.register_buffer("normaliser", torch.zeros(2))
        counts = torch.bincount(labels.cpu())
        self.register_buffer("by_class", labels.cpu().argsort(stable=True), persistent=False)
        self.register_buffer("starts", counts.cumsum(0) - counts, persistent=False)
        self.register_buffer("counts", counts, persistent=False)

    def forward(self, student: Tensor, teacher: Tensor, indices: Tensor, labels: Tensor) -> Tensor:
        """The loss of both sides for features (b, d), (b, e) of the images `indices` (b,)."""
        chosen = torch.cat([indices[:, None], self.draw(labels)], dim=1)
        # exp(1 / 0.07) is more than half precision holds.
        with torch.autocast(student.device.type, enabled=False):
            mine = F.normalize(self.student_embedding(student.float()), dim=1)
            its = F.normalize(self.teacher_embedding(teacher.float()), dim=1)
            loss = self._side(0, mine, self.teacher_memory, chosen)
            loss = loss + self._side(1, its, self.student_memory, chosen)
            self._remember(self.student_memory, indices, mine)
            self._remember(self.teacher_memory, indices, its)
            return loss

    def draw(self, labels: Tensor) -> Tensor:
        """(b, K) images of other classes than `labels`, with replacement."""
        n = len(self.by_class)
        start, count = self.starts[labels][:, None], self.counts[labels][:, None]
        others = (n - count).clamp_min(1)
        draws = torch.rand(len(labels), self.negatives, device=labels.device)
        place = (draws * others).long().minimum(others - 1)
        place = torch.where(place < start, place, place + count)
        return self.by_class[place.clamp_max(n - 1)]

    def _side(self, side: int, embedded: Tensor, memory: Tensor, chosen: Tensor) -> Tensor:
        """Noise-contrastive loss of one side (Eq. 18 there), the positive in the first column."""
        # A product with the whole memory is smaller than the vectors of so many negatives.
        scores = (embedded @ memory.clone().T).gather(1, chosen).div(TEMPERATURE).exp()
        n, k = len(memory), chosen.shape[1] - 1
        with torch.no_grad():
            unset = self.normaliser[side] == 0
            self.normaliser[side] = torch.where(unset, scores.mean() * n, self.normaliser[side])
        scores = scores / self.normaliser[side].clone()
        noise = k / n
        positive = torch.log(scores[:, 0] / (scores[:, 0] + noise + EPS))
        negative = torch.log(noise / (scores[:, 1:] + noise + EPS))
        return -(positive.sum() + negative.sum()) / len(chosen)

    @torch.no_grad()
    def _remember(self, memory: Tensor, indices: Tensor, embedded: Tensor) -> None:
        mixed = MOMENTUM * memory[indices] + (1 - MOMENTUM) * embedded
        memory[indices] = F.normalize(mixed, dim=1)


def _linear(size: int, generator: torch.Generator) -> nn.Linear:
    """torch's own initialisation, from a generator of its own."""
    layer = nn.Linear(size, DIMENSIONS)
    with torch.no_grad():
        for parameter in (layer.weight, layer.bias):
            parameter.copy_(_uniform(parameter.shape, size, generator))
    return layer


def _uniform(shape: Sequence[int], size: float, generator: torch.Generator) -> Tensor:
    """Within ± 1 / √size."""
    bound = 1 / math.sqrt(size)
    return torch.rand(shape, generator=generator) * 2 * bound - bound
