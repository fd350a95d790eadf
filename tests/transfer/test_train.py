from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kt_cli.data.views import Views
from kt_cli.errors import KtError
from kt_cli.spec import Model, PretrainSpec, TransferSpec
from kt_cli.transfer import methods
from kt_cli.transfer.pretrain import lr_factor, pretrain
from kt_cli.transfer.targets import LogitsCache, Targets
from kt_cli.transfer.train import Order, distil, fit

CPU = torch.device("cpu")
N, CLASSES = 48, 3
SPEC = TransferSpec(epochs=3, lr=0.1, batch_size=16, micro_batch=16, augment="none")
TEACHER, STUDENT = Model("teacher"), Model("student")


class Tiny(nn.Module):
    def __init__(self, seed: int, norm: bool = False, dropout: float = 0.0) -> None:
        torch.manual_seed(seed)
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(),
            nn.Linear(48, 8),
            nn.BatchNorm1d(8) if norm else nn.Identity(),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(8, CLASSES),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(x)
        return out


def make_views(augment: str = "none") -> Views:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (N, 3, 4, 4), dtype=np.uint8)
    return Views(pixels, rng.integers(0, CLASSES, N), augment, 0, CPU, "x")


CONFIG = {"input_size": (3, 4, 4), "mean": (0.5,) * 3, "std": (0.5,) * 3}


def prepare(images: torch.Tensor) -> torch.Tensor:
    return (images - 0.5) / 0.5


def loaded(module: nn.Module) -> Any:
    return SimpleNamespace(module=module, config=lambda size: CONFIG)


