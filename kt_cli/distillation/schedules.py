"""How a model of a zoo is optimised: names, and the learning rate over a training. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable

STEPS = 3  # of the schedule "step"

# From the share of the updates after warm-up that are done to a factor of the peak.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "step": lambda done: 0.1 ** min(STEPS - 1, int(STEPS * done)),
    "constant": lambda done: 1.0,
}


def lr_factor(update: int, updates: int, schedule: str, warmup: float) -> float:
    """The learning rate of an update, counted from 0, as a share of its peak.

    Args:
        updates: of the whole training.
        schedule: a name of SCHEDULES; what comes after warm-up, towards zero at the end.
        warmup: share of the updates in which the rate rises linearly; the last has the peak.
    """
    warm = round(warmup * updates)
    if update < warm:
        return (update + 1) / warm
    return SCHEDULES[schedule](min(1.0, (update - warm) / max(1, updates - warm)))
