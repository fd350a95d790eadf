"""Doing the runs of a stage on this machine: one chunk at a time for each slot.

A worker that dies costs the run that it was at. On a GPU that may be the GPU's fault: the verdict
waits until something else ran there; where nothing does, the GPU takes no more runs.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from kt_cli.errors import KtError, WriteError, way_out
from kt_cli.progress import Progress
from kt_cli.rows import store
from kt_cli.runs.columns import Row
from kt_cli.runs.kinds import failed_row, kind_of
from kt_cli.spec import Run
from kt_cli.sweeps.chunk import do_runs
from kt_cli.sweeps.schedule import local_count, scheduled, write_manifest
from kt_cli.sweeps.slots import Slot
from kt_cli.sweeps.worker_log import LOST, UNWRITABLE, Untold, cause, last_line, timed_out, told
from kt_cli.sweeps.workers import Worker, Workers

POLL_SECONDS = 0.2
TAIL = 4096  # bytes of a log in which a worker says how far it is
LOSSES = 3  # in a row, of different models, until it is the GPU


@dataclass
class _Chunk:
    start: int
    stop: int
    alone: bool = False


@dataclass
class _Place:
    """A slot, and how workers were lost there since one of them last finished a run."""

    slot: Slot
    starts: int = 0
    runs: dict[int, Row] = field(default_factory=dict)  # with what would be their rows


@dataclass
class _Working:
    worker: Worker
    place: _Place
    chunk: _Chunk


class LocalStage:
    """Runs of one stage on this machine.

    warn: told of each GPU that takes no more runs. minutes: that a run may take.
    costs: about what each run takes, in seconds; None where nobody knows.
    """

    def __init__(
        self, folder: Path, runs: Sequence[Run], slots: Sequence[Slot], workers: Workers,
        warn: Callable[[str], Any], minutes: float | None = None,
        costs: Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        costs = costs or [1.0] * len(runs)
        count = local_count(runs, costs, len(slots))
        self._runs, borders = scheduled(runs, costs, len(slots), count)
        self._folder, self._workers, self._warn, self._minutes = folder, workers, warn, minutes
        self._places = [_Place(slot) for slot in slots]
        self._free = list(self._places)
        self._table = kind_of(runs[0]).table
        self._outcomes = store.Outcomes(folder, self._table, only_new=True)
        self._manifest = write_manifest(folder, self._runs)
        self._waiting = [_Chunk(a, b) for a, b in itertools.pairwise(borders)]
        self._working: list[_Working] = []
        self._reason = ""

    def run(self, progress: Progress, what: str) -> int:
        """Do everything, until each run has a row, `ok` or failed; how many failed.

        Raises:
            KtError: rows cannot be written (disk full, folder gone), or no place is left.
        """
        expected = {row for run in self._runs for row in kind_of(run).row_ids(run)}
        try:
            while self._waiting or self._working:
                if not self._free and not self._working:
                    raise self._nowhere()
                while self._waiting and self._free:
                    self._start(self._free.pop(0), self._waiting.pop(0))
                time.sleep(POLL_SECONDS)
                self._outcomes.refresh()
                doing = [told(w.worker.out, TAIL).doing for w in self._working]
                detail = ":\n  " * any(doing) + "\n  ".join(filter(None, doing))
                progress(len(expected & self._outcomes.by_id.keys()), len(expected), what + detail)
                for working in [w for w in self._working if w.worker.ended()]:
                    self._ended(working)
            for place in self._free:
                self._convict(place)
        finally:
            for working in self._working:
                working.worker.kill()
        return sum(self._outcomes.failed(run.id) for run in self._runs)

    def _start(self, place: _Place, chunk: _Chunk) -> None:
        at = (str(self._manifest), chunk.start, chunk.stop, astuple(place.slot), chunk.alone)
        worker = self._workers.start(*at, os.getpid(), self._minutes)
        self._working.append(_Working(worker, place, chunk))

    def _ended(self, working: _Working) -> None:
        self._working.remove(working)
        self._outcomes.refresh()
        place, chunk = working.place, working.chunk
        here = range(chunk.start, chunk.stop)
        if any(self._outcomes.done(self._runs[i].id) for i in here):
            self._convict(place)
        missing = [i for i in here if not self._has_rows(self._runs[i])]
        if missing:
            self._worker_died(working, missing[0])
        # The models that they are about: many runs of one that fails say nothing of the GPU.
        lost = [self._runs[at] for at in place.runs]
        models = {run.models[-1].key if run.models else run.id for run in lost}
        if place.starts + len(models) < LOSSES:
            self._free.append(place)
        else:
            self._retire(place)

    def _has_rows(self, run: Run) -> bool:
        known = self._outcomes.by_id
        return run.id in known or all(row in known for row in kind_of(run).row_ids(run))

    def _convict(self, place: _Place) -> None:
        """It was the runs that were at fault, not the GPU."""
        for at, row in place.runs.items():
            if not self._has_rows(self._runs[at]):
                store.write(self._folder, self._table, [row])
        self._outcomes.refresh()
        place.starts, place.runs = 0, {}

    def _retire(self, place: _Place) -> None:
        """It was the GPU: others take the runs that were lost there."""
        self._waiting += [_Chunk(at, at + 1, alone=True) for at in place.runs]
        self._warn(
            f"GPU {place.slot.gpu} lost {LOSSES} workers in a row and takes no more runs; see "
            f"{self._folder / 'logs'} and kt doctor."
        )

    def _nowhere(self) -> KtError:
        """No GPU is left. Where one computes, the next sweep gets past the runs that were lost."""
        for place in self._places:
            if not place.starts:
                self._convict(place)
        return KtError(
            f"no GPU is left: {self._reason}",
            f"Logs: {self._folder / 'logs'}. kt doctor looks at the GPUs, CUDA_VISIBLE_DEVICES "
            "names those to use. What is finished is kept.",
        )

    def _worker_died(self, working: _Working, missing: int) -> None:
        """The run that the worker was at failed; those after it get a new worker."""
        place, chunk, log = working.place, working.chunk, working.worker.err
        said = told(working.worker.out)
        if said.end == UNWRITABLE:
            raise WriteError(said.why, way_out(said.why))
        self._reason = said.why if said.end == LOST else last_line(log)
        if said.runs is None:
            # It did not even start: another would not either, unless on another GPU.
            if place.slot.gpu is None:
                reason = self._reason or "see its log"
                raise KtError(f"a worker could not start: {reason}", f"Log: {log}")
            place.starts += 1
            self._waiting.append(chunk)
            return
        at, end = said.runs
        if end - at > 1 and missing < end:
            # Of several that it did together nobody knows which it was: now alone.
            self._waiting.append(_Chunk(missing, chunk.stop, alone=True))
            return
        if not self._has_rows(self._runs[at]):
            error = f"{cause(said, log, 'worker')}; see logs/{log.name}"
            place.runs[at] = failed_row(self._runs[at], error, said.seconds(time.time()))
            if place.slot.gpu is None or timed_out(said, log):
                self._convict(place)
        rest = max(missing, at + 1)
        if rest < chunk.stop:
            self._waiting.append(_Chunk(rest, chunk.stop, chunk.alone))


def run_inline(folder: Path, runs: Sequence[Run]) -> int:
    """Do the runs of one stage in this process, where a debugger sees them; how many failed."""
    manifest = write_manifest(folder, runs)
    # A worker's log is its stdout; here that is for results.
    with redirect_stdout(Untold(sys.stderr)):
        do_runs(manifest, 0, len(runs))
    outcomes = store.Outcomes(folder, kind_of(runs[0]).table)
    return sum(outcomes.failed(run.id) for run in runs)
