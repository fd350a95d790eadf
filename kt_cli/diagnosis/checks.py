"""The table of all checks, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from kt_cli.diagnosis.finding import Asked, Check, Finding


def _check(module: str, function: str) -> Check:
    """A check that is imported when it runs: a library that is broken breaks no other check."""

    def run(asked: Asked) -> Iterable[Finding]:
        check: Check = getattr(import_module(f"kt_cli.diagnosis.{module}"), function)
        return check(asked)

    return run


CHECKS: dict[str, Check] = {
    "python": _check("installation", "python"),
    "packages": _check("installation", "packages"),
    "libraries": _check("installation", "libraries"),
    "gpus": _check("machine", "gpus"),
    "processors": _check("machine", "processors"),
    "memory": _check("machine", "memory"),
    "shared memory": _check("machine", "shared_memory"),
    "open files": _check("machine", "open_files"),
    "cache": _check("storage", "kept"),
    "disk": _check("storage", "disks"),
    "hub": _check("hub", "reachable"),
    "token": _check("hub", "token"),
    "weights": _check("hub", "weights"),
    "slurm": _check("slurm", "cluster"),
    "test job": _check("slurm_job", "test_job"),
    "data": _check("data", "images"),
    "imagenet": _check("data", "imagenet"),
    "accuracy": _check("accuracy", "published_top1"),
}
