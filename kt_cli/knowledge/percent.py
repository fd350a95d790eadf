"""Figures from counts of images, computed in one way, so that equal counts are equal figures."""

from __future__ import annotations

from typing import Any

import numpy as np


def percent(count: Any, n: int) -> Any:
    """What part of n images a count is, in percent; of arrays each element.

    Whole counts are multiplied before they are divided, so that the result is rounded once.
    """
    return 100 * count / n


def kappa(positive: Any, negative: Any, right_t: Any, right_s: Any, n: int) -> Any:
    """Error consistency (Geirhos et al., 2020): Cohen's κ on correctness, from counts.

    NaN where the agreement expected by chance is complete (both always right, or always wrong).
    """
    observed = 1 - (positive + negative) / n
    expected = (right_t / n) * (right_s / n) + (1 - right_t / n) * (1 - right_s / n)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)
