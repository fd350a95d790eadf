"""Losses on logits (b, C), averaged over the batch. Targets carry no gradient."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def distillation(student: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """T²/b Σ_i KL(σ(target_i/T) ‖ σ(student_i/T)) (Hinton et al., 2015; the paper's Eq. 2)."""
    log_q = F.log_softmax(target.detach() / temperature, dim=1)
    log_p = F.log_softmax(student / temperature, dim=1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True) * temperature**2


def cross_entropy(student: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits (b, C) against labels (b,)."""
    return F.cross_entropy(student, labels)
