from __future__ import annotations

import pytest
import torch

from kt_cli.sweep.slots import Slot, chunk_count, cuda_devices, slots


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, ["0", "1"]),
        ("2,3", ["2", "3"]),
        ("GPU-8932f937, GPU-46a2f6b1", ["GPU-8932f937", "GPU-46a2f6b1"]),
    ],
)
def test_devices_are_those_that_the_sweep_may_use(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, found: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cuda_devices() == found


def test_one_slot_a_device_with_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    four = ["0", "1", "2", "3"]
    assert slots(None, None, four) == [Slot(d, 4) for d in four]
    assert slots(2, None, four) == [Slot("0", 8), Slot("1", 8)]
    assert slots(8, None, four) == [Slot(d, 4) for d in four]
    assert slots(None, None, []) == [Slot(None, 1)] * 16
    assert slots(8, None, []) == [Slot(None, 2)] * 8
    assert slots(8, 3, []) == [Slot(None, 5)] * 3


def test_chunks_are_one_a_slot_and_not_too_long() -> None:
    assert [chunk_count(n, 8) for n in (0, 3, 8, 400, 1000)] == [0, 3, 8, 8, 20]
