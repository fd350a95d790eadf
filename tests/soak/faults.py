"""What goes wrong in a soak test: the table FAULTS, one small function each.

A fault is given the trial that it disturbs, while its sweep is at work, and does its harm at once.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.slurm.real_sweep import Sweep

DISK = 512  # MB of the small disk that a trial is on


@dataclass
class Trial:
    """One sweep that is disturbed."""

    sweep: Sweep
    process: subprocess.Popen[str]
    chance: random.Random

    def some(self, paths: Iterable[Path]) -> Path | None:
        found = sorted(path for path in paths if path.is_file() and path.stat().st_size)
        return self.chance.choice(found) if found else None

    def workers(self) -> list[int]:
        """Processes of the sweep's chunks, and of what these have started."""
        listed = subprocess.run(
            ["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
        ).stdout
        rows = [tuple(map(int, line.split())) for line in listed.splitlines()]
        found = {self.process.pid}
        for _ in rows:
            more = {pid for pid, parent in rows if parent in found} - found
            if not more:
                break
            found |= more
        return sorted(found - {self.process.pid})


def kill_worker(trial: Trial) -> None:
    """As the kernel's OOM killer does."""
    workers = trial.workers()
    if workers:
        _signal(trial.chance.choice(workers), signal.SIGKILL)


def kill_everything(trial: Trial) -> None:
    """As a machine that loses its power."""
    for pid in [trial.process.pid, *trial.workers()]:
        _signal(pid, signal.SIGKILL)


def interrupt(trial: Trial) -> None:
    """Ctrl-C."""
    _signal(trial.process.pid, signal.SIGINT)


def terminate(trial: Trial) -> None:
    _signal(trial.process.pid, signal.SIGTERM)


def truncate_cache(trial: Trial) -> None:
    _truncate(trial.some(trial.sweep.cache.rglob("*")))


def flip_cache(trial: Trial) -> None:
    _flip(trial.some(trial.sweep.cache.rglob("*")), trial.chance)


def truncate_rows(trial: Trial) -> None:
    _truncate(trial.some(trial.sweep.results.glob("*/part-*.parquet")))


def flip_rows(trial: Trial) -> None:
    _flip(trial.some(trial.sweep.results.glob("*/part-*.parquet")), trial.chance)


def remove_checkpoints(trial: Trial) -> None:
    shutil.rmtree(trial.sweep.results / ".checkpoints", ignore_errors=True)


def fill_disk(trial: Trial) -> None:
    """Until the sweep has ended; `relieve` gives the space back."""
    free = shutil.disk_usage(trial.sweep.folder).free
    if free > 2 * DISK * 2**20:
        return  # not on a small disk of its own
    with suppress(OSError), (trial.sweep.folder / "ballast").open("wb") as file:
        file.write(bytes(free))


def relieve(trial: Trial) -> None:
    (trial.sweep.folder / "ballast").unlink(missing_ok=True)


def start_another(trial: Trial) -> None:
    """The same sweep in the same folder: it has to see that somebody is at work."""
    process = trial.sweep.start("--processes", "1")
    _, err = process.communicate(timeout=500)
    assert "Traceback" not in err, err


def cancel_task(trial: Trial) -> None:
    _to_some_task(trial, "scancel")


def preempt_task(trial: Trial) -> None:
    _to_some_task(trial, "scancel", "--batch", "--signal=USR2")


Fault = Callable[[Trial], None]
FAULTS: dict[str, Fault] = {
    "worker killed": kill_worker,
    "everything killed": kill_everything,
    "Ctrl-C": interrupt,
    "terminated": terminate,
    "cache truncated": truncate_cache,
    "cache flipped": flip_cache,
    "rows truncated": truncate_rows,
    "rows flipped": flip_rows,
    "checkpoints removed": remove_checkpoints,
    "disk full": fill_disk,
    "started twice": start_another,
}
SLURM_FAULTS: dict[str, Fault] = {
    "task cancelled": cancel_task,
    "task preempted": preempt_task,
}


def _signal(pid: int, sign: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, sign)


def _truncate(path: Path | None) -> None:
    if path is not None:
        os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path | None, chance: random.Random) -> None:
    """One bit of a file, where it is."""
    if path is not None:
        place = chance.randrange(path.stat().st_size)
        with path.open("r+b") as file:
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 1 << chance.randrange(8)]))


def _to_some_task(trial: Trial, *command: str) -> None:
    tasks = trial.sweep.tasks("RUNNING")
    if tasks:
        subprocess.run([*command, trial.chance.choice(tasks)], check=False, capture_output=True)
