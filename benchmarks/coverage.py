"""How often the intervals of `kt report` hold the truth.

    python -m benchmarks.coverage [--runs 2000]

Models are drawn from a population of which the truth is known. Transfers differ by their student,
their teacher, the pair and the images, of which gains and losses are drawn; pairs by which of the
same images each model has right. Each sample of models gets the report's intervals: 95% of them
should hold the truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.stats import binom, rankdata

from benchmarks.measure import show
from kt_cli.knowledge.significance import wilson
from kt_cli.report.influence import spearman
from kt_cli.report.intervals import Pairs, mean_interval
from kt_cli.report.table import Interval

IMAGES = 900  # that a transfer is evaluated on
SEEN, CLASSES, SKILLS = 400, 10, 3  # images of pairs, their classes, what models differ in
CROWD_OF_PAIRS, CROWD = 200_000, 1200  # pairs of transfer, models of pairs, that say the truth
RUNS = 2000

Random = np.random.Generator
Truth = dict[str, float]


@dataclass(frozen=True)
class Design:
    """Which pairs of how many models there are: `share` of all, drawn at random.

    Attributes:
        together: whether the students are among the teachers.
    """

    students: int
    teachers: int
    together: bool = False
    share: float = 1.0

    def pairs(self, random: Random) -> Pairs:
        grid = np.indices((self.students, self.teachers), dtype=np.intp).reshape(2, -1)
        students, teachers = grid[0], grid[1] + (0 if self.together else self.students)
        possible = np.flatnonzero(students != teachers)
        count = round(self.share * len(possible))
        chosen = random.choice(possible, count, replace=False)
        return Pairs(students[chosen], teachers[chosen])


DESIGNS = {
    "all of 3 models": Design(3, 3, together=True),
    "all of 5 models": Design(5, 5, together=True),
    "all of 7 models": Design(7, 7, together=True),
    "all of 20 models": Design(20, 20, together=True),
    "14 of 7 models": Design(7, 7, together=True, share=14 / 42),
    "100 of 40 models": Design(40, 40, together=True, share=100 / 1560),
    "3 × 12": Design(3, 12),
    "4 × all 20": Design(4, 20, together=True),
    "20 × 20": Design(20, 20),
    "1 × 10": Design(1, 10),
}


@dataclass(frozen=True)
class Population:
    """Δ in points: its mean, and the standard deviations of what it depends on.

    Attributes:
        alike: correlation of what a model does as a student and as a teacher.
    """

    mean: float = 0.5
    student: float = 1.0
    teacher: float = 1.0
    pair: float = 0.5
    alike: float = 0.0

    def transfers(self, pairs: Pairs, random: Random) -> pd.DataFrame:
        """Two methods, each with two seeds; a property of the student, and one of the pair."""
        count = 1 + int(max(pairs.students.max(), pairs.teachers.max()))
        taught, other, trait = random.normal(size=(3, count))
        teaching = self.alike * taught + np.sqrt(1 - self.alike**2) * other
        if not pairs.students.any():
            taught[0] = 0.0  # of a single student the truth is its own
        own, others = random.normal(size=(2, len(pairs.students)))
        effect = self.student * taught[pairs.students] + self.teacher * teaching[pairs.teachers]
        one = self.mean + effect + self.pair * own
        two = 0.3 + 0.7 * one + self.pair * others
        deltas = [_seen(delta, random) for delta in (one, one, two, two)]
        return pd.DataFrame({
            "student": pairs.students, "teacher": pairs.teachers,
            "delta": (deltas[0] + deltas[1]) / 2, "first": deltas[0], "second": deltas[1],
            "won": 50.0 * ((deltas[0] > 0) + 0.0 + (deltas[1] > 0)),
            "difference": (deltas[0] + deltas[1] - deltas[2] - deltas[3]) / 2,
            "of_student": (taught + trait)[pairs.students], "of_pair": one + others,
        })  # fmt: skip


POPULATIONS = {
    "both roles matter": Population(),
    "alike in both": Population(alike=0.7),
    "opposite in both": Population(alike=-0.7),
    "students matter": Population(teacher=0.2),
    "pairs matter": Population(student=0.3, teacher=0.3, pair=1.0),
    "images alone": Population(student=0.0, teacher=0.0, pair=0.0),
    "mostly successes": Population(mean=1.5),
}


def _seen(delta: np.ndarray, random: Random) -> np.ndarray:
    """Δ on IMAGES images of which half a percent, and what Δ needs, are gained and lost."""
    rates = [0.5 + np.maximum(sign * delta, 0) for sign in (1, -1)]
    gained, lost = random.binomial(IMAGES, np.clip(rates, 0, 100) / 100)
    return np.asarray(100 * (gained - lost) / IMAGES)


def _spearman(rows: pd.DataFrame, of: str) -> Interval:
    return spearman(rows[of].to_numpy(), rows["delta"].to_numpy(), Pairs.of(rows))


TRANSFERS: dict[str, Callable[[pd.DataFrame], Interval]] = {
    "Δ": lambda rows: mean_interval(rows, "delta"),
    "success": lambda rows: mean_interval(rows, "won", True),
    "difference": lambda rows: mean_interval(rows, "difference"),
    "ρ, student's": lambda rows: _spearman(rows, "of_student"),
    "ρ, pair's": lambda rows: _spearman(rows, "of_pair"),
}


@lru_cache(maxsize=64)
def transfer_truth(population: Population, single: bool) -> Truth:
    """The mean of pairs of models of their own each."""
    places = np.arange(CROWD_OF_PAIRS)
    students = np.zeros_like(places) if single else 1 + places
    rows = population.transfers(
        Pairs(students, places + CROWD_OF_PAIRS + 1), np.random.default_rng(0)
    )
    ranks = {name: rankdata(rows[name]) for name in ("delta", "of_student", "of_pair")}
    found = {
        "Δ": rows["delta"].mean(), "success": rows["won"].mean(),
        "difference": rows["difference"].mean(),
        "ρ, pair's": np.corrcoef(ranks["delta"], ranks["of_pair"])[0, 1],
    }  # fmt: skip
    if not single:
        found["ρ, student's"] = np.corrcoef(ranks["delta"], ranks["of_student"])[0, 1]
    return {name: float(value) for name, value in found.items()}


@lru_cache(maxsize=1)
def _difficulty() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How hard each image is, which skills it asks for, its class: the same for all models."""
    random = np.random.default_rng(0)
    classes = np.sort(random.integers(0, CLASSES, SEEN))
    skills = random.normal(size=(SKILLS, CLASSES))[:, classes] + random.normal(size=(SKILLS, SEEN))
    return random.normal(-1.5, 1, SEEN), skills, classes


