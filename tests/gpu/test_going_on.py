"""What was stopped goes on to the same weights, in every precision and with every optimizer.

To the bit where two whole trainings are equal to the bit. Else, where the device itself adds in
no order, no further apart than ten times what these two are, or a thousandth of the way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gpu.toys import (
    AMPS,
    CONFIG,
    Small,
    distance,
    spec_of,
    state,
    train,
    views_on,
)
from kt_cli.data.views import preprocess
from kt_cli.device import place
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.pretrain import pretrain
from kt_cli.settings import PretrainSpec

pytestmark = pytest.mark.gpu
Training = Callable[[torch.device, nn.Module, str, Checkpoint | None], object]


def transfer(method: str) -> Training:
    """SGD."""

    def run(device: torch.device, module: nn.Module, amp: str, checkpoint: Any) -> object:
        return train(device, spec_of(method=method, amp=amp, lr=0.5), module, None, checkpoint)

    return run


def pretraining(**settings: Any) -> Training:
    def run(device: torch.device, module: nn.Module, amp: str, checkpoint: Any) -> object:
        spec = PretrainSpec("small", "small", epochs=3, batch_size=16, micro_batch=8, lr=0.01,
                            amp=amp, **settings)  # fmt: skip
        place(module, device, amp)
        prepare = preprocess(CONFIG, device)
        return pretrain(module, views_on(device), prepare, spec, checkpoint=checkpoint)

    return run


TRAININGS: dict[str, Training] = {
    "sgd, kl-dp": transfer("kl-dp"),
    "sgd, kl-mcl": transfer("kl-mcl"),
    "sgd, crd": transfer("crd"),
    "adamw": pretraining(optimizer="adamw"),
    "sgd, body frozen at first": pretraining(optimizer="sgd", freeze_epochs=1),
    "adamw, body frozen at first": pretraining(optimizer="adamw", freeze_epochs=1),
}


class Stopped(Exception):
    """Somebody pulled the plug."""


def attempt(
    training: Training, device: torch.device, amp: str, path: Path | None = None,
    after: int | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """As a fresh process does it; Stopped after so many forward passes."""
    torch.manual_seed(after or 0)  # whatever random numbers came before
    student, passes = Small(1).to(device), 0

    def count(module: nn.Module, inputs: Any) -> None:
        nonlocal passes
        passes += 1
        if after is not None and passes > after:
            raise Stopped

    student.register_forward_pre_hook(count)
    training(device, student, amp, Checkpoint(path, 0) if path else None)
    return state(student)


@pytest.mark.parametrize("amp", AMPS, ids=["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", TRAININGS)
def test_what_was_stopped_goes_on_to_the_same_weights(
    name: str, amp: str, device: torch.device, tmp_path: Path, record_property: Any
) -> None:
    training = TRAININGS[name]
    whole, again = (attempt(training, device, amp) for _ in range(2))
    apart, moved = distance(whole, again), distance(whole, state(Small(1)))
    bound = max(10 * apart, moved / 1000) if apart else 0.0
    record_property("two whole trainings", f"{apart:.3g} apart")
    assert moved > 1e-3, "nothing was trained"
    # Within an update and between two, in each epoch.
    for after in (5, 9, 14) if device.type == "cuda" else (9,):
        path = tmp_path / str(after)
        with pytest.raises(Stopped):
            attempt(training, device, amp, path, after)
        assert path.exists()
        found = attempt(training, device, amp, path)
        assert all(torch.isfinite(v).all() for v in found.values() if v.is_floating_point())
        assert distance(found, whole) <= bound, f"stopped after {after} passes"
