"""The steps of a training queue work and never wait for the device."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch

from gpu.toys import (
    CONFIG,
    Small,
    no_waiting,
    only_on_cuda,
    spec_of,
    train,
    views_on,
)
from kt_cli.data.augmentations import AUGMENTS
from kt_cli.data.views import preprocess
from kt_cli.device import place
from kt_cli.distillation import train as loop
from kt_cli.distillation.methods import METHODS
from kt_cli.distillation.pretrain import pretrain
from kt_cli.distillation.target_cache import Disk, Memory
from kt_cli.settings import PretrainSpec

pytestmark = pytest.mark.gpu
KEPT = {"cached": Memory, "cached on disk": Disk, "online": lambda: None}


class Steps:
    """From the end of an epoch's beginning to the beginning of its end, nobody may wait."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stack, self.epochs = device, ExitStack(), 0

    def begin(self) -> None:
        self._stack.enter_context(no_waiting(self._device))
        self.epochs += 1

    def end(self) -> None:
        self._stack.close()


@pytest.fixture
def steps(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Watches whatever `fit` does between an epoch's beginning and its end."""
    steps, training, end = Steps(device), loop.set_training, loop._State.end

    def begins(*arguments: Any) -> None:
        training(*arguments)
        steps.begin()

    def ends(*arguments: Any) -> None:
        steps.end()
        end(*arguments)

    monkeypatch.setattr(loop, "set_training", begins)
    monkeypatch.setattr(loop._State, "end", ends)
    yield steps
    steps.end()  # where it broke off


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("method", METHODS)
def test_no_step_of_a_transfer_waits(
    method: str, kept: str, device: torch.device, steps: Steps
) -> None:
    spec = spec_of(method=method, epochs=2, lr=0.1)
    train(device, spec, Small(1).to(device), KEPT[kept]())
    assert steps.epochs == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "kl-mcl", "reference_compat": True},
        {"method": "xekl", "kd_topk": 2, "distil_on": "positive"},
        {"method": "kl", "target_topk": 2},
        {"method": "kl-dp", "bn": "eval"},
        {"method": "kl-dp", "amp": "bfloat16"},
        pytest.param(
            {"method": "kl-dp", "amp": "float16"},
            marks=only_on_cuda("on the CPU torch's scaler itself reads back whether to step"),
        ),
        *({"augment": augment} for augment in AUGMENTS if augment != "none"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kept", ["cached", "online"])
def test_nor_with_other_settings(
    settings: dict[str, Any], kept: str, device: torch.device, steps: Steps
) -> None:
    spec = spec_of(epochs=2, lr=0.1, **settings)
    train(device, spec, Small(1).to(device), KEPT[kept]())
    assert steps.epochs == 2


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_nor_does_one_of_a_pretraining(optimizer: str, device: torch.device, steps: Steps) -> None:
    if device.type == "cpu" and optimizer == "adamw":
        pytest.skip("on the CPU torch's AdamW itself reads back how many steps there were")
    spec = PretrainSpec("small", "small", epochs=2, batch_size=16, micro_batch=8,
                        optimizer=optimizer, augment="affine", freeze_epochs=1)  # fmt: skip
    module = place(Small(1), device)
    pretrain(module, views_on(device, "affine"), preprocess(CONFIG, device), spec)
    assert steps.epochs == 2


def test_what_waits_is_found(device: torch.device) -> None:
    values = torch.ones(3, device=device)
    with pytest.raises(RuntimeError), no_waiting(device):
        values.sum().item()
    assert values.sum().item() == 3
