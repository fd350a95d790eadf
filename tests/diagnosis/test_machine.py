from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kt_cli import cores
from kt_cli.diagnosis import machine

Look = Callable[..., list[tuple[str, str]]]
Commands = Callable[..., None]
DRIVER = {"nvidia-smi": "echo 'NVIDIA H100, 550.54'; echo 'NVIDIA H100, 550.54'"}


def cuda(monkeypatch: pytest.MonkeyPatch, count: int, free: int = 70, half: bool = True) -> None:
    """A machine with so many GPUs of 80 GB; what is computed there is computed here."""
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda n, device: ones(n))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "H100")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8 if half else 7, 0))


def test_no_gpu_is_no_fault(
    look: Look, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands({})
    cuda(monkeypatch, 0)
    ((level, said),) = look(machine.gpus)
    assert level == "yellow" and "no GPU" in said


@pytest.mark.parametrize(
    ("built", "advice"), [("12.4", "CUDA_VISIBLE_DEVICES"), (None, "built without CUDA")]
)
def test_gpus_that_torch_does_not_see(
    look: Look, commands: Commands, monkeypatch: pytest.MonkeyPatch, built: str | None, advice: str
) -> None:
    commands(DRIVER)
    cuda(monkeypatch, 0)
    monkeypatch.setattr(torch.version, "cuda", built)
    ((level, said),) = look(machine.gpus)
    assert level == "red" and "2 GPUs (NVIDIA H100, 550.54)" in said and advice in said


def test_gpus_are_shown_with_memory_types_and_driver(
    look: Look, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(DRIVER)
    cuda(monkeypatch, 2)
    said = look(machine.gpus)
    assert [level for level, _ in said] == ["green"] * 2
    assert said[1][1].startswith("1: H100, 70.0 of 80.0 GB free, bfloat16, driver 550.54")


def test_a_gpu_that_others_use(
    look: Look, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands({})
    cuda(monkeypatch, 1, free=2, half=False)
    ((level, said),) = look(machine.gpus)
    assert level == "yellow" and "float16 only, driver unknown" in said


def test_a_gpu_that_does_not_compute(
    look: Look, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(n: int, device: str) -> None:
        raise RuntimeError("no kernel image is available\nfor this device")

    commands({})
    cuda(monkeypatch, 1)
    monkeypatch.setattr(torch, "ones", fail)
    ((level, said),) = look(machine.gpus)
    assert level == "red" and "no kernel image is available →" in said


@pytest.mark.parametrize(("seen", "level"), [(0, "yellow"), (1, "red")])
def test_a_driver_that_complains_is_not_taken_for_no_gpu(
    look: Look, commands: Commands, monkeypatch: pytest.MonkeyPatch, seen: int, level: str
) -> None:
    lost = "Unable to determine the device handle for GPU0000:C1:00.0: Unknown Error"
    commands({"nvidia-smi": f"echo '{lost}'; exit 255"})
    cuda(monkeypatch, seen)
    (first, *rest) = look(machine.gpus)
    assert first[0] == level and lost in first[1] and len(rest) == seen


def test_gpus_that_torch_lost(
    look: Look, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(DRIVER)
    cuda(monkeypatch, 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    said = look(machine.gpus)
    assert [level for level, _ in said] == ["red", "green"]
    assert "torch sees 1 of the driver's 2 GPUs" in said[0][1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [level for level, _ in look(machine.gpus)] == ["green"]


def test_a_gpu_without_a_name_is_a_finding_too(
    look: Look, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(index: int) -> str:
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")

    commands({})
    cuda(monkeypatch, 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", fail)
    ((level, said),) = look(machine.gpus)
    assert level == "red" and "GPU 0 does not compute" in said and "ECC" in said


def test_mig_devices_are_named_so_that_a_sweep_can_use_them(
    look: Look, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = "".join(f"  MIG 3g.40gb     Device  {i}: (UUID: MIG-{i}{i})\n" for i in range(2))
    commands({"nvidia-smi": f"[ $1 = -L ] && printf '{listed}' || echo 'NVIDIA H100, 550.54'"})
    cuda(monkeypatch, 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    said = look(machine.gpus)
    assert [level for level, _ in said] == ["yellow", "green"]
    assert "CUDA_VISIBLE_DEVICES=MIG-00,MIG-11" in said[0][1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-00,MIG-11")
    assert [level for level, _ in look(machine.gpus)] == ["green"]


def control_group(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "own").write_text("0::/")
    monkeypatch.setattr(cores, "GROUPS", folder)
    monkeypatch.setattr(cores, "OWN_GROUPS", folder / "own")


@pytest.mark.parametrize(
    ("quota", "level"), [("max 100000", "green"), ("150000 100000", "yellow"), (None, "green")]
)
def test_the_share_of_a_control_group(
    look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str | None, level: str
) -> None:
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    control_group(monkeypatch, tmp_path)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 9.0, 9.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    ((found, said),) = look(machine.processors)
    assert found == level and said.startswith("8 of ")
    assert ("allows 1.5 cores" in said and "OMP_NUM_THREADS=1." in said) == (level == "yellow")


@pytest.mark.parametrize(("load", "level"), [(8.5, "green"), (11.0, "yellow")])
def test_a_busy_machine_is_named(
    look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: float, level: str
) -> None:
    control_group(monkeypatch, tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    ((found, said),) = look(machine.processors)
    assert found == level and said.startswith("8 of 8 cores, 1 thread")
    assert ("a load of 11.0" in said) == (level == "yellow")


def test_more_threads_than_cores(
    look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    control_group(monkeypatch, tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3}, raising=False)
    ((level, said),) = look(machine.processors)
    assert level == "yellow" and "set it to 2" in said


@pytest.mark.parametrize(("free", "level"), [(16, "green"), (3, "yellow")])
def test_memory(look: Look, monkeypatch: pytest.MonkeyPatch, free: int, level: str) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda device: free * 10**9)
    ((found, said),) = look(machine.memory)
    assert found == level and f"{free}.0 GB" in said


@pytest.mark.parametrize(("blocks", "level"), [(10**6, "green"), (15625, "yellow")])
def test_shared_memory(
    look: Look, monkeypatch: pytest.MonkeyPatch, blocks: int, level: str
) -> None:
    stat = SimpleNamespace(f_bavail=blocks, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda path: stat)
    ((found, said),) = look(machine.shared_memory)
    assert found == level and f"{blocks * 4096 / 1e9:.2f} GB" in said
    assert ("--shm-size" in said) == (level == "yellow")


def test_no_shared_memory(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "SHARED", tmp_path / "none")
    assert look(machine.shared_memory)[0][0] == "yellow"


@pytest.mark.parametrize(
    ("soft", "level"), [(256, "yellow"), (4096, "green"), (resource.RLIM_INFINITY, "green")]
)
def test_open_files(look: Look, monkeypatch: pytest.MonkeyPatch, soft: int, level: str) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, 65536))
    ((found, said),) = look(machine.open_files)
    assert found == level and ("ulimit -n 65536" in said) == (level == "yellow")
