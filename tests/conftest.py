"""Shared by all tests: no network, a cache of their own, small models."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

os.environ["HF_HUB_OFFLINE"] = "1"
# Tests run side by side on models so small that threads cost more than they save.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("KT_DATA", None)
# Whatever cluster this machine belongs to; tests of clusters say so.
os.environ["KT_EXECUTOR"] = "local"

Kt = Callable[..., tuple[int, str, str]]


SLOW = "test_whole_sweep.py"  # begun last, it would keep one process busy when the other is done


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name != SLOW)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a test computes is found by another, nor by the user."""
    monkeypatch.setenv("KT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts tmp_path/name of a size such as "300k"; skips the test where that is not allowed."""
    mounted: list[Path] = []

    def mount(size: str, name: str = "disk") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)])
        if done.returncode:
            pytest.skip("cannot mount a small file system here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def repository() -> Path:
    return Path(__file__).parents[1]


@pytest.fixture
def kt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kt:
    """Run a command in this process: exit code, stdout, stderr."""

    from kt_cli.cli.app import main

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kt", *arguments])
        try:
            main()
            code = 0
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else 0 if done.code is None else 1
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def runner() -> CliRunner:
    """What runs a command of typer; stderr by itself, as by default since click 8.2."""
    before = "mix_stderr" in inspect.signature(CliRunner).parameters
    return CliRunner(**{"mix_stderr": False} if before else {})
