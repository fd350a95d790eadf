"""Losses on logits (b, C), averaged over the batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class TopK:
    """A distribution over C classes as its K most probable ones and the mass of all others.

    classes: (n, K) integer. log_probs: (n, K) of these classes. log_rest: (n,) of all others.
    """

    classes: Tensor
    log_probs: Tensor
    log_rest: Tensor

    @classmethod
    def of(cls, logits: Tensor, k: int, temperature: float) -> TopK:
        """The K largest of σ(logits / T) for logits (n, C), K < C."""
        scaled = logits / temperature
        log_probs, classes = F.log_softmax(scaled, dim=1).topk(k, dim=1)
        return cls(classes, log_probs, _log_of_rest(scaled, classes))


def distillation(
    student: Tensor,
    target: Tensor | TopK,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    topk: int = 0,
) -> Tensor:
    """T²/b Σ_i w_i KL(σ(target_i/T) ‖ σ(student_i/T)) (Hinton et al., 2015; the paper's Eq. 2).

    Args:
        student: logits (b, C).
        target: logits (b, C), or their K most probable classes at the same temperature; the KL is
            then that of K + 1 events, the last one being any other class.
        weight: (b,) of each sample; None for one.
        topk: distil over the target's so many most probable classes only, renormalised; 0 for all.
    """
    if isinstance(target, TopK):
        log_q, log_p = _events(student, target, temperature, topk)
    else:
        if 0 < topk < target.shape[1]:
            target, classes = target.topk(topk, dim=1)
            student = student.gather(1, classes)
        log_q = F.log_softmax(target / temperature, dim=1)
        log_p = F.log_softmax(student / temperature, dim=1)
    divergence = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(dim=1)
    if weight is not None:
        divergence = divergence * weight
    return divergence.mean() * temperature**2


def _events(student: Tensor, target: TopK, temperature: float, topk: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities (b, K + 1), or (b, topk) renormalised, of the target and the student."""
    if topk:
        classes = target.classes[:, :topk].long()
        log_q = F.log_softmax(target.log_probs[:, :topk].to(student.dtype), dim=1)
        return log_q, F.log_softmax(student.gather(1, classes) / temperature, dim=1)
    classes = target.classes.long()
    scaled = student / temperature
    log_p = F.log_softmax(scaled, dim=1).gather(1, classes)
    log_q = torch.cat([target.log_probs, target.log_rest[:, None]], dim=1).to(log_p.dtype)
    return log_q, torch.cat([log_p, _log_of_rest(scaled, classes)[:, None]], dim=1)


def _log_of_rest(logits: Tensor, classes: Tensor) -> Tensor:
    """Log-probability (n,) of all but some classes (n, K); one minus theirs would be only noise."""
    others = torch.full_like(logits, 0).scatter(1, classes, float("-inf"))
    return (logits + others).logsumexp(dim=1) - logits.logsumexp(dim=1)


def double_softmax_cross_entropy(student: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy that takes σ(logits (b, C)) for logits, as the authors' code has it.

    There label smoothing mixes σ(logits), not the label, with the uniform distribution; to a
    softmax the latter is a constant.
    """
    return F.cross_entropy((1 - label_smoothing) * student.softmax(dim=1), labels)


def full(values: Tensor) -> Tensor:
    """Half precision as single; all else as it is."""
    if not values.is_floating_point():
        return values
    return values.to(torch.promote_types(values.dtype, torch.float32))


def similarity(student: Tensor, target: Tensor) -> Tensor:
    """Σ_ij KL of the batch's similarities: rows of σ(cosines), target against student.

    Args:
        student, target: features (b, d) and (b, e), or logits.
    """
    with torch.autocast(student.device.type, enabled=False):  # cosines near 1 differ in late digits
        normalised = (F.normalize(full(one), dim=1) for one in (target.detach(), student))
        log_q, log_p = (F.log_softmax(one @ one.T, dim=1) for one in normalised)
        return F.kl_div(log_p, log_q, reduction="sum", log_target=True)
