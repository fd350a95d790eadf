"""Worker processes of this machine, forked from one that has imported all that they need.

Imports take seconds of CPU time, which a small sweep would spend once a chunk. The process that
forks only imports: CUDA, threads and random numbers begin in its children. It reads orders, lines
of JSON, and answers each with the id of the worker; it ends with its input.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kt_cli.errors import KtError
from kt_cli.files import writing
from kt_cli.sweeps.jobs import alive
from kt_cli.sweeps.worker_log import heard, last_line, tell

# What runs import when they need it, and what torch does.
NEEDED = ("kt_cli.sweeps.chunk", "timm", "torch._dynamo")
PROCESSES = Path("/proc/self/stat")


@dataclass(frozen=True)
class Worker:
    """A process at work. out, err: its logs."""

    process: int
    out: Path
    err: Path

    def ended(self) -> bool:
        return not alive(self.process)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)


class Workers:
    """Starts workers, whose logs are in `folder`/logs."""

    module = __name__  # whose `main` they are forked in

    def __init__(self, folder: Path) -> None:
        self._logs = folder.absolute() / "logs"
        self._server: subprocess.Popen[str] | None = None
        self._log = Path()  # of the server's errors
        self._count = 0

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End who forks them; workers go on."""
        if self._server is not None:
            self._server.kill()
            self._server.communicate()
            self._server = None

    def start(self, *chunk: Any) -> Worker:
        """A worker that does a chunk: arguments of `run_chunk`, as JSON has them.

        Raises:
            WriteError: its logs cannot be written. KtError: it does not start.
        """
        out, err = self._new_logs()
        order = json.dumps([str(out), str(err), chunk])
        process = self._answer(order) or self._answer(order)  # by another, if one was killed
        if process is None:
            reason = last_line(self._log) or "see its log"
            raise KtError(f"a worker could not start: {reason}", f"Log: {self._log}")
        return Worker(process, out, err)

    def _answer(self, order: str) -> int | None:
        """The process that the server has forked; None where it has ended."""
        server = self._running()
        assert server.stdin is not None and server.stdout is not None
        with suppress(BrokenPipeError):
            server.stdin.write(order + "\n")
            server.stdin.flush()
            for said in server.stdout:  # among what imports print
                if process := heard(said).get("process"):
                    return int(process)
        self.close()
        return None

    def _running(self) -> subprocess.Popen[str]:
        if self._server is not None and self._server.poll() is not None:
            self.close()
        if self._server is None:
            # The folder is for who looks at processes. It has threads, all of which sleep.
            python = [sys.executable, "-u", "-W", "ignore:This process:DeprecationWarning"]
            command, pipe = [*python, "-m", self.module, str(self._logs)], subprocess.PIPE
            self._log = self._new_log("fork")
            with self._log.open("w", encoding="utf-8") as log:
                self._server = subprocess.Popen(  # noqa: S603
                    command, stdin=pipe, stdout=pipe, stderr=log, text=True
                )
        return self._server

    def _new_logs(self) -> tuple[Path, Path]:
        """Of a number that no other worker has, whichever process had our id before."""
        self._count += 1
        while self._log_of("out").exists():
            self._count += 1
        return self._new_log("out"), self._new_log("err")

    def _log_of(self, kind: str) -> Path:
        return self._logs / f"{os.getpid()}_{self._count}.{kind}"

    def _new_log(self, kind: str) -> Path:
        path = self._log_of(kind)
        with writing(path):
            self._logs.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\n")  # a full disk is known here, and not in the worker
        return path


def main() -> None:
    """Answer orders, to their end; a worker returns when it has done its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who leads ends us, without a dozen tracebacks
    if not PROCESSES.exists():  # where nobody sees who has ended; else it keeps its number for us
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for name in NEEDED:
        importlib.import_module(name)
    for order in sys.stdin:
        worker = os.fork()
        if not worker:
            return work(*json.loads(order))
        tell(process=worker)
    return None


def work(out: str, err: str, chunk: Sequence[Any]) -> None:
    """Be a worker: this process is one from here on."""
    import numpy as np

    from kt_cli.sweeps.chunk import run_chunk
    from kt_cli.sweeps.slots import Slot

    np.random.seed()  # noqa: NPY002 - of models that draw from it: not the same in all workers
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for at, path in enumerate((os.devnull, out, err)):
        file = os.open(path, os.O_WRONLY if at else os.O_RDONLY)
        os.dup2(file, at)
        os.close(file)
    manifest, start, stop, slot, *rest = chunk
    run_chunk(manifest, start, stop, Slot(*slot), *rest)


if __name__ == "__main__":
    main()