def comparisons(models: int, random: Random) -> dict[str, np.ndarray]:
    """Each quantity of all ordered pairs: (models, models), student × teacher; NaN for itself."""
    hard, asked, classes = _difficulty()
    able = random.normal(0, 0.4, (models, 1)) + random.normal(0, 0.4, (models, SKILLS)) @ asked
    right = (able + random.normal(size=(models, SEEN)) > hard).astype(np.float32)
    wrong, accuracy = 1 - right, right.mean(axis=1)
    both, neither = right @ right.T / SEEN, wrong @ wrong.T / SEEN
    chance = np.outer(accuracy, accuracy) + np.outer(1 - accuracy, 1 - accuracy)
    flips = np.stack([wrong[:, classes == c] @ right[:, classes == c].T for c in range(CLASSES)])
    total = flips.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = flips / total
        entropy = -np.where(flips > 0, shares * np.log(shares), 0).sum(axis=0)
        kappa = (both + neither - chance) / (1 - chance)
    held = np.cumsum(-np.sort(-flips, axis=0), axis=0)
    found = {
        "ρ⁺": 100 * total / SEEN,
        "ρ⁺, weaker": np.where(accuracy < accuracy[:, None], 100 * total / SEEN, np.nan),
        "agreement": 100 * (both + neither), "κ": kappa, "oracle": 100 * (1 - neither),
        "entropy": np.where(total > 0, entropy, np.nan),
        "50% classes": 1.0 + (held < total / 2).sum(axis=0),
    }  # fmt: skip
    itself = np.eye(models, dtype=bool)
    return {name: np.where(itself, np.nan, values) for name, values in found.items()}


