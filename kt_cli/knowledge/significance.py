"""Counts of right answers: in percent, and whether they are more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr, ndtri

Values = NDArray[np.float64]
SIGNIFICANT = 0.05  # p-values below


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


def mcnemar(positive: Any, negative: Any) -> Values:
    """McNemar's exact test on discordant counts: two-sided binomial p-values with p = ½.

    Args:
        positive, negative: whole numbers of any equal shape.
    """
    fewer = np.minimum(positive, negative).astype(np.int64)
    total = np.add(positive, negative).astype(np.int64)
    result: Values = np.minimum(1.0, 2 * bdtr(fewer, total, 0.5))
    return result


def least_seen(changed: int) -> int:
    """The least surplus of gains over losses, in images, that `mcnemar` finds if `changed` differ.

    Of so few images that it never does: of the fewest that would do.
    """
    total = changed
    while mcnemar(total, 0) >= SIGNIFICANT:
        total += 1
    surplus = np.arange(total % 2, total + 1, 2)
    seen = mcnemar((total + surplus) // 2, (total - surplus) // 2) < SIGNIFICANT
    return int(surplus[seen.argmax()])


def images_changed(row: Mapping[str, Any]) -> tuple[int, int]:
    """Images gained and lost by a transfer, of whose row gain and loss are in percent."""
    gained, lost = (round(row["n"] * row[what] / 100) for what in ("gain", "loss"))
    return gained, lost


def verdict(gained: int, lost: int, n: int) -> str:
    """What so many images gained and lost of n mean, in words without an end."""
    changed, delta = gained + lost, percent(gained - lost, n)
    if not changed:
        return f"no change: all {n:,} images are right or wrong as before"
    if (p := float(mcnemar(gained, lost))) < SIGNIFICANT:
        what = "gain" if delta > 0 else "loss"
        return f"a significant {what} of {abs(delta):.2f} points (p = {p:.2g} on {n:,} images)"
    return (
        f"no significant change; with {n:,} images, of which {changed:,} changed, a Δ of "
        f"±{percent(least_seen(changed), n):.2f} could be seen"
    )


def holm(p_values: Values) -> Values:
    """Holm's step-down correction of one family of p-values, of any shape; NaN stays out of it."""
    flat = np.asarray(p_values, np.float64).ravel()
    order = np.argsort(flat, kind="stable")  # NaN comes last
    family = np.count_nonzero(~np.isnan(flat))
    adjusted = np.full(flat.shape, np.nan)
    steps = flat[order[:family]] * np.arange(family, 0, -1)
    adjusted[order[:family]] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted.reshape(np.shape(p_values))


def wilson(right: Any, n: int) -> tuple[Values, Values]:
    """Wilson's 95% interval of the share right / n, as its lower and upper ends in [0, 1]."""
    z = float(ndtri(1 - SIGNIFICANT / 2))
    share = np.asarray(right, np.float64) / n
    middle = share + z**2 / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    return np.maximum(0.0, (middle - half) / scale), np.minimum(1.0, (middle + half) / scale)


def paired_above(gained: Any, lost: Any, n: int, difference: Any) -> Values:
    """p-value of gains less losses being a share of at most `difference` of n paired images.

    Tango's score test (Statistics in Medicine 17, 1998), one-sided; McNemar's where `difference`
    is 0. Non-inferior by a margin is what is above minus that.

    Args:
        gained, lost: counts of discordant images, of any equal shape. difference: in (-1, 1).
    """
    up, down, d = (np.asarray(one, np.float64) for one in (gained, lost, difference))
    # The likeliest share q of losses where the difference is d: 2n q² + b q − down · d (1 − d) = 0.
    b = 2 * d * (n - up) - (up + down) * (1 - d)
    q = (np.sqrt(np.maximum(0.0, b * b + 8 * n * down * d * (1 - d))) - b) / (4 * n)
    spread = np.sqrt(np.maximum(n * (2 * q + d * (1 - d)), np.finfo(np.float64).tiny))
    p: Values = ndtr((n * d - (up - down)) / spread)
    return p


def paired_bound(gained: Any, lost: Any, n: int) -> Values:
    """Lower bound of the share of gains less losses: the least that `paired_above` lets be."""
    high: Values = np.subtract(gained, lost) / n
    low: Values = np.full_like(high, -1.0)
    for _ in range(50):
        middle = (low + high) / 2
        out = paired_above(gained, lost, n, middle) <= SIGNIFICANT
        low, high = np.where(out, middle, low), np.where(out, high, middle)
    return low
