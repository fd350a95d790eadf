"""What a worker tells of itself, a line of JSON each on its standard output, and its last words."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

MARK = "kt-worker "  # whatever else models print
# Said after why a job ends: submitit passes over the signals of a preemption.
ABOUT_THE_END = ("srun: ", "submitit ", "slurmstepd: error: Failed to send")
TIMED_OUT = re.compile(r"Timeout \([\d:.]+\)!")  # as faulthandler says it
LOST = "lost"  # the GPU computes nothing more
UNWRITABLE = "unwritable"  # rows cannot be written
NOT_REQUEUED = "not requeued"  # Slurm did not take the job back


@dataclass(frozen=True)
class Told:
    """What a worker told last, for whoever finds it dead."""

    process: int | None = None  # its id
    runs: Sequence[int] | None = None  # first and end, in the manifest; None before its first
    since: float | None = None  # when it began with them, in seconds since the epoch
    end: str = ""  # why nothing more could be done there
    why: str = ""  # the error that ended it
    minutes: float | None = None  # that each of its runs may take
    doing: str = ""  # how far its run is, for people

    def seconds(self, end: float) -> float:
        """That each of the runs took which it was at, if it ended then; 0 where nobody knows."""
        if self.since is None or self.runs is None:
            return 0.0
        first, last = self.runs
        return max(0.0, end - self.since) / (last - first)


def tell(**what: Any) -> None:
    """Tell fields of `Told`."""
    sys.stdout.write(line(**what))
    sys.stdout.flush()


def line(**what: Any) -> str:
    return f"{MARK}{json.dumps(what)}\n"


class Untold(io.TextIOBase):
    """A stream without what a worker tells, for where nobody reads it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if text.startswith(MARK) else self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


def told(log: Path, last: int | None = None) -> Told:
    """All that a worker told, or in the last bytes, the later in place of the earlier."""
    found: dict[str, Any] = {}
    for said in _lines(log, last):
        found |= heard(said)
    return Told(**found)


def heard(said: str) -> dict[str, Any]:
    """The fields of `Told` that a line tells; none where it is another, or was cut off."""
    with suppress(ValueError):
        return dict(json.loads(said.partition(MARK)[2] or "{}"))
    return {}


def cause(said: Told, log: Path, who: str) -> str:
    """Why a worker, called `who`, left its run without a row; log: of its errors."""
    if said.end == LOST:
        return said.why
    if timed_out(said, log):
        return f"took longer than --timeout-run {said.minutes:g} minutes"
    return f"the {who} died ({last_line(log) or 'killed'})"


def timed_out(said: Told, log: Path) -> bool:
    """Whether a worker ended since its run took too long."""
    return bool(said.minutes) and any(map(TIMED_OUT.fullmatch, _lines(log)))


def written(*logs: Path) -> float:
    """When one of them was last written, in seconds since the epoch; 0 where there is none."""
    found = [0.0]
    for log in logs:
        with suppress(OSError):
            found.append(log.stat().st_mtime)
    return max(found)


def last_line(log: Path) -> str:
    """The last line, at most 500 characters; one about how it ended only if there is no other."""
    said = _lines(log)
    own = [line for line in said if not line.startswith(ABOUT_THE_END)]
    return (own or said or [""])[-1].strip()[:500]


def _lines(log: Path, last: int | None = None) -> list[str]:
    try:
        with log.open("rb") as file:
            if last is not None:
                file.seek(max(0, os.fstat(file.fileno()).st_size - last))
            return file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return []
