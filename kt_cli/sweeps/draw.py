"""Which pairs are transferred: drawn evenly over the differences in accuracy; and teams."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from kt_cli.settings.declared import digest
from kt_cli.spec import Model

BINS = 20


def ranked_pairs(
    accuracies: NDArray[np.float64],
    keys: Sequence[str],
    seed: int,
    teachers: Sequence[int],
    students: Sequence[int],
) -> list[tuple[int, int]]:
    """Ordered pairs (teacher, student) as they are drawn: evenly over accuracy differences.

    The differences teacher − student are cut into equal-width bins, and the bins are emptied in
    turn, each in an order of its own. What is drawn depends on the models and the seed, not on
    the order in which they are named.

    Args:
        accuracies: (M,) in percent; NaN, where it is not known, counts as their median.
        keys: the M models' identities.
        teachers, students: indices of the models that teach, and of those that are taught.
    """
    unknown = np.isnan(accuracies)
    typical = np.median(accuracies[~unknown]) if not unknown.all() else 0.0
    accuracies = np.where(unknown, typical, accuracies)
    wanted = np.zeros((len(keys), len(keys)), dtype=bool)
    wanted[np.ix_(teachers, students)] = True
    np.fill_diagonal(wanted, False)
    teacher, student = np.nonzero(wanted)
    difference = accuracies[teacher] - accuracies[student]
    low, high = difference.min(initial=0), difference.max(initial=0)
    bins = np.minimum(BINS - 1, (BINS * (difference - low) / max(high - low, 1e-9)).astype(int))
    order = np.lexsort((_lots(keys, seed)[teacher, student], bins))
    turn = np.arange(len(bins)) - np.searchsorted(bins[order], bins[order])
    bin_lots = np.random.default_rng(seed).random(BINS)
    drawn = order[np.lexsort((bin_lots[bins[order]], turn))]
    return list(zip(teacher[drawn].tolist(), student[drawn].tolist(), strict=True))


def _lots(keys: Sequence[str], seed: int) -> NDArray[np.uint64]:
    """A random number for each ordered pair [t, s], from the two models' keys and the seed."""
    one, other = (
        np.array([int(digest([role, seed, key])[:16], 16) for key in keys], np.uint64)
        for role in ("teacher", "student")
    )
    mixed = one[:, None] + other[None]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # SplitMix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def draw_teams(
    pairs: Sequence[tuple[int, int]],
    keys: Sequence[str],
    size: int,
    seed: int,
    teachers: Sequence[int],
) -> list[tuple[list[int], int]]:
    """Teams (teachers, student) of `size` teachers, one for each student of the drawn pairs.

    A student's drawn teachers come first, so that a team can be compared with its members alone;
    other `teachers` are drawn where these are too few, and no team is where there are too few.
    """
    lots = _lots(keys, seed)
    teams = []
    for student in sorted({s for _, s in pairs}):
        drawn = {t for t, s in pairs if s == student}
        others = [t for t in teachers if t != student]
        ranked = sorted(others, key=lambda t: (t not in drawn, lots[t, student]))
        if len(ranked) >= size:
            teams.append((sorted(ranked[:size]), student))
    return teams


def those(may: Callable[[str], bool], models: Sequence[Model]) -> list[int]:
    """Indices of the models that may, by their names."""
    return [i for i, model in enumerate(models) if may(model.name)]
