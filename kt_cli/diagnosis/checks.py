"""The table of all checks, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from importlib import import_module

from kt_cli.diagnosis.finding import Asked, Check, Finding


def _run(module: str, function: str, asked: Asked) -> Finding | Iterable[Finding]:
    """Run a check that is imported only now: a library that is broken breaks no other check."""
    check: Check = getattr(import_module(f"kt_cli.diagnosis.{module}"), function)
    return check(asked)


CHECKS: dict[str, Check] = {
    "python": partial(_run, "installation", "python"),
    "packages": partial(_run, "installation", "packages"),
    "libraries": partial(_run, "installation", "libraries"),
    "gpus": partial(_run, "machine", "gpus"),
    "processors": partial(_run, "machine", "processors"),
    "memory": partial(_run, "machine", "memory"),
    "shared memory": partial(_run, "machine", "shared_memory"),
    "open files": partial(_run, "machine", "open_files"),
    "cache": partial(_run, "storage", "kept"),
    "disk": partial(_run, "storage", "disks"),
    "hub": partial(_run, "hub", "reachable"),
    "token": partial(_run, "hub", "token"),
    "weights": partial(_run, "hub", "weights"),
    "slurm": partial(_run, "slurm", "controller"),
    "test job": partial(_run, "slurm_job", "test_job"),
    "data": partial(_run, "data", "images"),
    "imagenet": partial(_run, "data", "imagenet"),
    "accuracy": partial(_run, "accuracy", "published_top1"),
}
