from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kt_cli import cores
from kt_cli.sweeps import slots as slots_module
from kt_cli.sweeps.slots import Slot, cuda_devices, given_gpu, slots


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, ["0", "1"]),
        ("2,3", ["2", "3"]),
        ("GPU-8932f937, GPU-46a2f6b1", ["GPU-8932f937", "GPU-46a2f6b1"]),
        ("MIG-aa,MIG-bb,MIG-cc", ["MIG-aa", "MIG-bb", "MIG-cc"]),
        ("MIG-GPU-8932f937/1/0,MIG-GPU-8932f937/2/0",
         ["MIG-GPU-8932f937/1/0", "MIG-GPU-8932f937/2/0"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,,1", ["0"]),
        ("1,-1,0", ["1"]),
        ("1,1", []),
    ],
)  # fmt: skip
def test_devices_are_those_that_the_sweep_may_use(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, found: list[str]
) -> None:
    """Without CUDA, which would take memory on the first device, and of MIG counts one only."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("CUDA is started"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cuda_devices() == found


@pytest.mark.parametrize("visible", ["0", "0,1", "GPU-8932f937", "1,,2", "-1", "2,2"])
def test_names_are_read_as_torch_reads_them(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    theirs = torch.cuda._parse_visible_devices()
    assert cuda_devices() == [str(device) for device in theirs]


def test_a_job_has_the_gpu_that_it_was_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-aa")
    monkeypatch.setattr(slots_module, "DRIVER", tmp_path / "none")
    assert given_gpu() is None
    monkeypatch.setattr(slots_module, "DRIVER", tmp_path)
    assert given_gpu() == "MIG-aa"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert given_gpu() is None


def test_one_slot_a_device_with_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 16)
    monkeypatch.setattr(cores, "threads_asked", lambda: None)
    four = ["0", "1", "2", "3"]
    assert slots(None, None, four) == [Slot(d, 4) for d in four]
    assert slots(2, None, four) == [Slot("0", 8), Slot("1", 8)]
    assert slots(8, None, four) == [Slot(d, 4) for d in four]
    assert slots(None, None, []) == [Slot(None, 1)] * 16
    assert slots(8, None, []) == [Slot(None, 2)] * 8
    assert slots(8, 3, []) == [Slot(None, 5)] * 3
    monkeypatch.setattr(cores, "threads_asked", lambda: 6)
    assert slots(None, None, four) == [Slot(d, 6) for d in four]
    assert slots(None, None, []) == slots(8, None, []) == [Slot(None, 6)] * 2
    assert slots(None, 3, []) == [Slot(None, 6)] * 3
