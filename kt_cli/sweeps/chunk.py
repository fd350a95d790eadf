"""A chunk of runs, as it happens on its node: run after run, each to rows on disk."""

from __future__ import annotations

import faulthandler
import itertools
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from kt_cli.device import out_of_memory, require_gpu
from kt_cli.errors import DeviceLost, KtError, WriteError
from kt_cli.precision import asked_device
from kt_cli.rows import store
from kt_cli.runs.columns import Row
from kt_cli.runs.kinds import check_data, failed_row, kind_of
from kt_cli.spec import Run
from kt_cli.sweeps.jobs import alive
from kt_cli.sweeps.schedule import read_manifest
from kt_cli.sweeps.slots import Slot
from kt_cli.sweeps.worker_log import LOST, NOT_REQUEUED, UNWRITABLE, tell


def finish(runs: Sequence[Run], folder: Path) -> list[list[Row]]:
    """Do one run, or several of a kind together: for each, rows with their outcome.

    An error becomes a row, except one after which nothing more can be done here.
    """
    found: list[list[Row] | Exception]
    start = time.monotonic()
    try:
        check_data(runs[0])  # the others have the same images
        found = kind_of(runs[0]).execute(runs, folder, _tell_epochs)
    except Exception as error:
        found = [error] * len(runs)
    each = (time.monotonic() - start) / len(runs)
    outcomes = [_with_outcome(run, rows, each) for run, rows in zip(runs, found, strict=True)]
    found.clear()  # an error that its own frame holds would keep what is on the device
    return outcomes


def _tell_epochs(done: int, total: int, what: str) -> None:
    """Of what trains a model: its name, what of it is right, and the epoch."""
    if what.endswith(" epoch"):
        with suppress(OSError):
            tell(doing=f"{what.removesuffix(':')} {done}/{total}")


def _with_outcome(run: Run, rows: list[Row] | Exception, seconds: float) -> list[Row]:
    if isinstance(rows, Exception):
        if _end(rows):
            raise rows
        traceback.print_exception(rows, file=sys.stderr)
        return [failed_row(run, _described(rows), seconds)]
    return [{"run_id": run.id, **row, "status": store.OK, "attempt": run.attempt} for row in rows]


def _end(error: Exception) -> str:
    """Why nothing more can be done here; empty where the error is the run's own."""
    if isinstance(error, DeviceLost):
        return LOST
    if isinstance(error, WriteError):
        return UNWRITABLE
    # submitit asks for it in a signal handler, wherever the run is.
    met: BaseException | None = error
    while met is not None:
        command = getattr(met, "cmd", ()) if isinstance(met, subprocess.SubprocessError) else ()
        if list(command)[:2] == ["scontrol", "requeue"]:
            return NOT_REQUEUED
        met = met.__cause__ or met.__context__
    return ""


def _described(error: Exception) -> str:
    if isinstance(error, KtError):
        return f"{error.message}. {error.tip}".strip() if error.tip else error.message
    if out_of_memory(error):
        return "out of memory: try a smaller micro_batch"
    text = (str(error).strip() or repr(error)).splitlines()[0]
    return f"{type(error).__name__}: {text}"


def run_chunk(
    manifest: str, start: int, stop: int, slot: Slot, alone: bool, watched: int | None = None,
    minutes: float | None = None,
) -> None:  # fmt: skip
    """Do the runs `start` to `stop` of a manifest, a part of rows for each.

    Args:
        alone: run after run, where predictions could share decoded images: one of them killed a
            worker that did them together.
        watched: process to die with: a local chunk must not outlive the sweep that started it.
        minutes: a run may take; then this process ends.

    Raises:
        DeviceLost: nothing more can be done here; a new process may.
    """
    if watched is not None:
        threading.Thread(target=_die_with, args=(watched,), daemon=True).start()
    if slot.gpu is not None:
        # Before CUDA starts. submitit sets indices of its own, whatever the sweep may see.
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
        if asked_device()[1] is not None:
            os.environ["KT_DEVICE"] = "cuda"  # whose only one has no other number any more
    if slot.threads:
        torch.set_num_threads(slot.threads)
    tell(process=os.getpid())
    try:
        if slot.gpu is not None:
            require_gpu()
        do_runs(Path(manifest), start, stop, alone, minutes)
    except Exception as error:
        with suppress(OSError):
            tell(end=_end(error), why=str(error))
        raise


def do_runs(
    manifest: Path, start: int, stop: int, alone: bool = False, minutes: float | None = None
) -> None:
    """As `run_chunk`, in a process that is none of a worker's own."""
    folder = manifest.parent.parent
    runs = read_manifest(manifest, start, stop)
    table = kind_of(runs[0]).table  # and of all: those of a stage are of one kind
    outcomes = store.Outcomes(folder, table)
    parts: list[Path] = []
    for first, group in _groups(runs, start, alone):
        # A job that was requeued finds what it did before; so does one of two sweeps at once.
        outcomes.refresh()
        together = [run for run in group if not tried(run, outcomes)]
        if together:
            tell(runs=[first, first + len(group)], since=time.time())
            with _limited(minutes, len(together)):
                found = finish(together, folder)
            parts += [store.write(folder, table, rows) for rows in found if rows]
    store.merge(folder, table, parts)


@contextmanager
def _limited(minutes: float | None, runs: int) -> Iterator[None]:
    """End this process after so long for each run, even where Python itself hangs."""
    if not minutes:
        yield
        return
    tell(minutes=minutes)
    faulthandler.dump_traceback_later(60 * minutes * runs, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def tried(run: Run, outcomes: store.Outcomes) -> bool:
    """Whether this attempt of a run has a row. Of one with many rows it is never known."""
    return not kind_of(run).many_rows and outcomes.attempts(run.id) >= run.attempt


def _groups(runs: Sequence[Run], start: int, alone: bool) -> Iterator[tuple[int, list[Run]]]:
    """Runs that are done together, with the number of the first: those on the same images."""

    def images(run: Run) -> object:
        # What failed before is done by itself.
        if alone or run.attempt > 1 or not kind_of(run).together:
            return object()
        return run.data_id, run.settings

    for _, same in itertools.groupby(runs, images):
        group = list(same)
        yield start, group
        start += len(group)


def _die_with(process: int) -> None:
    while alive(process):
        time.sleep(0.5)
    os._exit(1)
