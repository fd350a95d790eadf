"""What a transfer changed, from who was right on which evaluation image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kt_cli.complementarity.significance import mcnemar

Right = NDArray[np.bool_]


def transfer_outcome(teacher: Right, before: Right, after: Right) -> dict[str, float | None]:
    """The result columns of a transfer row (docs/methods.md, Section 2).

    Args:
        teacher, before, after: (n,) whether the teacher, the student before and the student
            after transfer have each evaluation image right.

    Returns:
        Percentages by column name. Δ = gain − loss holds exactly in counts. The transfer rate is
        strict: the teacher right and the student wrong before, right after. None where the
        teacher knows nothing that the student does not.
    """
    known, gained, lost = teacher & ~before, after & ~before, before & ~after
    counts = {
        "teacher_acc": teacher,
        "student_acc": before,
        "after_acc": after,
        "gain": gained,
        "loss": lost,
        "pos_flips": known,
        "neg_flips": before & ~teacher,
        "pos_flips_after": teacher & ~after,
        "neg_flips_after": after & ~teacher,
    }
    sums = {name: int(mask.sum()) for name, mask in counts.items()}
    percent = 100 / len(before)
    return {
        **{name: percent * count for name, count in sums.items()},
        "acc_diff": percent * (sums["teacher_acc"] - sums["student_acc"]),
        "delta": percent * (sums["gain"] - sums["loss"]),
        "transfer_p": float(mcnemar(sums["gain"], sums["loss"])),
        "transfer_rate": 100 * int((known & after).sum()) / sums["pos_flips"]
        if sums["pos_flips"]
        else None,
    }
