"""A GPU that is lost while models run on it: who is blamed, and what goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from kt_cli import device
from kt_cli.data.sources import open_data
from kt_cli.errors import DeviceLost, KtError
from kt_cli.progress import silent
from kt_cli.rows import store
from kt_cli.runs.kinds import kind_of
from kt_cli.settings import DataSpec, EvalSpec, TransferSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps import execute, worker_log
from kt_cli.sweeps.chunk import run_chunk
from kt_cli.sweeps.execute import LocalStage
from kt_cli.sweeps.schedule import write_manifest
from kt_cli.sweeps.slots import Slot
from kt_cli.sweeps.worker_log import LOST
from kt_cli.sweeps.workers import Workers
from kt_cli.zoo.names import resolve

# CUDA as it is when a kernel's assertion failed: the one who did it does not notice, whoever comes
# next does, and from then on nothing computes.
MODELS = """
import torch
from torch import nn

lost = []

def synchronize(device=None):
    if lost:
        raise getattr(torch, "AcceleratorError", RuntimeError)("device-side assert triggered")

torch.cuda.is_initialized = lambda: True
torch.cuda.synchronize = synchronize

class Net(nn.Module):
    data_config = {"input_size": (3, 8, 8)}
    num_classes = 10

    def __init__(self, asserts=False):
        super().__init__()
        self.asserts = asserts
        self.fc = nn.Linear(3 * 8 * 8, 10)

    def forward(self, images):
        synchronize()
        if self.asserts:
            lost.append(True)
        return self.fc(images.flatten(1))

def first():
    return Net()

def second():
    return Net()

def culprit():
    return Net(asserts=True)

def last():
    return Net()
