"""Doing the runs of a stage: chunks of them in processes of their own, so many at once.

submitit's local executor starts whatever it is given, at once and on whichever GPU; here a slot
(one GPU, or one share of the CPU) is handed to one chunk at a time. Progress is what the rows on
disk say. A worker that dies costs the run that it was at, as a failed row; the rest of its chunk
goes on in a new one.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from kt_cli import store
from kt_cli.errors import KtError
from kt_cli.files import write_text
from kt_cli.progress import Progress
from kt_cli.spec import Run, digest
from kt_cli.sweep.chunk import failed_row, run_chunk
from kt_cli.sweep.slots import Slot, chunk_count

POLL_SECONDS = 0.2
YEAR_MINUTES = 365 * 24 * 60


@dataclass
class _Chunk:
    start: int
    stop: int


@dataclass
class _Working:
    job: Any
    slot: Slot
    chunk: _Chunk


class LocalStage:
    """Runs of one stage on this machine, through submitit's local executor."""

    def __init__(self, folder: Path, runs: Sequence[Run], places: Sequence[Slot]) -> None:
        self._folder, self._runs, self._free = folder, list(runs), list(places)
        (table,) = {run.table for run in runs}
        self._outcomes = store.Outcomes(folder, table, only_new=True)
        self._table = table
        lines = [run.to_json() for run in runs]
        self._manifest = folder / "manifests" / f"{runs[0].kind}-{digest(lines)[:12]}.jsonl"
        write_text(self._manifest, "\n".join(lines) + "\n")
        count = chunk_count(len(runs), len(places))
        edges = [len(runs) * i // count for i in range(count + 1)]
        self._waiting = [_Chunk(a, b) for a, b in itertools.pairwise(edges)]
        self._working: list[_Working] = []
        self.total = sum(len(run.row_ids()) for run in runs)

    @property
    def failures(self) -> int:
        """Runs of this stage that failed."""
        return sum(outcome.status != store.OK for outcome in self._outcomes.by_id.values())

    def run(self, progress: Progress, what: str) -> None:
        """Do everything; returns when each run has a row, `ok` or failed.

        Raises:
            KtError: rows cannot be written (disk full, folder gone).
        """
        try:
            while self._waiting or self._working:
                while self._waiting and self._free:
                    self._start(self._free.pop(0), self._waiting.pop(0))
                time.sleep(POLL_SECONDS)
                self._outcomes.refresh()
                progress(min(len(self._outcomes.by_id), self.total), self.total, what)
                for working in [w for w in self._working if w.job.done()]:
                    self._ended(working)
        finally:
            for working in self._working:
                # Its worker sees that this process ends and ends too; see `chunk`.
                working.job._process.kill()

    def _start(self, slot: Slot, chunk: _Chunk) -> None:
        executor = submitit.LocalExecutor(folder=self._folder / "logs")
        gpus: dict[str, Any] = {}
        if slot.gpu is not None:
            gpus = {"gpus_per_node": 1, "visible_gpus": (slot.gpu,)}
        executor.update_parameters(timeout_min=YEAR_MINUTES, **gpus)
        arguments = (str(self._manifest), chunk.start, chunk.stop, slot.threads, os.getpid())
        with _deaf_to_interrupts(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            job = executor.submit(run_chunk, *arguments)
        self._working.append(_Working(job, slot, chunk))

    def _ended(self, working: _Working) -> None:
        self._working.remove(working)
        self._free.append(working.slot)
        self._outcomes.refresh()
        for i in range(working.chunk.start, working.chunk.stop):
            if not self._has_rows(self._runs[i]):
                self._worker_died(working, i)
                return

    def _has_rows(self, run: Run) -> bool:
        known = self._outcomes.by_id
        return run.id in known or all(row in known for row in run.row_ids())

    def _worker_died(self, working: _Working, at: int) -> None:
        """The worker left its chunk at run `at`: that run failed; the others get a new worker."""
        log = working.job.paths.stderr
        reason = _last_line(log)
        if at == working.chunk.start and not log.exists():
            raise KtError(f"a worker could not be started; see {log.parent}")
        if "WriteError" in reason:
            raise KtError(reason.split("WriteError: ")[-1], "Free some space; then run again.")
        error = f"the worker died ({reason or 'killed'}); see {log.name} in logs/"
        store.write(self._folder, self._table, [failed_row(self._runs[at], error)])
        if at + 1 < working.chunk.stop:
            self._waiting.append(_Chunk(at + 1, working.chunk.stop))


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What starts here does not hear Ctrl-C: this process ends it, without a dozen tracebacks."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip()[:200] if lines else ""
