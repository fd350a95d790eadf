"""Ten students in one process under --compile: none falls back to running uncompiled.

torch.compile gives up on a function that it had to compile anew too often, and says so in its log
only; all students of a class share their functions.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from gpu.toys import spec_of
from gpu.zoo import functions, named, run_of
from kt_cli.runs.transfer import transfer_run

pytestmark = pytest.mark.gpu
STUDENTS = 10

MODELS = """
import torch
from torch import nn


class Net(nn.Module):
    num_classes = 10
    data_config = {"input_size": (3, 32, 32)}

    def __init__(self, width):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(width)
            self.body = nn.Linear(3 * 32 * 32, width)
            self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(torch.relu(self.body(x.flatten(1))))

"""


@pytest.fixture
def backend(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> str:
    """Inductor on a CUDA device; on the CPU, where its C++ takes minutes, what traces alone."""
    if device.type == "cpu":
        compiled = torch.compile
        monkeypatch.setattr(torch, "compile", lambda module: compiled(module, backend="eager"))
        return "eager"
    if shutil.which("gcc") is None and shutil.which("cc") is None and shutil.which("clang") is None:
        pytest.skip("Triton needs a C compiler, and there is none")
    pytest.importorskip("triton", reason="torch.compile needs Triton here")
    return "inductor"


def test_ten_students_are_compiled(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:  # fmt: skip
    widths = range(8, 8 + 2 * STUDENTS, 2)
    source = MODELS + "\n".join(f"def net{w}():\n    return Net({w})\n" for w in widths)
    functions(tmp_path, "compiled_models", source, monkeypatch)
    teacher, *students = (named(f"py:compiled_models:net{w}") for w in (8, *widths))
    spec = spec_of(method="kl", epochs=1, lr=0.01, batch_size=64, micro_batch=64, compile=True)
    with _given_up() as said:
        for student in students:
            transfer_run(run_of(spec, teacher, student), tmp_path)
    assert not said, said[0]
    frames = _frames()
    record_property("functions compiled", f"{frames} by {backend}")
    assert frames is None or frames > 0


@contextmanager
def _given_up() -> Iterator[list[str]]:
    """What torch.compile says where it gives up (recompile_limit, once cache_size_limit)."""
    said: list[str] = []
    handler, logger = logging.Handler(logging.WARNING), logging.getLogger("torch._dynamo")
    handler.emit = lambda record: _note(said, record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def _note(said: list[str], message: str) -> None:
    if "_limit" in message:
        said.append(message)


def _frames() -> int | None:
    """How often a function was compiled in this process; None where torch does not say."""
    from torch._dynamo.utils import counters

    return counters["frames"].get("ok") if "frames" in counters else None
