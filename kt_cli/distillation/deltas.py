"""What a transfer changed, from who was right on which evaluation image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kt_cli.errors import signed, some_of
from kt_cli.knowledge.significance import mcnemar, percent
from kt_cli.rows.schema import TOP_PERCENTS

CLASSES_NAMED = 4
ROUNDING = 1e-9  # of shares of images in points
Right = NDArray[np.bool_]
Counts = NDArray[np.integer]


def transfer_outcome(
    teachers: Right, before: Right, after: Right, labels: Counts, num_classes: int
) -> dict[str, Any]:
    """The result columns of a transfer row (docs/methods.md, Section 2).

    Args:
        teachers: (K, n) whether each teacher has each evaluation image right. What several
            teachers know together is what any of them has right.
        before, after: (n,) the same of the student before and after transfer.

    Returns:
        Percentages by column name. Δ = gain − loss holds exactly in counts. The transfer rate is
        strict: the teacher right and the student wrong before, right after. None where the
        teacher knows nothing that the student does not.
    """
    teacher = teachers.any(axis=0)
    known, gained, lost = teacher & ~before, after & ~before, before & ~after
    counts = {
        "teacher_acc": teacher, "student_acc": before, "after_acc": after,
        "gain": gained, "loss": lost,
        "pos_flips": known, "neg_flips": before & ~teacher,
        "pos_flips_after": teacher & ~after, "neg_flips_after": after & ~teacher,
    }  # fmt: skip
    sums = {name: int(mask.sum()) for name, mask in counts.items()}
    n = len(before)
    return {
        **{name: percent(count, n) for name, count in sums.items()},
        "acc_diff": percent(sums["teacher_acc"] - sums["student_acc"], n),
        "delta": percent(sums["gain"] - sums["loss"], n),
        "transfer_p": float(mcnemar(sums["gain"], sums["loss"])),
        "transfer_rate": _percent(known & after, known),
        "teacher_accs": [percent(int(one.sum()), n) for one in teachers],
        "teacher_rates": [_percent(one & ~before & after, one & ~before) for one in teachers],
        **_by_class(known, known & after, gained, labels, num_classes),
    }


def flips_by_class(before: Right, after: Right, labels: Counts, num_classes: int) -> dict[str, Any]:
    """Gains and losses of each class, in label order."""
    return {
        "gain_by_class": np.bincount(labels[after & ~before], minlength=num_classes).tolist(),
        "loss_by_class": np.bincount(labels[before & ~after], minlength=num_classes).tolist(),
    }


def lost_beyond(
    before: Right, after: Right, labels: Counts, classes: Sequence[str],
    points: float | None, class_points: float | None,
) -> str | None:  # fmt: skip
    """What a student lost beyond limits in points, in words; None where it did not.

    Args:
        before, after: (n,) whether it has each image right. labels: (n,) indices into `classes`.
        points, class_points: limits of Δ, and of each class's Δ over its own images; None for none.
    """
    change = after.astype(int) - before
    found = [] if points is None else [("Δ", percent(int(change.sum()), len(change)), points)]
    if class_points is not None:
        totals = np.bincount(labels, change, len(classes))
        deltas = 100 * totals / np.bincount(labels, minlength=len(classes)).clip(1)
        found += [(classes[i], float(deltas[i]), class_points) for i in np.argsort(deltas)]
    said = [f"{what} {signed(d)}" for what, d, allowed in found if d < -allowed - ROUNDING]
    return f"{some_of(said, CLASSES_NAMED)} points" if said else None


def _by_class(
    known: Right, learned: Right, gained: Right, labels: Counts, num_classes: int
) -> dict[str, Any]:
    masks = (known, learned, gained)
    flips, learned_of, gains = (np.bincount(labels[m], minlength=num_classes) for m in masks)
    found: dict[str, Any] = {"gain_entropy": _entropy(gains)}
    for p in TOP_PERCENTS:
        top = top_classes(flips, p)
        found[f"top{p}_rate"] = _percent(top @ learned_of, top @ flips)
        found[f"top{p}_gain_share"] = _percent(top @ gains, gains) if flips.any() else None
    return found


def top_classes(flips: Counts, percent: int) -> NDArray[np.float64]:
    """Weights (C,) of the fewest classes that hold at least `percent` of the flips (C,).

    Where classes tie for the last places, each has its chance: sums over the weights are means
    over all ways to choose among them.
    """
    ranked = np.sort(flips)[::-1].cumsum()
    size = int(np.searchsorted(ranked, -(-int(flips.sum()) * percent // 100))) + 1
    least = np.sort(flips)[::-1][min(size, len(flips)) - 1]
    above, tied = flips > least, flips == least
    return np.asarray(above + tied * ((size - above.sum()) / tied.sum()))


def _entropy(counts: Counts) -> float | None:
    """In nats; None where nothing is counted."""
    if not counts.any():
        return None
    shares = counts[counts > 0] / counts.sum()
    return max(0.0, float(-(shares * np.log(shares)).sum()))


def _percent(part: NDArray[Any], whole: NDArray[Any]) -> float | None:
    return float(percent(part.sum(), whole.sum())) if whole.any() else None
