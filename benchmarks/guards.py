"""What the guard's rules do to transfers of which the truth is known.

    python -m benchmarks.guards [--transfers 2000]

Prints the simulated tables of docs/policies.md. A transfer has a true share of images that it
gains and one that it loses at each place of the line from before to after; a guard sees n images
of it. Of each rule: how many students it harms (true Δ below −margin where it puts them), helps
(above zero), lets go at all of those that no harm would come to (true Δ of the whole way not below
−margin), and their mean Δ. Intervals are Wilson's 95%.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from benchmarks.policies import markdown
from kt_cli.distillation.guard_rules import ALPHAS, LEVEL, RULES, Flips, Prior
from kt_cli.knowledge.significance import paired_above, wilson

TRANSFERS, TEACHERS = 2000, 20  # of each student
IMAGES, MARGIN = 2500, 0.001
PLACES = np.array(ALPHAS)
ROUNDING = 1e-12
Values = NDArray[np.float64]
Random = np.random.Generator


@dataclass(frozen=True)
class Lines:
    """True shares of images gained and lost at each of ALPHAS, both (transfers, 10)."""

    gained: Values
    lost: Values

    @property
    def delta(self) -> Values:
        return self.gained - self.lost

    def seen(self, n: int, random: Random) -> Flips:
        """What n images show: an image that flipped stays flipped further on."""
        steps = [np.diff(one, axis=1, prepend=0.0) for one in (self.gained, self.lost)]
        rest = 1 - self.gained[:, -1:] - self.lost[:, -1:]
        counts = random.multinomial(n, np.concatenate([*steps, rest], axis=1))
        return Flips(counts[:, :10].cumsum(axis=1), counts[:, 10:20].cumsum(axis=1), n)


def lines(deltas: Values, random: Random, bent: float = 1.0) -> Lines:
    """Lines to `deltas` (transfers,) at α = 1, of 0.5 to 5% flips there; losses come later by as
    much as `bent`, so that a part of the way can be better than the whole, as it is in earnest."""
    flips = np.exp(random.uniform(np.log(0.005), np.log(0.05), len(deltas)))
    flips = np.maximum(flips, np.abs(deltas))
    power = random.uniform(0.8, 1.2, (len(deltas), 1))
    later = power * random.uniform(1, bent, (len(deltas), 1))
    ends = [((flips + sign * deltas) / 2)[:, None] for sign in (1, -1)]
    return Lines(ends[0] * PLACES**power, ends[1] * PLACES**later)


def mixed(transfers: int, random: Random) -> Lines:
    """Students that differ, and their transfers too: Δ of +0.3 ± 1 points."""
    students = np.repeat(random.normal(0.003, 0.007, -(-transfers // TEACHERS)), TEACHERS)
    return lines(students[:transfers] + random.normal(0, 0.007, transfers), random, bent=1.8)


def always(times: float) -> Callable[[int, Random], Lines]:
    """All at the same Δ, in margins, whatever is done to them."""
    return lambda transfers, random: lines(np.full(transfers, times * MARGIN), random)


POPULATIONS: dict[str, Callable[[int, Random], Lines]] = {
    "mixed": mixed,
    "Δ = 0": always(0),
    "Δ just below −margin": always(-1 - 1e-6),
    "Δ = −1.5 margins": always(-1.5),
    "Δ = −5 margins": always(-5),
}


def priors(flips: Flips, alike: int = TEACHERS) -> Prior:
    """For each transfer what those of the same student before it say, as in a sweep: `alike` in a
    row are of one student."""
    found = []
    for i in range(len(flips.gained)):
        before = range(i - i % alike, i)
        found.append(Prior.of([Flips(flips.gained[j], flips.lost[j], flips.n) for j in before]))
    return Prior(np.stack([p.mean for p in found]), np.stack([p.variance for p in found]))


def places(rule: str, flips: Flips, margin: float, alike: int = TEACHERS) -> NDArray[np.integer]:
    """Where a rule puts each student; "none" all of them at the end."""
    if rule == "none":
        return np.full(len(flips.gained), len(ALPHAS))
    if rule == "safe, downwards":
        passed = paired_above(flips.gained, flips.lost, flips.n, -margin) <= LEVEL
        last = len(ALPHAS) - passed[:, ::-1].argmax(axis=1)
        return np.where(passed.any(axis=1), last, 0)
    prior = priors(flips, alike) if rule == "shrink" else Prior.of([])
    return RULES[rule](flips, margin, prior).place


def outcome(truth: Lines, place: NDArray[np.integer], margin: float) -> dict[str, str]:
    """What became of the students."""
    deltas = np.pad(truth.delta, ((0, 0), (1, 0)))[np.arange(len(place)), place]
    harmless = truth.delta[:, -1] >= -margin - ROUNDING
    return {
        "harmed %": percent(deltas < -margin - ROUNDING),
        "helped %": percent(deltas > ROUNDING),
        "harmless let go %": percent(place[harmless] > 0),
        "mean Δ": f"{100 * deltas.mean():+.3f}".replace("-", "−"),
        "mean α": f"{place.mean() / len(ALPHAS):.2f}",
    }


def percent(which: NDArray[np.bool_]) -> str:
    if not len(which):
        return "–"
    low, high = wilson(which.sum(), len(which))
    return f"{100 * which.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def size(n: int, margin: float, flips: float) -> float:
    """How often Tango's test lets a student pass whose Δ is −margin, in percent: exact."""
    lost, gained = (flips + margin) / 2, (flips - margin) / 2
    most = int(binom.isf(1e-12, n, flips)) + 1
    flipped = np.arange(most + 1)[:, None]
    gains = np.arange(most + 1)[None, :]
    chance = binom.pmf(flipped, n, flips) * binom.pmf(gains, flipped, gained / (gained + lost))
    p = paired_above(gains, np.maximum(flipped - gains, 0), n, -margin)
    return 100 * float(chance[(p <= LEVEL) & (gains <= flipped)].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--transfers", type=int, default=TRANSFERS)
    count = parser.parse_args().transfers
    print(f"\n### {count:,} transfers each, {IMAGES:,} images, margin {100 * MARGIN:g} points\n")
    shown = []
    for population, make in POPULATIONS.items():
        random = np.random.default_rng(0)
        truth = make(count, random)
        flips = truth.seen(IMAGES, random)
        for rule in ("none", *RULES, "safe, downwards"):
            found = outcome(truth, places(rule, flips, MARGIN), MARGIN)
            shown.append({"transfers": population, "guard": rule, **found})
    show(shown)
    print("\n### safe, by images and margin\n")
    show([power(n, m, count) for n in (1000, 2500, 10_000, 50_000) for m in (0.1, 0.2, 0.5)])
    print("\n### What passes Tango's test at Δ = −margin, percent (5 is meant), by flips\n")
    shares = 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1
    show([
        {"images": f"{n:,}", "margin": f"{m:g}", **{
            f"{100 * f:g}% flip": f"{size(n, m / 100, f):.1f}" if f > m / 100 else "–"
            for f in shares
        }}
        for n in (200, 500, 2500, 10_000) for m in (0.1, 0.25, 0.5, 1.0)
    ])  # fmt: skip


def show(rows: Sequence[Mapping[str, str]]) -> None:
    markdown(list(rows[0]), [list(row.values()) for row in rows])


def power(n: int, points: float, count: int) -> dict[str, str]:
    """How many harmless students may go at all, and how many are harmed."""
    found = {"images": f"{n:,}", "margin": f"{points:g}"}
    for population in ("Δ = 0", "mixed"):
        random = np.random.default_rng(1)
        truth = POPULATIONS[population](count, random)
        place = places("safe", truth.seen(n, random), points / 100)
        said = outcome(truth, place, points / 100)
        found[f"{population}: let go %"] = said["harmless let go %"]
        found |= {
            f"{population}: {k}": said[k] for k in ("harmed %", "mean Δ") if population != "Δ = 0"
        }
    return found


if __name__ == "__main__":
    main()
