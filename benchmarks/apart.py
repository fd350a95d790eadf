"""Test files in processes of their own: outcomes as they come; no hang or crash costs the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, environment

POLL_SECONDS = 0.2
LINES = 40  # of a failure, or of what a process that died had said
DIED, CUT = "died", "cut"
ENDINGS = (0, 1, 5)  # of pytest: all passed, some failed, none left
Tell = Callable[[str], None]


@dataclass
class _File:
    """A test file and the process that is at it. known: tests that have their outcome."""

    path: Path
    folder: Path
    root: Path
    known: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    at: str = ""
    ended: bool = False
    _read: int = 0

    @property
    def events(self) -> Path:
        return self.folder / f"{self.path.stem}.jsonl"

    @property
    def _words(self) -> Path:
        return self.events.with_suffix(".txt")

    def start(self, options: Sequence[str], seconds: float) -> None:
        """Go on with the tests that are not known."""
        self.at, self._before = "", len(self.known)
        left_out = [f"--deselect={test}" for test in sorted(self.known)]
        # Descriptors are not captured: what a dying process says is read here.
        own = ["-m", "gpu", "-q", "--capture=sys", "-p", "no:cacheprovider", *options, *left_out]
        command = [sys.executable, "-m", "pytest", str(self.path.relative_to(self.root)), *own]
        variables = {
            **environment(), "KT_GPU_EVENTS": str(self.events),
            "KT_GPU_TEST_SECONDS": str(seconds),
        }  # fmt: skip
        with self._words.open("w") as words:
            self.process = subprocess.Popen(
                command, cwd=self.root, env=variables, stdin=subprocess.DEVNULL, stdout=words,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def outcomes(self) -> Iterator[dict[str, Any]]:
        """New ones."""
        with suppress(FileNotFoundError), self.events.open(encoding="utf-8") as file:
            file.seek(self._read)
            for line in iter(file.readline, ""):
                if not line.endswith("\n"):
                    break
                self._read = file.tell()
                event = json.loads(line)
                if event["outcome"] == "started":
                    self.at = event["test"]
                elif event["outcome"] == "ended":
                    self.ended = True
                else:
                    self.note(event["test"], event["outcome"])
                    yield event

    def note(self, test: str, outcome: str) -> None:
        self.known.add(test)
        self.counts[outcome] += 1
        self.at = "" if self.at == test else self.at

    @property
    def went_on(self) -> bool:
        """Whether this process found out about any test."""
        return len(self.known) > self._before

    def last_words(self) -> str:
        return "\n".join(self._words.read_text(errors="replace").splitlines()[-LINES:])

    def kill(self) -> None:
        end(self.process)


def run(
    files: Sequence[Path], *, jobs: int, seconds: float, until: float, options: Sequence[str],
    say: Tell, write: Tell, root: Path = ROOT,
) -> Counter[str]:  # fmt: skip
    """Run test files, `jobs` at once; how many tests passed, failed, were skipped, died or cut.

    Args:
        seconds: that a test may take. until: time (monotonic) at which all ends.
        options: of pytest. root: where it runs.
        say: what a reader wants to see at once. write: everything.
    """

    def both(text: str) -> None:
        say(text)
        write(text)

    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        waiting = [_File(path, Path(temporary), root) for path in files]
        working: list[_File] = []
        while (waiting or working) and time.monotonic() < until:
            while waiting and len(working) < jobs:
                working.append(waiting.pop(0))
                working[-1].start(options, seconds)
            time.sleep(POLL_SECONDS)
            for file in list(working):
                _look(file, both, write)
                if file.process.poll() is None:
                    continue
                _look(file, both, write)
                if _ended(file, both):
                    working.remove(file)
                    total += file.counts
                    both(_summary(file))
                else:
                    file.start(options, seconds)
        for file in working:
            _look(file, both, write)
            file.kill()
            total += file.counts
            total[CUT] += 1
            both(f"{_summary(file)}; cut: no time left, at {file.at or 'its start'}")
        for file in waiting:
            total[CUT] += 1
            both(f"{file.path.name}: cut before it began")
    return total


def end(process: subprocess.Popen[Any]) -> None:
    """Kill a process that leads a group, with all that it started and left behind."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _look(file: _File, both: Tell, write: Tell) -> None:
    for event in file.outcomes():
        noteworthy = event["outcome"] == "failed"
        (both if noteworthy else write)(_line(event))


def _ended(file: _File, both: Tell) -> bool:
    """Whether the file is done; a process that died in a test gets a successor for the rest."""
    if file.ended and file.process.returncode in ENDINGS:
        return True
    if file.at:
        words = file.last_words()
        both(_line({"outcome": DIED, "test": file.at, "text": f"{_code(file)}\n{words}"}))
        file.note(file.at, DIED)
        file.kill()  # what it left behind
        return False
    if file.went_on and not file.ended:  # it gave up by itself, as it had lost its device
        return False
    both(f"{file.path.name}: {_code(file)} without a test\n{file.last_words()}")
    file.counts[DIED] += 1
    return True


def _code(file: _File) -> str:
    return f"the process ended with {file.process.returncode}"


def _line(event: dict[str, Any]) -> str:
    notes = f"  ({'; '.join(event['notes'])})" if event.get("notes") else ""
    first = f"{event['outcome']:8}{event.get('seconds', 0):6.1f} s  {event['test']}{notes}"
    lines = event.get("text", "").splitlines()
    if event["outcome"] == "skipped":
        return f"{first}: {' '.join(lines)}"
    return "\n".join([first, *(f"    {line}" for line in lines[-LINES:])])


def _summary(file: _File) -> str:
    found = ", ".join(f"{count} {outcome}" for outcome, count in sorted(file.counts.items()))
    return f"{file.path.name}: {found or 'no test'}"
