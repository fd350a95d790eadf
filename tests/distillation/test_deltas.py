"""What a transfer changed, against counts by hand."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, entropy

from kt_cli.distillation.deltas import flips_by_class, lost_beyond, top_classes, transfer_outcome
from kt_cli.rows.schema import TOP_PERCENTS

CLASSES = 4
# Of each image: which of two teachers, the student before and the student after are right; label.
Sample = tuple[bool, bool, bool, bool, int]
samples_of_images = st.lists(
    st.tuples(*[st.booleans()] * 4, st.integers(0, CLASSES - 1)), min_size=1, max_size=60
)


def columns(samples: list[Sample]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    first, second, before, after, labels = (np.array(c) for c in zip(*samples, strict=True))
    return np.stack([first, second]), before, after, labels


def share(part: int, whole: int) -> object:
    return pytest.approx(100 * part / whole) if whole else None


@given(samples_of_images)
def test_outcome_of_one_teacher_by_hand(samples: list[Sample]) -> None:
    teachers, before, after, labels = columns(samples)
    found = transfer_outcome(teachers[:1], before, after, labels, CLASSES)
    n = len(samples)
    gain = sum(a and not b for _, _, b, a, _ in samples)
    loss = sum(b and not a for _, _, b, a, _ in samples)
    known = sum(t and not b for t, _, b, _, _ in samples)
    learned = sum(t and not b and a for t, _, b, a, _ in samples)
    assert found["gain"] == pytest.approx(100 * gain / n)
    assert found["loss"] == pytest.approx(100 * loss / n)
    assert found["pos_flips"] == pytest.approx(100 * known / n)
    assert found["transfer_rate"] == share(learned, known)
    assert found["transfer_p"] == pytest.approx(
        binomtest(gain, gain + loss).pvalue if gain + loss else 1
    )
    assert found["delta"] == pytest.approx(found["after_acc"] - found["student_acc"])
    assert found["delta"] == pytest.approx(found["gain"] - found["loss"])
    assert found["acc_diff"] == pytest.approx(found["pos_flips"] - found["neg_flips"])


@given(samples_of_images)
def test_several_teachers_know_what_any_of_them_knows(samples: list[Sample]) -> None:
    teachers, before, after, labels = columns(samples)
    found = transfer_outcome(teachers, before, after, labels, CLASSES)
    known = [(one or two) and not b for one, two, b, _, _ in samples]
    learned = [k and a for k, (_, _, _, a, _) in zip(known, samples, strict=True)]
    assert found["pos_flips"] == pytest.approx(100 * sum(known) / len(samples))
    assert found["transfer_rate"] == share(sum(learned), sum(known))
    for k in range(2):
        right = sum(s[k] for s in samples)
        mine = [s for s in samples if s[k] and not s[2]]
        assert found["teacher_accs"][k] == pytest.approx(100 * right / len(samples))
        assert found["teacher_rates"][k] == share(sum(s[3] for s in mine), len(mine))


@given(samples_of_images)
def test_classes_by_hand(samples: list[Sample]) -> None:
    teachers, before, after, labels = columns(samples)
    found = transfer_outcome(teachers[:1], before, after, labels, CLASSES)
    gains = Counter(y for _, _, b, a, y in samples if a and not b)
    losses = Counter(y for _, _, b, a, y in samples if b and not a)
    flips = Counter(y for t, _, b, _, y in samples if t and not b)
    learned = Counter(y for t, _, b, a, y in samples if t and not b and a)
    assert flips_by_class(before, after, labels, CLASSES) == {
        "gain_by_class": [gains[c] for c in range(CLASSES)],
        "loss_by_class": [losses[c] for c in range(CLASSES)],
    }
    wanted = pytest.approx(entropy(list(gains.values())), abs=1e-9) if gains else None
    assert found["gain_entropy"] == wanted
    for p in TOP_PERCENTS:
        top = by_all_choices([flips[c] for c in range(CLASSES)], p)
        rate = sum(top[c] * learned[c] for c in range(CLASSES))
        gained = sum(top[c] * gains[c] for c in range(CLASSES))
        whole = sum(top[c] * flips[c] for c in range(CLASSES))
        assert found[f"top{p}_rate"] == (pytest.approx(100 * rate / whole) if flips else None)
        has_share = flips and gains
        assert found[f"top{p}_gain_share"] == (
            pytest.approx(100 * gained / sum(gains.values())) if has_share else None
        )


def by_all_choices(flips: list[int], percent: int) -> list[float]:
    """How often each class is among the fewest that hold enough, over all ways to choose them."""
    ranked, enough = sorted(flips, reverse=True), sum(flips) * percent
    size = next(k for k in range(1, len(flips) + 1) if 100 * sum(ranked[:k]) >= enough)
    chosen = [
        set(some)
        for some in combinations(range(len(flips)), size)
        if sum(flips[c] for c in some) == sum(ranked[:size])
    ]
    return [sum(c in some for some in chosen) / len(chosen) for c in range(len(flips))]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=7), st.sampled_from([2, 5, 20, 50, 100]))
def test_top_classes_are_the_mean_over_all_ways_to_break_ties(
    flips: list[int], percent: int
) -> None:
    found = top_classes(np.array(flips), percent)
    np.testing.assert_allclose(found, by_all_choices(flips, percent), atol=1e-12)
    assert math.isclose(found.sum(), round(found.sum()), abs_tol=1e-9)


# --- limits --------------------------------------------------------------------------------------


def test_what_was_lost_beyond_the_limits_in_words() -> None:
    labels = np.repeat([0, 1, 2], [10, 20, 10])
    before, after = np.ones(40, dtype=bool), np.ones(40, dtype=bool)
    after[[0, 1, 10]] = False  # two of ten, one of twenty: Δ −20, −5, 0, and −7.5 of all
    names = ("cat", "dog", "eel")
    said = [lost_beyond(before, after, labels, names, *limits) for limits in (
        (None, None), (7.5, 20.0), (7.4, None), (None, 19.9), (0.0, 0.0), (8.0, 4.9),
    )]  # fmt: skip
    assert said == [
        None, None, "Δ −7.50 points", "cat −20.00 points",
        "Δ −7.50, cat −20.00, dog −5.00 points", "cat −20.00, dog −5.00 points",
    ]  # fmt: skip


@given(samples_of_images)
def test_no_loss_where_nothing_changes_and_a_limit_of_zero_is_a_negative_delta(
    samples: list[Sample],
) -> None:
    _, before, after, labels = columns(samples)
    names = [str(label) for label in range(CLASSES)]
    assert lost_beyond(before, before, labels, names, 0.0, 0.0) is None
    lost = lost_beyond(before, after, labels, names, 0.0, None)
    assert (lost is not None) == (int(after.sum()) < int(before.sum()))
