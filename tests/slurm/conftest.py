"""Sweeps on a real Slurm of one node; `make test-slurm` starts it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from real_sweep import Sweep, slurm_answers


@pytest.fixture(scope="session", autouse=True)
def _a_running_slurm() -> None:
    if not slurm_answers():
        message = "Slurm does not run here: make test-slurm starts it"
        (pytest.fail if os.environ.get("KT_REQUIRE_SLURM") else pytest.skip)(message)


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """The same sweep by the processes of this machine."""
    sweep = Sweep(tmp_path_factory.mktemp("local"), tmp_path_factory.mktemp("cache"))
    sweep.finish(sweep.start("--processes", "2"))
    return sweep


@pytest.fixture
def sweep(local: Sweep, tmp_path: Path) -> Iterator[Sweep]:
    """One where only the transfers are left to do."""
    made = Sweep(tmp_path, local.cache)
    skip = shutil.ignore_patterns("transfer", ".checkpoints")
    shutil.copytree(local.results, made.results, dirs_exist_ok=True, ignore=skip)
    yield made
    made.cancel_all()


@pytest.fixture
def read_only() -> Callable[[Path], AbstractContextManager[None]]:
    """An empty folder that nobody can write to, as long as the context lasts."""

    @contextmanager
    def mount(folder: Path) -> Iterator[None]:
        folder.mkdir(exist_ok=True)
        run = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
        if subprocess.run(run).returncode:
            pytest.skip("cannot mount here")
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)

    return mount
