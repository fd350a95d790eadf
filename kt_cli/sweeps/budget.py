"""What fits into a number of GPU-hours: the pairs that are drawn first, whole or not at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kt_cli.rows import store
from kt_cli.spec import Run


def spent(folder: Path) -> float:
    """Seconds that the rows in `folder` took, failed ones included."""
    tables = ("pretrain", "models", "transfer")
    return sum(float(store.read([folder], t, ["seconds"])["seconds"].sum()) for t in tables)


def fitting(
    runs: Sequence[Run],
    seconds: Callable[[Run], float],
    ranks: Mapping[tuple[str, str], int],
    budget: float,
) -> list[Run]:
    """The transfers that fit, in their order.

    A pair is taken with all its methods and seeds, so that methods stay comparable; teams come
    after all pairs.

    Args:
        seconds: estimates what a run takes.
        ranks: how early each pair (keys of teacher and student) is drawn.
        budget: seconds.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(model.key for model in run.models), []).append(run)
    in_turn = sorted(groups, key=lambda keys: ranks.get((keys[0], keys[-1]), math.inf)
                     if len(keys) == 2 else math.inf)  # fmt: skip
    taken: set[tuple[str, ...]] = set()
    for keys in in_turn:
        budget -= sum(map(seconds, groups[keys]))
        if budget < 0:
            break
        taken.add(keys)
    return [run for run in runs if tuple(model.key for model in run.models) in taken]
