"""Statistics of all ordered pairs of models, from matrix operations (docs/methods.md, Section 1).

A matrix [t, s] is about teacher t and student s. Shares are in percent. Nothing here loops over
samples, and memory is bounded by working on blocks of teachers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kt_cli.knowledge.class_similarity import ClassEmbedding
from kt_cli.knowledge.flips import FlipCounter
from kt_cli.knowledge.significance import kappa, mcnemar, percent
from kt_cli.progress import Progress, silent
from kt_cli.rows.schema import TOP_PERCENTS

Matrix = NDArray[np.float64]
BLOCK = 16_000_000  # counts whose products are taken at once
PART = 2_000_000  # counts that a thread works on: as many as stay in reused memory
AGREEMENT = "compare predictions"
TINY = np.finfo(np.float32).smallest_subnormal


@dataclass(frozen=True)
class Outputs:
    """What M models say about the same n samples of C classes.

    labels: (n,) integer, the class that a sample counts for. right: (M, n) bool.
    preds: (M, n) integer. confidence: (M, n) float32; a row of NaN where it is not known.
    """

    labels: NDArray[np.integer]
    right: NDArray[np.bool_]
    preds: NDArray[np.integer]
    confidence: NDArray[np.float32]
    num_classes: int


def pair_blocks(
    outputs: Outputs,
    embedding: ClassEmbedding | None = None,
    *,
    by_class: bool = False,
    progress: Progress = silent,
) -> Iterator[tuple[slice, dict[str, Any]]]:
    """Statistics for consecutive blocks of b teachers, each as (b, M) matrices by column name.

    Args:
        embedding: of the classes; without it the similarities of classes are NaN.
        by_class: also `flips_by_class`, (b, M, C) int32.
    """
    n = len(outputs.labels)
    equal = percent(agreement(outputs.preds, progress), n)
    confident = percent(most_confident(outputs.right, outputs.confidence), n)
    for rows, found in flip_blocks(outputs, embedding, by_class=by_class):
        yield rows, {**found, "agreement": equal[rows], "confident_acc": confident[rows]}
        progress(rows.stop, len(outputs.right), "statistics of pairs")


def flip_blocks(
    outputs: Outputs, embedding: ClassEmbedding | None = None, *, by_class: bool = False
) -> Iterator[tuple[slice, dict[str, Any]]]:
    """As `pair_blocks`, all that follows from who is right: without agreement and confidence.

    Products are taken for a block of teachers at once, into the same memory; what follows from
    them is computed in smaller parts, on as many threads as torch has: NumPy uses only one.
    """
    models, classes = len(outputs.right), outputs.num_classes
    accuracy = outputs.right.sum(axis=1, dtype=np.int64)
    counter = FlipCounter(outputs.right, outputs.labels, classes)
    size, part = (max(1, elements // (models * classes)) for elements in (BLOCK, PART))

    def statistics(both: Tensor, first: int, rows: slice) -> dict[str, Any]:
        inside = slice(rows.start - first, rows.stop - first)
        counts = counter.flips_of(both[:, inside], rows)
        found = {
            **_shares(accuracy, counts.sum(axis=2), rows, len(outputs.labels)),
            **by_class_statistics(counts, embedding),
        }
        return found | ({"flips_by_class": counts} if by_class else {})

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start in range(0, models, size):
            rows = slice(start, min(start + size, models))
            both = counter.both_right(rows)
            parts = [slice(i, min(i + part, rows.stop)) for i in range(start, rows.stop, part)]
            found = list(pool.map(partial(statistics, both, start), parts))
            yield rows, {name: np.concatenate([f[name] for f in found]) for name in found[0]}


def all_pairs(outputs: Outputs, embedding: ClassEmbedding | None = None) -> dict[str, Matrix]:
    """`pair_blocks` put together: (M, M) matrices by column name."""
    blocks = [block for _, block in pair_blocks(outputs, embedding)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _shares(
    accuracy: NDArray[np.int64], positive: NDArray[np.int64], rows: slice, n: int
) -> dict[str, Matrix]:
    """What follows from the numbers of right answers, (M,), and of positive flips, (b, M)."""
    teacher, student = accuracy[rows, None], accuracy[None]
    negative = positive - (teacher - student)
    counts = {
        "teacher_acc": np.broadcast_to(teacher, positive.shape),
        "student_acc": np.broadcast_to(student, positive.shape),
        "acc_diff": teacher - student,
        "pos_flips": positive,
        "neg_flips": negative,
        "oracle_acc": student + positive,
    }
    return {
        **{name: percent(values, n) for name, values in counts.items()},
        "kappa": kappa(positive, negative, teacher, student, n),
        "mcnemar_p": mcnemar(positive, negative),
    }


# --- flips by class ------------------------------------------------------------------------------


def by_class_statistics(
    counts: NDArray[np.int32], embedding: ClassEmbedding | None = None
) -> dict[str, Matrix]:
    """Entropy, top-p% classes and their similarity, of flips by class (…, C)."""
    shape = counts.shape[:-1]
    flat = np.ascontiguousarray(counts.reshape(-1, counts.shape[-1]))
    ascending = np.sort(flat, axis=1)
    cumulated = torch.from_numpy(np.cumsum(ascending[:, ::-1], axis=1, dtype=np.int32))
    found, flipped = {"flip_entropy": _entropy(ascending)}, cumulated[:, -1] > 0
    tensors = torch.from_numpy(flat), torch.from_numpy(ascending)
    for top in TOP_PERCENTS:
        sizes, alike = _top_sizes(cumulated, top), f"top{top}_similarity"
        found[f"top{top}_classes"] = torch.where(flipped, sizes.double(), torch.nan).numpy()
        found[alike] = found[f"{alike}_pct"] = np.full(len(flat), np.nan)
        if embedding is not None:
            similarity = embedding.top_similarity(*tensors, sizes)
            found[alike] = similarity.numpy()
            found[f"{alike}_pct"] = embedding.percentile(similarity, sizes).numpy()
    return {name: values.reshape(shape) for name, values in found.items()}


def _entropy(counts: NDArray[np.int32]) -> Matrix:
    """Entropy of flips (P, C) over classes in nats; uniform is ln C. NaN where nothing flips."""
    # Counts are small whole numbers: a table is several times faster than logarithms.
    values = np.arange(int(counts.max(initial=0)) + 1, dtype=np.float64)
    weighted = (values * np.log(np.maximum(values, 1)))[counts].sum(axis=1)
    total = counts.sum(axis=1).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.log(total) - weighted / total
    return np.where(total > 0, np.maximum(entropy, 0.0), np.nan)


def _top_sizes(cumulated: Tensor, percent: int) -> Tensor:
    """The smallest number of classes that hold `percent` of the flips, 1 where nothing flips.

    cumulated: (P, C) flips by class, running sums from the largest.

    (The authors' code counts one class more than this definition of theirs.)
    """
    # In whole numbers, so that a threshold that is met exactly is met.
    wanted = -(-cumulated[:, -1:].long() * percent // 100)
    found = torch.searchsorted(cumulated, wanted.int())[:, 0]
    return found.clamp_max(cumulated.shape[1] - 1) + 1


# --- agreement and ceilings ----------------------------------------------------------------------


def agreement(preds: NDArray[np.integer], progress: Progress = silent) -> Matrix:
    """Numbers of equal predictions: (M, n) -> (M, M)."""

    def equal(t: int) -> list[Any]:
        return [np.count_nonzero(preds[t] == other) for other in preds[t + 1 :]]

    return _symmetric(equal, np.full(len(preds), preds.shape[1]), progress)


def most_confident(right: NDArray[np.bool_], confidence: NDArray[np.float32]) -> Matrix:
    """Numbers of samples that the more confident of two models has right: (M, n) -> (M, M).

    Where both are equally confident, each decides half of the time. NaN where a model's
    confidence is not known.
    """
    # Signed by correctness, the more confident is right exactly where the sum is positive.
    certain = np.maximum(confidence, TINY)  # 0 has no sign
    signed = np.where(right, certain, -certain)

    def better(t: int) -> list[Any]:
        opposite = -signed[t]
        return [(np.count_nonzero(other > opposite) + np.count_nonzero(other >= opposite)) / 2
                for other in signed[t + 1 :]]  # fmt: skip

    found = _symmetric(better, right.sum(axis=1))
    unknown = np.asarray(np.isnan(confidence).any(axis=1))
    found[unknown] = np.nan
    found[:, unknown] = np.nan
    return found


def _symmetric(
    above: Callable[[int], list[Any]], diagonal: NDArray[Any], progress: Progress = silent
) -> Matrix:
    """A symmetric matrix from its diagonal and the rows of what is above it."""
    found = np.diag(diagonal).astype(np.float64)
    for row in range(len(diagonal)):
        found[row, row + 1 :] = above(row)
        found[row + 1 :, row] = found[row, row + 1 :]
        progress(row + 1, len(diagonal), AGREEMENT)
    return found
