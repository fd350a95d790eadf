"""Statistics of all ordered pairs of models, from matrix operations (docs/methods.md, Section 1).

A matrix [t, s] is about teacher t and student s. Shares are in percent. Nothing here loops over
samples or pairs: flips come from products of 0/1 matrices (exact in float32 up to 2²⁴ samples),
and memory is bounded by working on blocks of teachers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from kt_cli.schema import TOP_PERCENTS

Matrix = NDArray[np.float64]
BLOCK_ELEMENTS = 32_000_000


@dataclass(frozen=True)
class Outputs:
    """Predictions of M models on the same n samples of C classes.

    labels: (n,) int64. preds: (M, n) int64. confidence: (M, n) float32.
    """

    labels: NDArray[np.int64]
    preds: NDArray[np.int64]
    confidence: NDArray[np.float32]
    num_classes: int

    @property
    def right(self) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = self.preds == self.labels
        return right


def pair_blocks(outputs: Outputs) -> Iterator[tuple[slice, dict[str, Matrix]]]:
    """Statistics for consecutive blocks of teachers, each as (b, M) matrices by column name."""
    right = torch.from_numpy(outputs.right).float()
    models = len(right)
    size = max(1, BLOCK_ELEMENTS // (models * outputs.num_classes))
    for start in range(0, models, size):
        rows = slice(start, min(start + size, models))
        yield rows, _block(outputs, right, rows)


def all_pairs(outputs: Outputs) -> dict[str, Matrix]:
    """`pair_blocks` put together: (M, M) matrices by column name."""
    blocks = [block for _, block in pair_blocks(outputs)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _block(outputs: Outputs, right: Tensor, rows: slice) -> dict[str, Matrix]:
    n = right.shape[1]
    by_class = flips_by_class(right[rows], right, outputs.labels, outputs.num_classes)
    positive = by_class.sum(dim=2).double().numpy()
    accuracy = right.double().sum(dim=1).numpy()
    difference = accuracy[rows, None] - accuracy[None]
    negative = positive - difference
    shares = {
        "teacher_acc": np.broadcast_to(accuracy[rows, None], positive.shape),
        "student_acc": np.broadcast_to(accuracy[None], positive.shape),
        "acc_diff": difference,
        "pos_flips": positive,
        "neg_flips": negative,
        "oracle_acc": accuracy[None] + positive,
        "agreement": _agreement(outputs.preds, rows),
        "confident_acc": _most_confident(outputs, rows),
    }
    return {
        **{name: 100 / n * counts for name, counts in shares.items()},
        "kappa": kappa(positive, negative, accuracy[rows, None], accuracy[None], n),
        "mcnemar_p": mcnemar(positive, negative),
        "flip_entropy": flip_entropy(by_class),
        **{f"top{p}_classes": top_classes(by_class, p) for p in TOP_PERCENTS},
    }


def flips_by_class(
    teachers: Tensor, students: Tensor, labels: NDArray[np.int64], num_classes: int
) -> Tensor:
    """Positive flips counted by label.

    Args:
        teachers, students: (T, n) and (S, n) float 0/1, whether each sample is right.
        labels: (n,) int64.

    Returns:
        (T, S, C) float32 counts.
    """
    order = np.argsort(labels, kind="stable")
    edges = np.searchsorted(labels[order], np.arange(num_classes + 1))
    right, wrong = teachers[:, order], 1 - students[:, order]
    counts = torch.zeros(num_classes, len(teachers), len(students))
    for c in range(num_classes):
        inside = slice(int(edges[c]), int(edges[c + 1]))
        torch.mm(right[:, inside], wrong[:, inside].T, out=counts[c])
    return counts.permute(1, 2, 0)


def flip_entropy(by_class: Tensor) -> Matrix:
    """Entropy of flips (…, C) over classes in nats; uniform is ln C. NaN where nothing flips."""
    counts = by_class.double()
    total = counts.sum(dim=-1)
    weighted = torch.special.xlogy(counts, counts).sum(dim=-1)
    entropy = total.log() - weighted / total
    result: Matrix = torch.where(total > 0, entropy.clamp_min(0), torch.nan).numpy()
    return result


def top_classes(by_class: Tensor, percent: float) -> Matrix:
    """The smallest number of classes that hold at least `percent` of the flips (…, C).

    Classes are taken by flips, descending. NaN where nothing flips. (The authors' code counts
    one class more than this definition of theirs.)
    """
    cumulated = by_class.sort(dim=-1, descending=True).values.double().cumsum(dim=-1)
    total = cumulated[..., -1]
    # In integers, so that a threshold that is met exactly is met.
    short = (100 * cumulated < percent * total[..., None]).sum(dim=-1)
    result: Matrix = torch.where(total > 0, short.double() + 1, torch.nan).numpy()
    return result


def kappa(positive: Matrix, negative: Matrix, right_t: Matrix, right_s: Matrix, n: int) -> Matrix:
    """Error consistency (Geirhos et al., 2020): Cohen's κ on correctness, from counts.

    NaN where the agreement expected by chance is complete (both always right, or always wrong).
    """
    observed = 1 - (positive + negative) / n
    expected = (right_t * right_s + (n - right_t) * (n - right_s)) / n**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)


def mcnemar(positive: Any, negative: Any) -> Matrix:
    """McNemar's exact test on discordant counts: two-sided binomial p-values with p = ½."""
    positive, negative = np.asarray(positive), np.asarray(negative)
    tail = binom.cdf(np.minimum(positive, negative), positive + negative, 0.5)
    result: Matrix = np.minimum(1.0, 2 * tail)
    return result


def _agreement(preds: NDArray[np.int64], rows: slice) -> Matrix:
    """Numbers of equal predictions, (b, M)."""
    compact = preds.astype(np.int16 if preds.max(initial=0) < 2**15 else np.int32)
    return np.stack([(compact == teacher).sum(axis=1) for teacher in compact[rows]]).astype(float)


def _most_confident(outputs: Outputs, rows: slice) -> Matrix:
    """Numbers of samples that the more confident of the two has right; a tie is the student's."""
    right, confidence = outputs.right, outputs.confidence
    return np.stack(
        [
            np.where(confidence[t] > confidence, right[t], right).sum(axis=1)
            for t in range(len(right))[rows]
        ]
    ).astype(float)


def mean_probability_accuracy(
    logits: list[NDArray[np.float16]], labels: NDArray[np.int64]
) -> float:
    """Top-1 in percent of the mean of the models' probabilities; logits: each (n, C)."""
    total = torch.zeros(logits[0].shape)
    for values in logits:
        total += torch.from_numpy(values.astype(np.float32)).softmax(dim=1)
    return float(100 * (total.argmax(dim=1).numpy() == labels).mean())