"""
DATA = DataSpec("digits", limit=300)
NAMES = ("first", "culprit", "second", "last")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    (tmp_path / "assertion.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    found = resolve([f"py:assertion:{name}" for name in NAMES])
    images = open_data(DATA).eval
    return [Run("predict", (m,), images.fingerprint, EvalSpec(), DATA) for m in found]


def rows(folder: Path) -> pd.DataFrame:
    return store.read([folder], "models").set_index("model")


def test_of_models_that_run_together_only_the_culprit_fails(
    runs: list[Run], tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    with Workers(folder) as workers:
        LocalStage(folder, runs, [Slot(None, 1)], workers, pytest.fail).run(silent, "evaluate")
    found = rows(folder)
    assert found["status"].to_dict() == dict.fromkeys(NAMES, "ok") | {"culprit": "failed"}
    assert (found["attempt"] == 1).all() and len(found) == len(NAMES)
    assert "device-side assert triggered" in found.loc["culprit", "error"]


# --- which of the two is broken: the GPU or the runs -------------------------------------------


Does = Callable[[str | None, int], str]


class Machine:
    """GPUs whose workers are faked at their seam: `does` says what a run does on which.

    Run -1 is the worker's start.
    """

    def __init__(self, folder: Path, runs: list[Run], does: Does) -> None:
        self.folder, self.runs, self.does = folder, runs, does
        self.at: list[tuple[str | None, int]] = []
        self.warned: list[str] = []

    def start(self, manifest: str, start: int, stop: int, at: Sequence[Any], *__: object) -> object:
        slot, logs = Slot(*at), self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"{len(self.at)}.out"
        self.at.append((slot.gpu, -1))
        said = worker_log.line(process=1) + self._work(start, stop, slot)
        log.write_text(said)
        polls = iter([False] * 9 * (slot.gpu == "1"))  # a worker that works takes longer
        return SimpleNamespace(ended=lambda: next(polls, True), out=log, err=logs / "err")

    def _work(self, start: int, stop: int, slot: Slot) -> str:
        if self.does(slot.gpu, -1) == "lost":
            return worker_log.line(end=LOST, why="GPU does not compute")
        for i in range(start, stop):
            self.at.append((slot.gpu, i))
            if self.does(slot.gpu, i) == "lost":
                return worker_log.line(runs=[i, i + 1]) + worker_log.line(end=LOST, why="assert")
            row = {"run_id": self.runs[i].id, "status": store.OK, "attempt": 1, "created": "1"}
            store.write(self.folder, kind_of(self.runs[i]).table, [row])
        return worker_log.line(runs=[stop - 1, stop])

    def sweep(self, gpus: Sequence[str]) -> store.Outcomes:
        slots = [Slot(gpu, 1) for gpu in gpus]
        workers = cast(Workers, self)
        LocalStage(self.folder, self.runs, slots, workers, self.warned.append).run(silent, "x")
        return self.outcomes()

    def outcomes(self) -> store.Outcomes:
        return store.Outcomes(self.folder, kind_of(self.runs[0]).table)


Make = Callable[..., Machine]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(does: Does, students: int = 12) -> Machine:
        runs = [
            Run("transfer", (Model(f"t{i}"), Model(f"s{i % students}")),
                "eval", TransferSpec(), DATA)
            for i in range(12)
        ]  # fmt: skip
        made = Machine(tmp_path / "results", runs, does)
        monkeypatch.setattr(execute, "POLL_SECONDS", 0)
        return made

    return make


@pytest.mark.parametrize("computes_at_first", [True, False])
def test_a_broken_gpu_takes_three_workers_and_no_run_with_it(
    machine: Make, computes_at_first: bool
) -> None:
    first = 0 if computes_at_first else -1
    broken = machine(lambda gpu, i: "lost" if gpu == "0" and i >= first else "ok")
    outcomes = broken.sweep(["0", "1"])
    assert all(outcomes.done(run.id) for run in broken.runs)
    assert [gpu for gpu, i in broken.at if i < 0].count("0") == 3
    (warning,) = broken.warned
    assert "GPU 0 lost 3 workers in a row" in warning


def test_runs_that_lose_a_sound_gpu_fail_and_it_goes_on(machine: Make) -> None:
    some = machine(lambda gpu, i: "lost" if i in (1, 2, 5) else "ok")
    outcomes = some.sweep(["0"])
    assert [i for i, run in enumerate(some.runs) if outcomes.failed(run.id)] == [1, 2, 5]
    assert sum(map(outcomes.done, [run.id for run in some.runs])) == 9 and not some.warned
    assert "assert" in (outcomes.by_id[some.runs[1].id].error or "")


def test_one_student_that_always_fails_condemns_no_gpu(machine: Make) -> None:
    one = machine(lambda gpu, i: "lost" if 0 <= i < 11 else "ok", students=1)
    outcomes = one.sweep(["0"])
    assert sum(outcomes.failed(run.id) for run in one.runs) == 11 and not one.warned


def test_without_a_gpu_left_the_sweep_stops_and_no_run_has_failed(machine: Make) -> None:
    broken = machine(lambda gpu, i: "lost")
    with pytest.raises(KtError, match="no GPU is left: GPU does not compute"):
        broken.sweep(["0", "1"])
    assert len(broken.warned) == 2 and not broken.outcomes().by_id


def test_where_everything_fails_on_gpus_that_compute_the_next_sweep_gets_past_it(
    machine: Make,
) -> None:
    broken = machine(lambda gpu, i: "lost" if i >= 0 else "ok")
    with pytest.raises(KtError, match="no GPU is left: assert"):
        broken.sweep(["0"])
    outcomes = broken.outcomes()
    assert [outcomes.failed(run.id) for run in broken.runs] == [True] * 3 + [False] * 9


def test_a_worker_does_not_take_the_cpu_for_its_gpu(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device.torch, "ones", _refused)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    manifest = write_manifest(tmp_path / "results", runs)
    with pytest.raises(DeviceLost, match=r"GPU 5 of .* does not compute: No CUDA GPUs"):
        run_chunk(str(manifest), 0, len(runs), Slot("5"), alone=False)
    assert not (tmp_path / "results" / "models").exists()


def _refused(*_: object, device: str) -> None:
    assert device == "cuda"
    raise RuntimeError("No CUDA GPUs are available")
