"""Chunks of a stage: how busy they keep places, against a simulated clock; what stays together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from kt_cli.progress import silent
from kt_cli.rows import store
from kt_cli.runs.kinds import kind_of
from kt_cli.settings import DataSpec, EvalSpec, PretrainSpec, TransferSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps import execute, worker_log
from kt_cli.sweeps.execute import LocalStage
from kt_cli.sweeps.schedule import chunk_count, edges, local_count, scheduled
from kt_cli.sweeps.slots import Slot
from kt_cli.sweeps.workers import Workers

DATA, SLOTS = DataSpec("digits"), 4
RANDOM = np.random.default_rng(0)
HUNDREDFOLD = 10 ** RANDOM.uniform(1, 3, 40)
STUDENTS = np.repeat(np.geomspace(1, 100, 10), 12) + np.tile(10 ** RANDOM.uniform(0, 2, 12) / 5, 10)
MODELS = [Model(f"m{i}", name=f"m{i}") for i in range(40)]
PREDICT = [Run("predict", (m,), "eval", EvalSpec(), DATA) for m in MODELS]
PRETRAIN = [Run("pretrain", (), "train", PretrainSpec(f"z{i}", "resnet18"), DATA)
            for i in range(40)]  # fmt: skip
TRANSFER = [Run("transfer", (MODELS[20 + t], MODELS[s]), "train", TransferSpec(), DATA)
            for s in range(10) for t in range(12)]  # fmt: skip


class Clock:
    """Workers, faked at their seam, that take what their runs cost of a clock of their own."""

    def __init__(self, folder: Path, costs: dict[str, float]) -> None:
        self.now, self.folder, self.costs = 0.0, folder, costs
        self.ends: list[float] = []
        self.runs: list[Run] = []

    def start(self, manifest: str, start: int, stop: int, *__: object) -> object:
        runs = self.runs[start:stop]
        rows = [
            {"run_id": run.id, "status": store.OK, "attempt": 1, "created": "1"} for run in runs
        ]
        store.write(self.folder, kind_of(runs[0]).table, rows)
        end = self.now + sum(self.costs[run.id] for run in runs)
        self.ends.append(end)
        log = self.folder / f"{len(self.ends)}.out"
        log.write_text(worker_log.line(process=1))
        return SimpleNamespace(ended=lambda: self.now >= end, out=log, err="")

    def sleep(self, _: float) -> None:
        self.now = min(end for end in self.ends if end > self.now)


def busy(
    folder: Path, monkeypatch: pytest.MonkeyPatch, runs: Sequence[Run], costs: Sequence[float],
    estimates: Sequence[float] | None = None,
) -> tuple[float, int]:  # fmt: skip
    """The share of their time that the slots of a stage work, and how many workers they start."""
    clock = Clock(folder, {run.id: cost for run, cost in zip(runs, costs, strict=True)})
    folder.mkdir()
    monkeypatch.setattr(execute, "time", clock)
    slots = [Slot(None, 1)] * SLOTS
    workers = cast(Workers, clock)
    stage = LocalStage(folder, runs, slots, workers, pytest.fail, costs=list(estimates or costs))
    clock.runs = stage._runs
    stage.run(silent, "x")
    assert all(map(store.Outcomes(folder, kind_of(runs[0]).table).done, [r.id for r in runs]))
    return sum(costs) / (SLOTS * clock.now), len(clock.ends)


@pytest.mark.parametrize(
    ("runs", "costs"),
    [(PREDICT, HUNDREDFOLD), (PREDICT, np.sort(HUNDREDFOLD)), (PRETRAIN, HUNDREDFOLD),
     (TRANSFER, STUDENTS), (TRANSFER, RANDOM.permutation(STUDENTS)),
     (PRETRAIN, [10.0] * 36 + [1000.0] * 4)],
    ids=["predict", "dearest last", "pretrain", "transfers", "teachers differ", "four are dear"],
)  # fmt: skip
def test_four_slots_are_busy_where_costs_differ_a_hundredfold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[Run], costs: Sequence[float]
) -> None:
    share, workers = busy(tmp_path / "x", monkeypatch, runs, list(costs))
    assert share >= 0.95
    # What shares decoded images is cut into no more chunks than there are slots.
    assert workers == (SLOTS if runs is PREDICT else 4 * SLOTS)


def test_chunks_that_get_smaller_make_up_for_wrong_estimates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(5):
        wrong = np.random.default_rng(seed).choice([0.5, 1.0, 2.0], len(STUDENTS))
        share, _ = busy(
            tmp_path / str(seed), monkeypatch, TRANSFER, list(STUDENTS), list(wrong * STUDENTS)
        )
        assert share >= 0.9


def test_runs_of_a_student_stay_together() -> None:
    costs = list(RANDOM.permutation(STUDENTS))
    order, _ = scheduled(TRANSFER, costs, SLOTS, 4 * SLOTS)
    assert sorted(order, key=TRANSFER.index) == TRANSFER
    students = [run.models[-1] for run in order]
    assert len([*itertools.groupby(students)]) == 10
    dearest = [max(costs[TRANSFER.index(run)] for run in runs)
               for _, runs in itertools.groupby(order, lambda run: run.models[-1])]  # fmt: skip
    assert dearest == sorted(dearest, reverse=True)
    # Costs alone would cut three students apart; a border a run away cuts none.
    assert edges([1.0] * 12, 3, 3) == [0, 4, 8, 12]
    assert edges([1.0] * 12, 3, 3, changes=[5, 7]) == [0, 5, 7, 12]
    assert edges([1.0] * 12, 3, 3, changes=[6]) == [0, 4, 8, 12]


@pytest.mark.parametrize("parallel", [1, 2, 7, 40])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_borders_rise_and_chunks_fall(count: int, parallel: int) -> None:
    costs = np.random.default_rng(0).gamma(0.5, size=40)
    borders = edges(costs, count, parallel)
    assert borders[0] == 0 and borders[-1] == 40 and len(borders) == count + 1
    sums = [costs[a:b].sum() for a, b in itertools.pairwise(borders)]
    assert all(a < b for a, b in itertools.pairwise(borders))
    assert max(sums) <= (1 + (count > parallel)) * costs.sum() / count + 2 * costs.max()
    sizes = np.diff(edges([1.0] * 4000, count, parallel))
    assert (np.diff(sizes) <= 1).all()
    assert sizes.max() <= (1 + (count > parallel)) * 4000 / count + 1
    assert count < 2 * parallel or sizes.min() <= 4000 / count**2 + 1


def test_one_giant_leaves_no_chunk_empty() -> None:
    for at in (0, 5, 9):
        costs = [1e-6] * 10
        costs[at] = 1e6
        borders = edges(costs, 6, 2)
        assert all(a < b for a, b in itertools.pairwise(borders)) and borders[-1] == 10


def test_chunks_that_share_images_are_as_equal_as_grahams_bound_says() -> None:
    """At most 4/3 − 1/(3m) of the best, which is found by trying all."""
    for seed in range(5):
        costs = list(10 ** np.random.default_rng(seed).uniform(0, 2, 8))
        runs, borders = scheduled(PREDICT[:8], costs, 3, 3)
        taken = [[costs[PREDICT.index(run)] for run in runs[a:b]]
                 for a, b in itertools.pairwise(borders)]  # fmt: skip
        places = itertools.product(range(3), repeat=8)
        best = min(np.bincount(place, costs, minlength=3).max() for place in places)
        assert max(map(sum, taken)) <= (4 / 3 - 1 / 9) * best + 1e-9
        assert sorted(itertools.chain(*taken)) == sorted(costs)


def test_chunks_are_one_a_slot_and_not_too_long() -> None:
    assert [chunk_count(n, 8) for n in (0, 3, 8, 400, 1000)] == [0, 3, 8, 8, 20]
    # Small work is not worth more workers, and many models that share images are whole rounds.
    assert local_count(TRANSFER, [0.1] * 120, 4) == 4
    assert local_count(PREDICT * 25, [1e3] * 1000, 8) == 16
    in_memory = [Run("transfer", run.models, "train", TransferSpec(keep_targets="memory"), DATA)
                 for run in TRANSFER]  # fmt: skip
    assert [local_count(runs, STUDENTS, 4) for runs in (TRANSFER, in_memory)] == [16, 8]
