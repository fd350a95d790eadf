"""Tests run apart: what hangs, dies or loses its device costs itself only."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from benchmarks import apart

HARD = """
import os
import time

import pytest
import torch

pytestmark = pytest.mark.gpu


def test_passes():
    pass


def test_dies():
    os.write(2, b"last words")
    os._exit(3)


def test_fails(record_property):
    record_property("measured", 5)
    assert 1 == 2


def test_loses_its_device(monkeypatch):
    torch.cuda.is_initialized = lambda: True
    torch.cuda.synchronize = _lost


def _lost():
    raise RuntimeError("CUDA error: device-side assert triggered")


@pytest.mark.skip(reason="nothing to see")
def test_is_skipped():
    pass


def test_hangs():
    time.sleep(1000)


def test_comes_last():
    assert torch.cuda.synchronize is not _lost, "the process that lost its device went on"
"""
BROKEN = "import nothing_of_this_name"
SLOW = """
import time

import pytest


@pytest.mark.gpu
def test_takes_too_long():
    time.sleep(1000)
"""


def test_every_other_test_has_its_outcome(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "gpu" / "conftest.py", tmp_path)
    files = []
    for name, source in (("hard", HARD), ("broken", BROKEN)):
        files.append(tmp_path / f"test_{name}.py")
        files[-1].write_text(source)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: of a device\n")
    said: list[str] = []
    written: list[str] = []
    found = apart.run(
        files, jobs=2, seconds=12, until=time.monotonic() + 200, options=(), say=said.append,
        write=written.append, root=tmp_path,
    )  # fmt: skip
    text = "\n".join(written)
    assert dict(found) == {"passed": 3, "failed": 1, "skipped": 1, apart.DIED: 3}, text
    assert "last words" in text and "the process ended with 3" in text
    assert "measured: 5" in text and "assert 1 == 2" in text and "nothing to see" in text
    assert "Timeout (0:00:12)" in text and "in test_hangs" in text
    assert "nothing_of_this_name" in text
    assert set(said) < set(written)


def test_what_does_not_end_in_time_is_cut(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "gpu" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: of a device\n")
    files = [tmp_path / f"test_{name}.py" for name in ("slow", "later")]
    for file in files:
        file.write_text(SLOW)
    said: list[str] = []
    start = time.monotonic()
    found = apart.run(
        files, jobs=1, seconds=500, until=start + 2, options=(), say=said.append,
        write=said.append, root=tmp_path,
    )  # fmt: skip
    assert found == {apart.CUT: 2} and time.monotonic() - start < 20
    assert "cut before it began" in said[-1]
