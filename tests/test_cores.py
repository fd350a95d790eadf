"""Cores that control groups leave, and threads that commands set before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kt_cli import cores
from tests.conftest import Kt

Group = dict[str, str]  # files of control groups and what they say


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes control groups, and this process one of `own`; eight cores by affinity."""
    monkeypatch.setattr(cores, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(cores, "_chosen", "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    for name in (cores.THREADS, cores.WAITING):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)

    def make(own: str, files: Group) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return make


V1, V2 = "4:memory:/job\n1:cpu,cpuacct:/job/step\n0::/\n", "0::/job/step\n"
QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("own", "files", "found"),
    [
        (V2, {"cpu.max": "max 100000\n"}, 8),
        (V2, {"job/step/cpu.max": "250000 100000\n"}, 2),
        (V2, {"job/step/cpu.max": "max 100000\n", "job/cpu.max": "300000 100000\n"}, 3),
        (V2, {"job/step/cpu.max": "500000 100000\n", "job/cpu.max": "300000 100000\n"}, 3),
        (V2, {"cpu.max": "50000 100000\n"}, 1),  # a container, whose own group is the root
        (V2, {"cpu.max": "nonsense\n"}, 8),
        (V1, {f"cpu,cpuacct/job/step/{QUOTA}": "400000\n",
              f"cpu,cpuacct/job/step/{PERIOD}": "100000\n"}, 4),
        (V1, {f"cpu,cpuacct/{QUOTA}": "200000\n", f"cpu,cpuacct/{PERIOD}": "100000\n"}, 2),
        (V1, {f"cpu,cpuacct/{QUOTA}": "-1\n", f"cpu,cpuacct/{PERIOD}": "100000\n"}, 8),
        (V1, {f"memory/job/{QUOTA}": "100000\n", f"memory/job/{PERIOD}": "100000\n"}, 8),
        ("", {}, 8),
    ],
)  # fmt: skip
def test_cores_are_what_affinity_and_all_groups_leave(
    group, own: str, files: Group, found: int
) -> None:
    group(own, files)
    assert cores.cores() == found


def test_without_control_groups_affinity_decides(group) -> None:
    assert cores.cores() == 8 and cores.of_groups() == float("inf")


def test_a_command_sets_threads_only_where_openmp_does_not_know(group) -> None:
    group(V2, {})
    cores.settle()
    assert cores.THREADS not in os.environ and os.environ[cores.WAITING] == "PASSIVE"
    group(V2, {"cpu.max": "300000 100000\n"})
    cores.settle()
    assert os.environ[cores.THREADS] == "3"
    assert cores.threads_asked() is None  # nobody asked
    cores.settle()
    assert cores.threads_asked() is None


def test_what_the_user_set_stands(group, monkeypatch: pytest.MonkeyPatch) -> None:
    group(V2, {"cpu.max": "300000 100000\n"})
    monkeypatch.setenv(cores.THREADS, "5")
    monkeypatch.setenv(cores.WAITING, "ACTIVE")
    cores.settle()
    assert (os.environ[cores.THREADS], os.environ[cores.WAITING]) == ("5", "ACTIVE")
    assert cores.threads_asked() == 5
    for said, asked in (("4,2", 4), ("", None), ("0", None), ("many", None)):
        monkeypatch.setenv(cores.THREADS, said)
        assert cores.threads_asked() == asked


def test_few_cores_are_said(group, kt: Kt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    group(V2, {"cpu.max": "300000 100000\n"})
    monkeypatch.chdir(tmp_path)
    asked = ("sweep", "--models", "resnet18.a1_in1k,resnet34.a1_in1k", "--dry-run")
    _, out, err = kt(*asked)
    assert err.startswith("3 of 16 cores may be used here: as many threads\n")
    assert "3 processes on the CPU, 1 thread each" in out
    monkeypatch.setenv(cores.THREADS, "2")
    _, out, err = kt(*asked)
    assert "cores may be used" not in err and "1 process on the CPU, 2 threads each" in out


def test_torch_has_the_threads_that_a_command_sets(tmp_path: Path) -> None:
    """Before torch is imported; and a library that imports kt finds its environment as it was."""
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "own").write_text("0::/\n")
    code = f"""
import os, sys
from pathlib import Path
import kt_cli
from kt_cli import cores
assert not {{cores.THREADS, cores.WAITING}} & set(os.environ)
cores.GROUPS, cores.OWN_GROUPS = Path({str(tmp_path)!r}), Path({str(tmp_path / "own")!r})
cores.of_affinity = lambda: 2
sys.argv = ["kt", "--version"]
from kt_cli.cli.app import main
try: main()
except SystemExit: pass
assert "torch" not in sys.modules
import torch
print(torch.get_num_threads(), os.environ[cores.WAITING])
"""
    environment = {k: v for k, v in os.environ.items() if k not in (cores.THREADS, cores.WAITING)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1 PASSIVE"


LIMIT, USED = "memory.limit_in_bytes", "memory.usage_in_bytes"


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        (V2, {"job/step/memory.max": "max\n", "job/memory.max": "900\n",
              "job/memory.current": "200\n"}, 700),
        (V2, {"memory.max": "900\n", "memory.current": "1000\n"}, 0),  # a container
        (V1, {f"memory/job/{LIMIT}": "500\n", f"memory/job/{USED}": "100\n"}, 400),
        (V2, {}, sys.maxsize),
    ],
)  # fmt: skip
def test_memory_is_what_the_own_groups_and_those_above_leave(
    group, own: str, files: Group, left: int
) -> None:
    group(own, files)
    assert cores.memory_left() == left
