"""In what order and in which chunks the runs of a stage are done, so that no place waits for long.

They are written to a manifest, one JSON line each, of which chunks are ranges.

Whichever place is free takes the next chunk. Runs that share decoded images go into few chunks of
equal cost. Others begin with the dearest, and their chunks get smaller (trapezoid self-scheduling,
Tzeng and Ni 1993), so that the last ones make up for what was estimated wrongly; borders lie where
the student changes, if it does so nearby.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kt_cli.files import write_text
from kt_cli.runs.kinds import from_json, kind_of
from kt_cli.settings.declared import digest
from kt_cli.spec import Run

CHUNK_RUNS = 50
WORTH_SECONDS = 60.0  # of runs, in the mean, for which another worker is started
NEAR = 0.25  # of a chunk, by which a border moves to where the student changes


def chunk_count(runs: int, parallel: int) -> int:
    """Chunks for so many runs: one for each place, and in the mean none above CHUNK_RUNS."""
    return min(runs, max(parallel, -(-runs // CHUNK_RUNS)))


def local_count(runs: Sequence[Run], costs: Sequence[float], slots: int) -> int:
    """Chunks on a machine with so many slots; costs: about the seconds of each run."""
    kind = kind_of(runs[0])
    if kind.together:  # equal ones, a whole number for each slot
        return min(len(runs), slots * max(1, chunk_count(len(runs), slots) // slots))
    rounds = min(kind.chunks(runs[0]), int(sum(costs) / (slots * WORTH_SECONDS)))
    return chunk_count(len(runs), slots * max(1, rounds))


def scheduled(
    runs: Sequence[Run], costs: Sequence[float], parallel: int, count: int
) -> tuple[list[Run], list[int]]:
    """The runs in the order to do them in, and the borders of at most `count` chunks in it.

    Args:
        costs: about what each run takes. parallel: chunks that are done at a time.
    """
    kind = kind_of(runs[0])
    if kind.together:
        # What failed before is done by itself: last, so that it does not come between others.
        chunks = [sorted(chunk, key=lambda i: (runs[i].attempt, i))
                  for chunk in _dealt(costs, min(count, len(runs)))]  # fmt: skip
        order, borders = [*itertools.chain(*chunks)], [0, *itertools.accumulate(map(len, chunks))]
    else:
        alike = [kind.alike(run) for run in runs]
        order = _dearest_first(costs, alike)
        changes = [i for i in range(1, len(order)) if alike[order[i]] != alike[order[i - 1]]]
        borders = edges([costs[i] for i in order], count, parallel, changes)
    return [runs[i] for i in order], borders


def _dealt(costs: Sequence[float], count: int) -> list[list[int]]:
    """Chunks of about equal cost: the dearest first, each run to the chunk that has least."""
    found: list[list[int]] = [[] for _ in range(count)]
    least = [(0.0, chunk) for chunk in range(count)]
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        cost, chunk = least[0]
        found[chunk].append(i)
        heapq.heapreplace(least, (cost + max(costs[i], 1e-9), chunk))
    return found


def _dearest_first(costs: Sequence[float], alike: Sequence[Hashable]) -> list[int]:
    """Runs that are alike stay together, in their order; those with the dearest run come first."""
    top: dict[Hashable, float] = {}
    for cost, group in zip(costs, alike, strict=True):
        top[group] = max(top.get(group, 0.0), cost)
    place = {group: i for i, group in enumerate(sorted(top, key=lambda group: -top[group]))}
    return sorted(range(len(costs)), key=lambda i: place[alike[i]])


def edges(
    costs: Sequence[float], count: int, parallel: int, changes: Sequence[int] = ()
) -> list[int]:
    """`count` + 1 rising borders of chunks of neighbours; none is empty.

    Chunks cost the same where each place does one, else they fall in equal steps to almost nothing.

    Args:
        changes: borders that are liked best.
    """
    n = len(costs)
    count = min(count, n)
    each = np.maximum(costs, 1e-9)
    total: NDArray[np.float64] = np.cumsum(each)
    share = np.arange(1, count) / count
    falling = min(1.0, max(0.0, count / parallel - 1))
    wanted = total[-1] * (share + falling * share * (1 - share))
    inner = np.searchsorted(total - each / 2, wanted)
    if len(changes):
        inner = _moved(inner, wanted, total, np.asarray(changes))
    # Every chunk keeps at least one run, from the left and then from the right.
    least = np.arange(count + 1)
    borders = np.maximum.accumulate(np.array([0, *inner, n]) - least) + least
    return [int(border) for border in np.minimum(borders, n - count + least)]


def _moved(
    inner: NDArray[np.int64], wanted: NDArray[np.float64], total: NDArray[np.float64],
    changes: NDArray[np.int64],
) -> NDArray[np.int64]:  # fmt: skip
    """Borders, moved to a change that is near in cost to what is wanted."""
    at = total[changes - 1]
    after = np.searchsorted(at, wanted).clip(0, len(at) - 1)
    before = (after - 1).clip(0)
    nearest = np.where(abs(at[before] - wanted) < abs(at[after] - wanted), before, after)
    sizes = np.diff([0.0, *wanted, total[-1]])
    near = abs(at[nearest] - wanted) <= NEAR * np.minimum(sizes[:-1], sizes[1:])
    return np.where(near, changes[nearest], inner)


def write_manifest(folder: Path, runs: Sequence[Run]) -> Path:
    """Write the runs below the results in `folder` (WriteError); equal ones are the same file."""
    lines = [run.to_json() for run in runs]
    path = folder / "manifests" / f"{runs[0].kind}-{digest(lines)[:12]}.jsonl"
    write_text(path, "\n".join(lines) + "\n")
    return path


def read_manifest(path: Path, start: int = 0, stop: int | None = None) -> list[Run]:
    """The runs `start` to `stop`."""
    with path.open(encoding="utf-8") as lines:
        return [from_json(line) for line in itertools.islice(lines, start, stop)]