def run(
    method: str, views: Views, student: nn.Module, teacher: nn.Module, spec: TransferSpec = SPEC,
    cache: LogitsCache | None = None, frozen: nn.Module | None = None,
) -> tuple[tuple[float, ...], float]:  # fmt: skip
    models = {"teacher": teacher, "student": frozen or Tiny(1)}
    targets = Targets(
        methods.find(method), TEACHER, STUDENT, views,
        lambda m: loaded(models[m.key]), cache or LogitsCache(),
    )  # fmt: skip
    return distil(student, views, prepare, targets.epoch, methods.find(method), spec)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def test_plain_distillation_equals_a_loop_by_hand() -> None:
    views, student, teacher = make_views(), Tiny(1), Tiny(0)
    losses, taught = run("kl", views, student, teacher)
    by_hand = Tiny(1)
    optimizer = torch.optim.SGD(by_hand.parameters(), 0.1 * 16 / 256, 0.9, weight_decay=1e-4)
    images = prepare(views.batch(0, torch.arange(N)))
    last = 0.0
    for epoch in range(3):
        last = 0.0
        for batch in Order(N, 3, 16, 16, 0).batches(epoch):
            q = teacher(images[batch]).softmax(1).detach()
            p = by_hand(images[batch]).log_softmax(1)
            loss = (q * (q.log() - p)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            last += float(loss.detach())
    assert losses[-1] == pytest.approx(last / 3, rel=1e-4)
    assert taught == 100
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(student.state_dict()[name], value, atol=1e-6, rtol=1e-5)


def test_micro_batches_accumulate_to_the_same_update() -> None:
    students = []
    for micro in (16, 5):
        student = Tiny(1)
        spec = TransferSpec(epochs=2, lr=0.1, batch_size=16, micro_batch=micro, augment="none")
        run("kl-dp", make_views(), student, Tiny(0), spec)
        students.append(student.state_dict())
    for name in students[0]:
        torch.testing.assert_close(students[0][name], students[1][name], atol=1e-6, rtol=1e-5)


def test_partitioning_takes_each_target_from_its_source() -> None:
    views, teacher, frozen = make_views(), Tiny(0), Tiny(1)
    models = {"teacher": teacher, "student": frozen}
    targets = Targets(
        methods.find("kl-dp"), TEACHER, STUDENT, views,
        lambda m: loaded(models[m.key]), LogitsCache(),
    )  # fmt: skip
    target = targets.epoch(0)
    images = prepare(views.batch(0, torch.arange(N)))
    with torch.no_grad():
        zt, zf = teacher(images), frozen(images)
    for i in range(N):
        y = int(views.labels[i])
        better = bool(zt[i].softmax(0)[y] > zf[i].softmax(0)[y])
        assert bool(target.taught[i]) == better
        torch.testing.assert_close(target.logits[i], zt[i] if better else zf[i])
    assert 0 < int(target.taught.sum()) < N


def test_teacher_and_frozen_student_do_not_change_by_a_bit() -> None:
    teacher, frozen = Tiny(0, norm=True), Tiny(1, norm=True)
    before = state(teacher), state(frozen)
    student = Tiny(1, norm=True)
    start = state(student)
    run("kl-dp", make_views("flip"), student, teacher, frozen=frozen)
    for module, values in zip((teacher, frozen), before, strict=True):
        assert all(torch.equal(module.state_dict()[k], v) for k, v in values.items())
        assert all(p.grad is None for p in module.parameters())
    assert not all(torch.equal(student.state_dict()[k], v) for k, v in start.items())


def test_a_teacher_that_knows_nothing_better_teaches_nothing() -> None:
    """The student as its own teacher: every sample is a tie, the loss is zero from the start."""
    student = Tiny(1)
    losses, taught = run("kl-dp", make_views(), student, Tiny(1))
    assert taught == 0 and losses[0] == pytest.approx(0, abs=1e-6)


def test_logits_are_computed_once_per_model_and_view() -> None:
    calls: list[str] = []

    class Counting(Tiny):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append("forward")
            return super().forward(x)

    cache = LogitsCache()
    for method in ("kl", "kl-dp", "kl-dp-u"):
        run(method, make_views(), Tiny(1), Counting(0), cache=cache)
    assert len(calls) == 1
    cache = LogitsCache(budget=0)
    run("kl", make_views("flip"), Tiny(1), Counting(0), cache=cache)
    assert len(calls) == 1 + SPEC.epochs


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_kept_logits_and_fresh_ones_give_the_same_student(augment: str) -> None:
    cache = LogitsCache()
    first, second, third = (Tiny(1, norm=True, dropout=0.3) for _ in range(3))
    run("kl-dp", make_views(augment), first, Tiny(0), cache=cache)
    run("kl-dp", make_views(augment), second, Tiny(0), cache=cache)
    run("kl-dp", make_views(augment), third, Tiny(0), cache=LogitsCache(budget=0))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
        assert torch.equal(value, third.state_dict()[name])


def test_the_budget_holds_and_keeps_the_newest() -> None:
    cache = LogitsCache(budget=3 * 40)
    made: list[str] = []

    def get(key: str) -> None:
        def compute() -> torch.Tensor:
            made.append(key)
            return torch.zeros(10)

        cache.get(key, compute)

    for key in ("a", "b", "c", "a", "d", "a", "b"):
        get(key)
    assert made == ["a", "b", "c", "d", "b"]


def test_an_epoch_goes_through_everything_once_in_whole_batches() -> None:
    order = Order(n=50, epochs=2, batch_size=16, micro_batch=6, seed=3)
    epochs = [torch.cat(list(order.batches(e))) for e in range(2)]
    assert all(len(e) == len(set(e.tolist())) == 48 for e in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(epochs[0], torch.cat(list(order.batches(0))))
    (batch, *_) = order.batches(0)
    assert [len(m) for m in order.micro_batches(batch)] == [6, 5, 5]
    small = Order(n=5, epochs=1, batch_size=16, micro_batch=4, seed=0)
    (whole,) = small.batches(0)
    assert [len(m) for m in small.micro_batches(whole)] == [3, 2]


def test_a_loss_that_is_not_finite_stops_with_its_epoch() -> None:
    module = Tiny(0)
    optimizer = torch.optim.SGD(module.parameters(), 1.0)

    def epoch_loss(epoch: int) -> Any:
        return lambda indices: module(torch.ones(1, 48)).sum() * (float("nan") if epoch else 1.0)

    with pytest.raises(KtError, match="nan in epoch 2"):
        fit(module, optimizer, epoch_loss, Order(4, 3, 4, 4, 0), CPU)


@pytest.fixture
def learnable() -> Iterator[Views]:
    labels = np.arange(N) % CLASSES
    pixels = np.zeros((N, 3, 4, 4), np.uint8)
    pixels[np.arange(N), labels] = 255
    yield Views(pixels, labels, "none", 0, CPU)


def test_pretraining_learns(learnable: Views) -> None:
    module = Tiny(0)
    spec = PretrainSpec("x", "tiny", epochs=30, lr=0.05, batch_size=16)
    losses = pretrain(module, learnable, prepare, spec)
    predicted = module(prepare(learnable.batch(0, torch.arange(N)))).argmax(1)
    assert len(losses) == 30 and losses[-1] < 0.2 * losses[0]
    assert torch.equal(predicted, learnable.labels)


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    factors = [lr_factor(step, 100) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == factors[9] == 1
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    assert factors[100] == pytest.approx(0, abs=1e-9)
