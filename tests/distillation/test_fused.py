"""The loop with fused optimizers, as a GPU has them: overflow, memory formats, going on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kt_cli.distillation import pretrain
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.order import Order
from kt_cli.distillation.train import Loop, fit
from kt_cli.errors import KtError
from kt_cli.settings import PretrainSpec
from tests.distillation.toys import CLASSES, N, assert_near, assert_same, make_views, prepare, state

ORDER = Order(n=N, epochs=3, batch_size=16, micro_batch=8, seed=0)
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adamw": partial(torch.optim.AdamW, lr=0.01),
}


def convolutional(channels_last: bool = True) -> nn.Module:
    """Kernels of one pixel and of several, statistics, dropout, and a parameter without a shape."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1),
        nn.Dropout(0.2), nn.PReLU(), nn.Conv2d(4, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, CLASSES),
    )  # fmt: skip
    made.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
    return made.to(memory_format=torch.channels_last) if channels_last else made


def run(
    module: nn.Module,
    amp: str = "",
    optimizer: str = "sgd",
    overflows: int = 0,
    fused: bool = True,
    **loop: Any,
) -> Any:
    """Training whose first `overflows` updates have gradients that half precision cannot hold."""
    views, updates = make_views(), itertools.count()

    def loss_of(epoch: int, indices: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = module(prepare(images)) * module.scale
        loss = F.cross_entropy(logits.float(), views.labels[indices])
        return loss * (1e20 if next(updates) < 2 * overflows else 1), torch.zeros(0)

    chosen = OPTIMIZERS[optimizer](module.parameters(), fused=fused)
    return fit(module, chosen, views, loss_of, 0, ORDER, Loop(amp, **loop))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("overflows", [1, 2])
def test_an_overflow_in_the_first_updates_costs_these_updates_alone(
    optimizer: str, overflows: int
) -> None:
    """Memory that nobody set is whatever was there before: here numbers that are none."""
    torch.full((1000,), float("nan"))
    module, other = convolutional(), convolutional()
    start, states = state(module), list[dict[str, Tensor]]()
    run(
        module, "float16", optimizer, overflows, after_update=lambda _: states.append(state(module))
    )
    run(other, "float16", optimizer, overflows, fused=False)
    for skipped in states[:overflows]:
        for name, value in module.named_parameters():
            assert torch.equal(skipped[name], start[name]), name
            assert not torch.equal(value, start[name]), name
    assert_near(module.state_dict(), other.state_dict())


@pytest.mark.parametrize("fused", [True, False])
def test_a_training_without_any_update_is_no_result(fused: bool) -> None:
    with pytest.raises(KtError, match="no update was made") as caught:
        run(convolutional(), "float16", overflows=9, fused=fused)
    assert "bfloat16" in caught.value.tip
    run(convolutional(), "float16", overflows=8, fused=fused)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("amp", ["", "bfloat16", "float16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_what_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, amp: str, optimizer: str, channels_last: bool
) -> None:
    """In every memory format; with the scale that half precision came to."""
    wanted, overflows = convolutional(channels_last), int(amp == "float16")
    run(wanted, amp, optimizer, overflows)
    for stop in (1, 2, 4, 9):
        kept = Checkpoint(tmp_path / f"{stop}", seconds=0)

        def interrupt(updates: int, stop: int = stop) -> None:
            if updates == stop:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            run(convolutional(channels_last), amp, optimizer, overflows, checkpoint=kept,
                after_update=interrupt)  # fmt: skip
        module = convolutional(channels_last)
        # Stopped before the first update was kept, it is done again.
        run(module, amp, optimizer, overflows if stop == 1 else 0, checkpoint=kept)
        assert_same(module.state_dict(), wanted.state_dict())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_frozen_body_is_trained_later(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = {"sgd": "SGD", "adamw": "AdamW"}[optimizer]
    plain = getattr(torch.optim, kind)
    found = []
    for fused in (True, False):

        def made(*groups: Any, fused: bool, force: bool = fused, **settings: Any) -> Any:
            return plain(*groups, fused=force, **settings)

        monkeypatch.setattr(torch.optim, kind, made)
        module = Headed()
        before = state(module)
        spec = PretrainSpec("x", "tiny", epochs=3, lr=0.02, batch_size=16, micro_batch=8,
                            optimizer=optimizer, freeze_epochs=2)  # fmt: skip
        pretrain.pretrain(module, make_views(), prepare, spec)
        assert not any(torch.equal(v, before[k]) for k, v in module.named_parameters())
        found.append(module.state_dict())
    assert_near(*found)


class Headed(nn.Sequential):
    """With a classifier as timm's models have it."""

    def __init__(self) -> None:
        super().__init__(*convolutional().children())

    def get_classifier(self) -> nn.Module:
        return self[-1]
