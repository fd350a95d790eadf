"""Several processes that do the same at the same time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

PROCESSES = 3
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["kt_cli.sweeps.session"])  # torch, which takes a while, once


def hammer(target: Callable[..., None], *arguments: Any) -> None:
    """Each process calls `target` with its number and `arguments`; none may fail."""
    processes = [CONTEXT.Process(target=target, args=(i, *arguments)) for i in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
