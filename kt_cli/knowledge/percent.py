"""Counts of images in percent, computed in one way, so that equal counts are equal figures."""

from __future__ import annotations

from typing import Any


def percent(count: Any, n: int) -> Any:
    """What part of n images a count is, in percent; of arrays each element.

    Whole counts are multiplied before they are divided, so that the result is rounded once.
    """
    return 100 * count / n
