"""float16: an overflow skips its step, and nothing else; also the very first one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gpu.toys import CONFIG, Small, assert_near, distance, spec_of, spoil, train, views_on, weights
from kt_cli.data.views import preprocess
from kt_cli.device import place
from kt_cli.distillation.batch_norm import set_training
from kt_cli.distillation.losses import distillation
from kt_cli.distillation.order import order_of
from kt_cli.settings import TransferSpec

pytestmark = pytest.mark.gpu


class Overflows:
    """The gradient of a parameter is infinite in these backward passes, counted from zero."""

    def __init__(self, module: nn.Module, passes: set[int]) -> None:
        self._passes, self._seen = passes, 0
        next(module.parameters()).register_hook(self._hook)

    def _hook(self, gradient: Tensor) -> Tensor:
        here, self._seen = self._seen in self._passes, self._seen + 1
        return torch.full_like(gradient, float("inf")) if here else gradient


def by_hand(student: nn.Module, spec: TransferSpec, device: torch.device) -> int:
    """Plain SGD in float16 with a loss scale of its own; the number of steps that it skipped."""
    views, spec = views_on(device), spec.with_defaults
    assert spec.lr is not None
    rate = spec.lr * spec.batch_size / 256
    optimizer = torch.optim.SGD(student.parameters(), rate, spec.momentum,
                                weight_decay=spec.weight_decay)  # fmt: skip
    place(student, device, spec.amp)
    teacher, prepare = Small(0).to(device).eval(), preprocess(CONFIG, device)
    order, scale, skipped = order_of(spec, len(views)), 2.0**16, 0
    set_training(student, spec.bn)
    for epoch in range(spec.epochs):
        for batch in order.batches(epoch):
            optimizer.zero_grad()
            for indices in order.micro_batches(batch):
                images = prepare(views.batch(epoch, indices))
                with torch.autocast(device.type, torch.float16):
                    with torch.no_grad():
                        target = teacher(images).float()
                    logits = student(images).float()
                loss = distillation(logits, target) * (len(indices) / len(batch))
                (loss * scale).backward()
            gradients = [p.grad for p in student.parameters() if p.grad is not None]
            if not all(bool(torch.isfinite(g).all()) for g in gradients):
                scale, skipped = scale / 2, skipped + 1
                continue
            for gradient in gradients:
                gradient.div_(scale)
            optimizer.step()
    return skipped


def without_dropout(seed: int) -> Small:
    """Its random numbers are drawn in another order by hand."""
    module = Small(seed)
    module.body[-1] = nn.Identity()
    return module


@pytest.mark.parametrize("passes", [{0}, {0, 2}, {4}], ids=["first", "first two", "a later one"])
def test_an_overflow_skips_its_step_and_nothing_else(
    passes: set[int], device: torch.device
) -> None:
    spec = spec_of(amp="float16", epochs=2)
    found, wanted = without_dropout(1).to(device), without_dropout(1).to(device)
    start = weights(found)
    spoil(device, found)
    Overflows(found, passes)
    Overflows(wanted, passes)
    train(device, spec, found)
    assert by_hand(wanted, spec, device) >= len(passes)
    moved = distance(weights(wanted), start)
    assert moved > 1e-3, "the comparison would hold for a student that did not move"
    assert_near(weights(found), weights(wanted), 0.05 * moved, "kt and plain SGD by hand are")


def test_the_scaler_is_what_skips(device: torch.device) -> None:
    """The same without an overflow goes elsewhere, so the test above can fail."""
    spec = spec_of(amp="float16", epochs=2)
    states = []
    for passes in ({0}, set[int]()):
        student = without_dropout(1).to(device)
        Overflows(student, passes)
        train(device, spec, student)
        states.append(weights(student))
    moved = distance(states[1], weights(without_dropout(1)))
    assert distance(*states) > 0.05 * moved