SHARES = ("ρ⁺", "ρ⁺, weaker", "agreement", "oracle")  # in percent
COMPARED = (*SHARES, "κ", "entropy", "50% classes")


@lru_cache(maxsize=1)
def comparison_truth() -> Truth:
    found = comparisons(CROWD, np.random.default_rng(1))
    return {name: float(np.nanmean(values)) for name, values in found.items()}


class Tally:
    """How often intervals of a quantity held the truth, and how often there was one."""

    def __init__(self) -> None:
        self.held = self.shown = self.runs = 0

    def add(self, interval: Interval, truth: float) -> None:
        self.runs += 1
        self.shown += not np.isnan(interval.low)
        self.held += interval.low <= truth <= interval.high

    @property
    def share(self) -> float:
        """Percent of the intervals that there were; NaN where these are few."""
        return 100 * self.held / self.shown if self.shown > self.runs / 2 else float("nan")


def of_transfers(
    design: Design,
    population: Population,
    runs: int,
    names: Collection[str] = tuple(TRANSFERS),
    seed: int = 0,
) -> dict[str, float]:
    """Coverage of each interval of the summary, of compare and of influence, in percent."""
    random = np.random.default_rng(seed)
    truth = transfer_truth(population, design.students == 1)
    tallies = {name: Tally() for name in names if name in truth}
    for _ in range(runs):
        rows = population.transfers(design.pairs(random), random)
        for name, tally in tallies.items():
            tally.add(TRANSFERS[name](rows), truth[name])
    return {name: tally.share for name, tally in tallies.items()}


def of_pairs(design: Design, runs: int, seed: int = 0) -> dict[str, float]:
    """Coverage of each interval of the table complementarity, in percent."""
    random = np.random.default_rng(seed)
    truth, tallies = comparison_truth(), {name: Tally() for name in COMPARED}
    for _ in range(runs):
        pairs = design.pairs(random)
        count = 1 + int(max(pairs.students.max(), pairs.teachers.max()))
        for name, values in comparisons(count, random).items():
            of_pairs = values[pairs.students, pairs.teachers].astype(np.float64)
            tallies[name].add(pairs.mean(of_pairs, percent=name in SHARES), truth[name])
    return {name: tally.share for name, tally in tallies.items()}


def of_accuracies(images: int, accuracy: float) -> float:
    """Coverage of the interval of an accuracy (models, kt complementarity), exactly, in percent."""
    right = np.arange(images + 1)
    low, high = wilson(right, images)
    held = (low <= accuracy) & (accuracy <= high)
    return float(100 * binom.pmf(right, images, accuracy)[held].sum())


def _shown(values: dict[str, float], names: tuple[str, ...]) -> list[str]:
    return [f"{values[n]:.1f}" if np.isfinite(values.get(n, np.nan)) else "–" for n in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=RUNS, help="samples of models in each row")
    runs = parser.parse_args().runs
    print(f"Transfers: percent of {runs:,} intervals that hold the truth\n")
    names = tuple(TRANSFERS)
    show(("pairs", "population", *names), [
        [pairs, population, *_shown(of_transfers(design, drawn, runs), names)]
        for pairs, design in DESIGNS.items() for population, drawn in POPULATIONS.items()
    ])  # fmt: skip
    print(f"\nPairs: percent of {runs:,} intervals that hold the truth\n")
    together = {name: design for name, design in DESIGNS.items() if design.together}
    show(("pairs", *COMPARED), [
        [name, *_shown(of_pairs(design, runs), COMPARED)] for name, design in together.items()
    ])  # fmt: skip
    print("\nAccuracies: percent of all samples of n images whose interval holds the truth\n")
    accuracies = (0.1, 0.5, 0.8, 0.95, 0.99)
    show(("n", *(f"{100 * a:g}%" for a in accuracies)), [
        [f"{n:,}", *(f"{of_accuracies(n, a):.1f}" for a in accuracies)]
        for n in (200, 899, 10_000, 50_000)
    ])  # fmt: skip


if __name__ == "__main__":
    main()
