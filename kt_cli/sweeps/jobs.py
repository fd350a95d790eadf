"""What was submitted for a sweep, a small file a stage in `RESULTS/jobs`; its end; who leads it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from kt_cli.errors import KtError
from kt_cli.files import write_error, write_text
from kt_cli.sweeps import cluster

OPEN, OVER, CANCELLED = "open", "over", "cancelled"
STALE_SECONDS = 600
SUBMISSION_SECONDS = 60
STEP, LOCAL = "step", "sweep"  # of who leads: submits, and is gone; works here, to the end


@dataclass(frozen=True)
class Submitted:
    """The jobs of one stage, submitted at once."""

    stage: str
    table: str  # where its rows go
    job: str  # id of the array of chunks
    manifest: str  # relative to the results
    edges: tuple[int, ...]  # the chunks' borders in it
    created: float  # seconds since the epoch
    continuation: str = ""  # id of the job that goes on after the array
    state: str = OPEN  # until somebody saw that all tasks have ended; then OVER, or CANCELLED
    user: int = field(default_factory=os.getuid)  # id of who submitted them

    @property
    def jobs(self) -> list[str]:
        return [job for job in (self.job, self.continuation) if job]

    @property
    def tasks(self) -> int:
        return len(self.edges) - 1


def log_of(folder: Path, submitted: Submitted, task: int, kind: str) -> Path:
    """The log of one task, kind "out" or "err"."""
    index = f"_{task}" if submitted.tasks > 1 else ""
    return folder / "logs" / f"{submitted.job}{index}_0_log.{kind}"


def listed(folder: Path) -> list[Submitted]:
    """All that was submitted for the sweep in `folder`, oldest first."""
    read = [_read(path) for path in (folder / "jobs").glob("*.json")]
    return sorted(filter(None, read), key=lambda one: (one.created, int(one.job)))


def waiting(folder: Path) -> list[Submitted]:
    """What is queued or running, as far as anybody saw."""
    return [submitted for submitted in listed(folder) if submitted.state == OPEN]


def _read(path: Path) -> Submitted | None:
    """None for a file of another version, or one that is going away."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return Submitted(**{**raw, "edges": tuple(raw["edges"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def keep(folder: Path, submitted: Submitted) -> None:
    """Write it down, in place of what was known of the same jobs, or raise WriteError."""
    name = f"{submitted.stage}-{submitted.job}.json"
    write_text(folder / "jobs" / name, json.dumps(asdict(submitted), indent=1) + "\n")


@contextmanager
def claim(folder: Path, what: str = STEP) -> Iterator[bool]:
    """The right to lead a sweep; False while another has it. WriteError where it has no place."""
    path = folder / "jobs" / "claim"
    _remove_stale(path)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = f"{socket.gethostname()} {os.getpid()} {what} {since}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(holder)
    except FileExistsError:
        yield False
        return
    except OSError as error:
        _give_back(path, *(holder[:end] for end in range(len(holder) + 1)))
        raise write_error(path, error) from error
    try:
        with _kept_fresh(path):
            yield True
    finally:
        _give_back(path, holder)


def _give_back(path: Path, *written: str) -> None:
    """Remove the claim where it says what was written: nobody took it over meanwhile."""
    with suppress(OSError):
        if path.read_text(encoding="utf-8") in written:
            path.unlink()


def _remove_stale(path: Path) -> None:
    """Whoever held it is gone: dead on this machine, or silent for long on another."""
    mode = "r+" if os.access(path, os.W_OK) else "r"  # on NFS only what can be written is locked
    with suppress(OSError, ValueError), path.open(mode, encoding="utf-8") as file:
        host, process, *_ = [*str(file.read()).split(), "", ""]
        old = time.time() - os.fstat(file.fileno()).st_mtime > STALE_SECONDS
        if old or (process and host == socket.gethostname() and not alive(int(process))):
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            # Somebody else may have been quicker, and hold another one now.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                path.unlink()


def cancel(folder: Path) -> list[str]:
    """End what is queued or running of the sweep in `folder`; gives the ids of these jobs.

    Raises:
        KtError: Slurm does not obey.
    """
    ended: list[str] = []
    # A job that goes on may be submitting what is not listed yet, so it is asked again.
    while open_ones := waiting(folder):
        _end(folder, open_ones)
        ended += [job for submitted in open_ones for job in submitted.jobs]
        _wait_for_submission(folder)
    return ended


def _end(folder: Path, open_ones: Sequence[Submitted]) -> None:
    """Written down first: whoever sees jobs end must know that they were cancelled."""
    for submitted in open_ones:
        keep(folder, replace(submitted, state=CANCELLED))
    # First those that would go on after the others.
    continuations = [submitted.continuation for submitted in open_ones if submitted.continuation]
    if not cluster.cancel(continuations) or not cluster.cancel([s.job for s in open_ones]):
        for submitted in open_ones:
            keep(folder, submitted)
        raise KtError("scancel failed: the jobs may go on", "Try again when Slurm answers.")


def _wait_for_submission(folder: Path) -> None:
    """Until nobody is submitting; whoever died at it is not waited for for long."""
    for _ in range(SUBMISSION_SECONDS):
        with claim(folder) as mine:
            if mine:
                return
        time.sleep(1)


class Leader(NamedTuple):
    """The process that leads a sweep. what: LOCAL, or STEP of one on a cluster."""

    host: str = ""
    process: str = ""
    what: str = ""
    since: str = ""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


def leader(folder: Path) -> Leader | None:
    """Who leads the sweep now."""
    path = folder / "jobs" / "claim"
    _remove_stale(path)
    try:
        return Leader(*path.read_text(encoding="utf-8").strip().split(maxsplit=3))
    except FileNotFoundError:
        return None
    except OSError:
        return Leader()


def refuse(folder: Path, beside: str = "") -> None:
    """Raise KtError that says who leads the sweep; with `beside` only one of that kind."""
    found = leader(folder) or Leader()
    if beside in ("", found.what):
        raise KtError(
            f"another kt sweep is at work in {folder}: {found}",
            "kt status shows how far it is. Should it be gone from there: within ten minutes "
            f"that is noticed, or remove {folder / 'jobs' / 'claim'}.",
        )


def alive(process: int) -> bool:
    """Whether a process of this machine runs; one that only waits to be fetched does not."""
    try:
        os.kill(process, 0)
        return b") Z " not in Path(f"/proc/{process}/stat").read_bytes()
    except ProcessLookupError:
        return False
    except OSError:  # no /proc here, or a process of another user
        return True


@contextmanager
def _kept_fresh(path: Path) -> Iterator[None]:
    """Others see that the holder lives, however long it takes."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(STALE_SECONDS / 10):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
