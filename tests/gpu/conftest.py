"""Outcomes are told as soon as they are known, and a test that hangs costs only itself.

`make gpu` (benchmarks/gpu.py) runs each file in a process of its own, and says in the environment
where outcomes go and how long a test may take. Without it these are ordinary tests.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kt_cli.device import context_lost, pick_device

EVENTS = os.environ.get("KT_GPU_EVENTS", "")
SECONDS = float(os.environ.get("KT_GPU_TEST_SECONDS", "0"))
LOST = 70  # exit code: the device's context is of no use to the tests that remain


@pytest.fixture
def device() -> torch.device:
    return pick_device()


@pytest.fixture(autouse=True)
def _whole_memory() -> Iterator[None]:
    """What a test allowed itself of the device's memory ends with it."""
    yield
    if torch.cuda.is_available() and not context_lost():
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def _tell(**event: Any) -> None:
    if EVENTS:
        with Path(EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")


def pytest_runtest_logstart(nodeid: str) -> None:
    _tell(test=nodeid, outcome="started")
    if SECONDS:
        faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "call" and report.passed:
        return
    text = report.longreprtext if report.failed else ""
    if report.skipped and isinstance(report.longrepr, tuple):
        text = report.longrepr[2].removeprefix("Skipped: ")
    notes = [f"{name}: {value}" for name, value in report.user_properties]
    seconds = round(report.duration, 1)
    _tell(test=report.nodeid, outcome=report.outcome, seconds=seconds, text=text, notes=notes)


def pytest_runtest_logfinish() -> None:
    faulthandler.cancel_dump_traceback_later()
    if EVENTS and context_lost():
        os._exit(LOST)


def pytest_sessionfinish() -> None:
    _tell(outcome="ended")
