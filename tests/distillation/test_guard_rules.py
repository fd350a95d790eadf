"""The guard's rules, against scipy by hand, closed forms and simulation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from benchmarks import guard_lines, guards
from kt_cli.distillation.guard_rules import ALPHAS, RULES, Flips, Prior, Verdict, gain, safe, shrink
from kt_cli.knowledge.significance import paired_above

NOTHING = Prior.of([])
Ints = NDArray[np.integer]


def flips(gained: Any, lost: Any, n: int = 100) -> Flips:
    """The same at all places, where one number is given."""
    return Flips(*(np.broadcast_to(one, (10,)).astype(int) for one in (gained, lost)), n)


def upto(place: int, well: int, ill: int) -> Ints:
    """`well` for the first places, `ill` for the others."""
    return np.where(np.arange(10) < place, well, ill)


# --- gain ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("gained", [0, 1, 5, 8, 20, 45])
@pytest.mark.parametrize("lost", [0, 1, 4, 30])
def test_gain_is_the_exact_lower_bound_at_a_tenth_of_the_level(gained: int, lost: int) -> None:
    found, m = gain(flips(gained, lost), 0, NOTHING), gained + lost
    assert found.least == pytest.approx(least_by_hand(m, gain, 0))
    if m == 0:
        assert not found.score.any() and found.place == 0
        return
    test = binomtest(gained, m, alternative="greater")
    lowest = test.proportion_ci(confidence_level=1 - 0.05 / 10, method="exact").low
    assert found.score == pytest.approx(m / 100 * (2 * lowest - 1), abs=1e-9)
    assert found.p == pytest.approx(test.pvalue)


def least_by_hand(m: int, rule: Any, margin: float, n: int = 100) -> float:
    """The least Δ of the whole way that a rule lets go, if m images flip or the fewest it can."""
    for flipped in range(m, n + 1):
        for gained in range(flipped + 1):
            there = (
                np.where(np.arange(10) < 9, 0, gained),
                np.where(np.arange(10) < 9, 0, flipped - gained),
            )
            if rule(Flips(*there, n), margin, NOTHING).place == 10:
                return (2 * gained - flipped) / n
    return np.nan


def test_the_least_gain_that_can_be_seen_is_one_that_is() -> None:
    assert gain(flips(95, 5, 1000), 0, NOTHING).least == pytest.approx(0.028)
    assert gain(flips(0, 0, 1000), 0, NOTHING).least == pytest.approx(0.008)  # eight and no loss
    assert np.isnan(gain(flips(0, 0, 7), 0, NOTHING).least)
    many = gain(Flips(np.full((3, 10), 9), np.full((3, 10), 4), 100), 0, NOTHING)
    assert many.least is not None and many.least.shape == (3,)


def test_gain_accepts_exactly_where_mcnemar_rejects() -> None:
    signs = set()
    for gained, lost in itertools.product(range(40), range(0, 20, 3)):
        if gained + lost:
            p = binomtest(gained, gained + lost, alternative="greater").pvalue
            accepted = gain(flips(gained, lost), 0, NOTHING).place > 0
            assert accepted == (p < 0.05 / 10), (gained, lost)
            signs.add(p < 0.05 / 10)
    assert signs == {True, False}


def violations(draw: Callable[[np.random.Generator], Any], simulations: int = 500) -> float:
    """Share of simulations in which any of the ten bounds lies above what it bounds."""
    rng, bad = np.random.default_rng(0), 0
    for _ in range(simulations):
        seen, expected = draw(rng)
        bad += bool((gain(seen, 0, NOTHING).score > expected + 1e-12).any())
    return bad / simulations


N_GUARD, GAINING = 400, 0.6


def flipped(chance: NDArray[np.floating], rng: np.random.Generator) -> Any:
    """What ten students make of images; `chance` (10, n) tells which of them change.

    Given the m that change, each is a gain with the probability GAINING: so the expected share of
    gains less losses is m/n (2 π − 1).
    """
    changed = chance < np.array(ALPHAS)[:, None]
    gaining = rng.random(chance.shape[1]) < GAINING
    seen = Flips((changed & gaining).sum(1), (changed & ~gaining).sum(1), chance.shape[1])
    return seen, changed.mean(axis=1) * (2 * GAINING - 1)


def test_all_ten_bounds_hold_at_once_for_correlated_students() -> None:
    """As on a line: an image that changed stays changed further on."""

    def draw(rng: np.random.Generator) -> Any:
        return flipped(np.broadcast_to(rng.random(N_GUARD) * 2, (10, N_GUARD)), rng)

    assert violations(draw) <= 0.05


def test_all_ten_bounds_hold_at_once_for_the_least_correlated_students() -> None:
    """Each with images of its own: the worst case, in which little is wasted."""

    def draw(rng: np.random.Generator) -> Any:
        chance = np.full((10, 10 * N_GUARD), 2.0)
        for i in range(10):
            chance[i, i * N_GUARD : (i + 1) * N_GUARD] = rng.random(N_GUARD) * 2
        return flipped(chance, rng)

    assert 0.01 < violations(draw) <= 0.05


# --- safe ----------------------------------------------------------------------------------------

N, MARGIN = 1000, 0.01


def p_of(gained: int, lost: int) -> float:
    return float(paired_above(gained, lost, N, -MARGIN))


WELL, ILL = 12, 0  # gains that pass by far, and that with 9 losses do not pass
LOST = 9


@pytest.mark.parametrize("place", [0, 1, 4, 9, 10])
def test_safe_goes_up_for_as_long_as_each_place_passes(place: int) -> None:
    assert p_of(WELL, LOST) < 0.025 and p_of(ILL, LOST) > 0.05
    found = safe(flips(upto(place, WELL, ILL), LOST, N), MARGIN, NOTHING)
    assert found.place == place
    assert found.p[0] == pytest.approx(p_of(WELL if place else ILL, LOST))


def test_safe_does_not_jump_over_a_place_but_to_the_end() -> None:
    gained = upto(2, WELL, ILL)
    gained[5] = WELL
    assert safe(flips(gained, LOST, N), MARGIN, NOTHING).place == 2
    gained[9] = WELL
    assert safe(flips(gained, LOST, N), MARGIN, NOTHING).place == 10


def test_the_whole_way_has_all_of_the_level_after_every_place_and_half_else() -> None:
    between = next(g for g in range(WELL) if 0.025 < p_of(g, LOST) <= 0.05)
    gained = upto(9, WELL, between)
    assert safe(flips(gained, LOST, N), MARGIN, NOTHING).place == 10
    gained[6] = ILL
    assert safe(flips(gained, LOST, N), MARGIN, NOTHING).place == 6


def test_what_safe_says_of_itself() -> None:
    """The bound is where the test stands at 5%; the least Δ is one that passes."""
    found = safe(flips(20, 30, N), MARGIN, NOTHING)
    assert paired_above(20, 30, N, found.score[0]) == pytest.approx(0.05)
    least = found.least
    assert least is not None and -MARGIN < least < 50 / N
    gained = round((50 + float(least) * N) / 2)
    assert p_of(gained, 50 - gained) <= 0.025 < p_of(gained - 1, 51 - gained)


@pytest.mark.parametrize("m", [0, 1, 7, 40])
def test_the_least_that_safe_lets_go_by_hand(m: int) -> None:
    there = np.where(np.arange(10) < 9, 0, m)
    found = safe(Flips(there * 0, there, 100), 0.01, NOTHING)
    assert found.least == pytest.approx(least_by_hand(m, safe, 0.01))


def test_a_tenth_of_a_point_takes_3_840_images_where_nothing_changes() -> None:
    """To see no loss, where one of a thousand is lost, has a chance of 0.082 in 2,500 images."""
    assert 0.999**2500 > 0.05 and 0.999**3840 < 0.025
    places = {n: int(safe(flips(0, 0, n), 0.001, NOTHING).place) for n in (2500, 3800, 3840)}
    assert places == {2500: 0, 3800: 0, 3840: 10}


@pytest.mark.parametrize("population", list(guards.POPULATIONS))
def test_safe_harms_at_most_5_percent_whatever_the_line(population: str) -> None:
    """2,000 transfers each; of harmless ones among many kinds at least half may go."""
    rng = np.random.default_rng(0)
    truth = guards.POPULATIONS[population](2000, rng)
    place = guards.places("safe", truth.seen(guards.IMAGES, rng), guards.MARGIN)
    deltas = np.pad(truth.delta, ((0, 0), (1, 0)))[np.arange(2000), place]
    assert np.mean(deltas < -guards.MARGIN - 1e-9) <= 0.05
    if population == "mixed":
        assert np.mean(place[truth.delta[:, -1] >= -guards.MARGIN] > 0) >= 0.5


def test_the_first_place_that_passes_from_above_would_harm_more() -> None:
    """Why the walk goes up: downwards each place that fails is followed by another chance."""
    rng = np.random.default_rng(1)
    truth = guards.POPULATIONS["Δ = −1.5 margins"](5000, rng)
    seen = truth.seen(guards.IMAGES, rng)
    harmed = {}
    for rule in ("safe", "safe, downwards"):
        place = guards.places(rule, seen, guards.MARGIN)
        deltas = np.pad(truth.delta, ((0, 0), (1, 0)))[np.arange(5000), place]
        harmed[rule] = np.mean(deltas < -guards.MARGIN - 1e-9)
    assert harmed["safe"] < 0.03 and harmed["safe, downwards"] > 0.055


# --- shrink --------------------------------------------------------------------------------------


def variance(gained: int, lost: int, n: int) -> float:
    return ((gained + lost + 1) / n - ((gained - lost) / n) ** 2) / n


def test_the_stated_prior_is_one_point_times_alpha() -> None:
    """By hand, the product of two normal densities."""
    found = shrink(flips(30, 20, 500), 0, NOTHING)
    for i, alpha in enumerate(ALPHAS):
        grid = np.linspace(-0.2, 0.2, 200_001)
        density = norm.pdf(grid, 0, 0.01 * alpha)
        density *= norm.pdf(0.02, grid, variance(30, 20, 500) ** 0.5)
        density /= density.sum()
        assert found.score[i] == pytest.approx((grid * density).sum(), abs=1e-7)
        assert found.p[i] == pytest.approx(density[grid < 0].sum(), abs=1e-3)
    assert found.place == 10 and found.least is None
    assert shrink(flips(20, 20, 500), 0, NOTHING).place == 0


def test_a_students_other_transfers_say_what_is_to_be_expected() -> None:
    """By moments, with a loop by hand; what is stated counts as four transfers."""
    others = [(90, 10), (60, 20), (20, 40), (70, 10)]
    prior = Prior.of([flips(*one, 1000) for one in others])
    deltas = [(gained - lost) / 1000 for gained, lost in others]
    noise = [variance(*one, 1000) for one in others]
    assert prior.transfers == 4
    for i, alpha in enumerate(ALPHAS):
        half, mean = (0.01 * alpha) ** 2 / 2, sum(deltas) / 4
        extra = max(0.0, sum((d - mean) ** 2 for d in deltas) - 3 * sum(noise) / 4)
        between = (4 * half + extra) / (4 + 3)
        weights = [1 / (between + v) for v in noise]
        precision = 1 / half + sum(weights)
        expected = sum(w * d for w, d in zip(weights, deltas, strict=True)) / precision
        assert prior.mean[i] == pytest.approx(expected)
        assert prior.variance[i] == pytest.approx(between + 1 / precision)
    # What a small guard set says counts less than what the others do.
    few, mean = shrink(flips(1, 2, 50), 0, prior).score[-1], prior.mean[-1]
    assert -1 / 50 < few < mean and mean - few < few + 1 / 50


def test_pooling_brings_what_is_expected_nearer_to_the_truth() -> None:
    rng = np.random.default_rng(2)
    truth = guards.mixed(2000, rng)
    seen = truth.seen(500, rng)

    def error(found: Verdict) -> float:
        return float(np.mean((found.score[:, -1] - truth.delta[:, -1]) ** 2) ** 0.5)

    stated, pooled = (error(shrink(seen, 0, p)) for p in (NOTHING, guards.priors(seen)))
    plain = float(np.mean((seen.delta[:, -1] - truth.delta[:, -1]) ** 2) ** 0.5)
    assert pooled < 0.97 * stated and stated < 0.85 * plain


def test_rules_take_many_transfers_at_once() -> None:
    rng = np.random.default_rng(3)
    seen = guards.mixed(20, rng).seen(500, rng)
    for rule in RULES.values():
        together = rule(seen, MARGIN, NOTHING)
        for i in range(20):
            alone = rule(Flips(seen.gained[i], seen.lost[i], 500), MARGIN, NOTHING)
            assert alone.place == together.place[i]
            assert alone.score == pytest.approx(together.score[i])


def test_guard_sets_drawn_from_real_lines_are_like_them() -> None:
    """benchmarks/guard_lines.py: of any size, and the same images at each place of a line."""
    rng = np.random.default_rng(4)
    changes = rng.choice(np.array([-1, 0, 0, 1], np.int8), (3, 10, 200))
    changes[0] = 1
    changes[1, 4] = changes[1, 5]
    seen = guard_lines.drawn(changes, 50_000, rng)
    assert (seen.gained[0] == 50_000).all() and not seen.lost[0].any()
    assert (seen.gained[1, 4], seen.lost[1, 4]) == (seen.gained[1, 5], seen.lost[1, 5])
    assert seen.delta == pytest.approx(changes.mean(axis=2), abs=0.02)
