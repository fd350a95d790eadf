"""A chunk of runs, as it happens on its node: run after run, each to rows on disk."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from kt_cli.device import out_of_memory, require_gpu
from kt_cli.errors import DeviceLost, KtError, WriteError
from kt_cli.progress import Progress, silent
from kt_cli.rows import store
from kt_cli.runs.columns import Row
from kt_cli.runs.kinds import check_data, failed_row, kind_of
from kt_cli.spec import Run
from kt_cli.sweeps.manifest import read_manifest
from kt_cli.sweeps.slots import Slot


def finish(runs: Sequence[Run], folder: Path, progress: Progress = silent) -> list[list[Row]]:
    """Do one run, or several of a kind together: for each, rows with their outcome.

    An error becomes a row, except where rows cannot be written, where the GPU computes nothing
    more, and where the job was to be requeued and could not.
    """
    try:
        check_data(runs[0])  # the others have the same images
        found = kind_of(runs[0]).execute(runs, folder, progress)
    except (WriteError, DeviceLost, subprocess.SubprocessError):
        raise
    except Exception as error:
        found = [error] * len(runs)
    return [_with_outcome(run, rows) for run, rows in zip(runs, found, strict=True)]


def _with_outcome(run: Run, rows: list[Row] | Exception) -> list[Row]:
    if isinstance(rows, WriteError):
        raise rows
    if isinstance(rows, Exception):
        traceback.print_exception(rows, file=sys.stderr)
        return [failed_row(run, describe(rows))]
    return [{"run_id": run.id, **row, "status": store.OK, "attempt": run.attempt} for row in rows]


def describe(error: BaseException) -> str:
    """One line for a row or a screen."""
    if isinstance(error, KtError):
        return f"{error.message}. {error.tip}".strip() if error.tip else error.message
    if out_of_memory(error):
        return "out of memory: try a smaller micro_batch"
    text = (str(error).strip() or repr(error)).splitlines()[0]
    return f"{type(error).__name__}: {text}"


WORKER, STARTED, LOST = "worker ", "run ", "lost "


def run_chunk(
    manifest: str, start: int, stop: int, slot: Slot, alone: bool, watched: int | None = None
) -> None:
    """Do the runs `start` to `stop` of a manifest (one JSON per line), a part per run.

    Says on stdout which runs it starts, and that the GPU is lost to it, so that whoever finds it
    dead knows whose fault it was.

    Args:
        alone: run after run, where predictions could share decoded images: one of them killed a
            worker that did them together.
        watched: process to die with: a local chunk must not outlive the sweep that started it.

    Raises:
        DeviceLost: nothing more can be done here; a new process may.
    """
    if watched is not None:
        threading.Thread(target=_die_with, args=(watched,), daemon=True).start()
    if slot.gpu is not None:
        # Before CUDA starts. submitit sets indices of its own, whatever the sweep may see.
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
    if slot.threads:
        torch.set_num_threads(slot.threads)
    _say(f"{WORKER}{os.getpid()}")
    try:
        if slot.gpu is not None:
            require_gpu()
        _work(Path(manifest), start, stop, alone)
    except DeviceLost as error:
        _say(f"{LOST}{error.message}")
        raise


def _work(manifest: Path, start: int, stop: int, alone: bool) -> None:
    folder = manifest.parent.parent
    runs = read_manifest(manifest, start, stop)
    tables = {kind_of(run).table for run in runs}
    outcomes = {table: store.Outcomes(folder, table) for table in tables}
    parts: dict[str, list[Path]] = {}
    for first, group in _groups(runs, start, alone):
        table = kind_of(group[0]).table
        # A job that was requeued finds what it did before; so does one of two sweeps at once.
        outcomes[table].refresh()
        together = [run for run in group if not tried(run, outcomes[table])]
        if not together:
            continue
        _say(f"{STARTED}{first} {first + len(group)}")
        for rows in finish(together, folder):
            if rows:
                parts.setdefault(table, []).append(store.write(folder, table, rows))
    for table, written in parts.items():
        store.merge(folder, table, written)


def tried(run: Run, outcomes: store.Outcomes) -> bool:
    """Whether this attempt of a run has a row. Of one with many rows it is never known."""
    return not kind_of(run).many_rows and outcomes.attempts(run.id) >= run.attempt


def _groups(runs: Sequence[Run], start: int, alone: bool) -> Iterator[tuple[int, list[Run]]]:
    """Runs that are done together, with the number of the first: those on the same images.

    What failed before is done by itself.
    """
    first = start
    for key, same in itertools.groupby(runs, lambda run: _sharing(run, alone)):
        group = list(same)
        size = len(group) if key is not None else 1
        for i in range(0, len(group), size):
            yield first + i, group[i : i + size]
        first += len(group)


def _sharing(run: Run, alone: bool) -> Any:
    if not kind_of(run).together or alone or run.attempt > 1:
        return None
    return run.data_id, run.settings


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _die_with(process: int) -> None:
    while _alive(process):
        time.sleep(0.5)
    os._exit(1)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        return b") Z " not in Path(f"/proc/{process}/stat").read_bytes()
    except ProcessLookupError:
        return False
    except OSError:  # no /proc here, or a process of another user
        return True
