"""The loop and the order of samples, against loops by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kt_cli.distillation import checkpoint
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.order import Order
from kt_cli.distillation.train import Loop, LossOf, NotFinite, fit
from kt_cli.errors import KtError
from tests.distillation.toys import N, Tiny, assert_near, assert_same, make_views, prepare, state

ORDER = Order(n=N, epochs=3, batch_size=16, micro_batch=8, seed=0)


def learning(module: nn.Module, change: Callable[[int], float] = lambda update: 1.0) -> LossOf:
    """Cross-entropy, and how many are right; `change` multiplies the loss of a forward pass."""
    labels, passes = make_views().labels, iter(range(10**6))

    def loss_of(epoch: int, indices: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = module(prepare(images)).float()
        right = logits.argmax(dim=1) == labels[indices]
        loss = F.cross_entropy(logits, labels[indices]) * change(next(passes))
        return loss, torch.stack([right.sum(), indices.sum()])

    return loss_of


def sgd(module: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)


def run(module: nn.Module, order: Order = ORDER, loop: Loop = Loop(), **more: Any) -> Any:
    return fit(module, sgd(module), make_views(), learning(module, **more), 2, order, loop)


# --- the order -----------------------------------------------------------------------------------


def test_an_epoch_goes_through_everything_once_in_whole_batches() -> None:
    order = Order(n=50, epochs=2, batch_size=16, micro_batch=6, seed=3)
    epochs = [torch.cat(list(order.batches(e))) for e in range(2)]
    assert all(len(e) == len(set(e.tolist())) == order.samples_per_epoch == 48 for e in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(epochs[0], torch.cat(list(order.batches(0))))
    (batch, *_) = order.batches(0)
    assert [len(m) for m in order.micro_batches(batch)] == [6, 5, 5]
    assert torch.equal(torch.cat(order.micro_batches(batch)), batch)
    assert (order.updates_per_epoch, order.updates) == (3, 6)


def test_the_order_changes_with_the_seed() -> None:
    one, other = (Order(50, 1, 50, 50, seed) for seed in (3, 4))
    assert not torch.equal(next(one.batches(0)), next(other.batches(0)))


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    small = Order(n=5, epochs=1, batch_size=16, micro_batch=4, seed=0)
    (whole,) = small.batches(0)
    assert sorted(whole.tolist()) == list(range(5)) and small.samples_per_epoch == 5
    assert [len(m) for m in small.micro_batches(whole)] == [3, 2]


def test_no_micro_batch_is_a_lone_sample() -> None:
    order = Order(n=65, epochs=1, batch_size=65, micro_batch=64, seed=0)
    (batch,) = order.batches(0)
    assert [len(m) for m in order.micro_batches(batch)] == [33, 32]


# --- the loop ------------------------------------------------------------------------------------


def test_training_equals_a_loop_by_hand() -> None:
    views, module, by_hand = make_views(), Tiny(1), Tiny(1)
    curve = run(module, loop=Loop(lr_factor=lambda update: 1 / (1 + update)))
    weights, velocity = dict(by_hand.named_parameters()), dict[str, Tensor]()
    update = 0
    for epoch in range(3):
        losses, right, places = list[float](), 0, 0
        for batch in ORDER.batches(epoch):
            logits = by_hand(prepare(views.batch(epoch, batch)))
            loss = -logits.log_softmax(1)[torch.arange(16), views.labels[batch]].mean()
            grads = torch.autograd.grad(loss, list(weights.values()))
            with torch.no_grad():
                for (name, value), grad in zip(weights.items(), grads, strict=True):
                    decayed = grad + 1e-3 * value
                    velocity[name] = 0.9 * velocity.get(name, torch.zeros_like(value)) + decayed
                    value.sub_(0.1 / (1 + update) * velocity[name])
            update += 1
            losses.append(float(loss.detach()))
            right += int((logits.argmax(1) == views.labels[batch]).sum())
            places += int(batch.sum())
        assert curve.losses[epoch] == pytest.approx(sum(losses) / 3, rel=1e-5)
        counted = [percent[epoch] for percent in curve.counted]
        assert counted == pytest.approx([100 * right / N, 100 * places / N])
    assert_near(module.state_dict(), by_hand.state_dict())
    assert not module.training and 0 <= curve.waiting <= 100


@pytest.mark.parametrize("micro", [16, 5, 3, 1])
def test_micro_batches_accumulate_to_the_same_update(micro: int) -> None:
    whole, parts = Tiny(1), Tiny(1)
    wanted = run(whole, Order(N, 3, 16, 16, 0))
    found = run(parts, Order(N, 3, 16, micro, 0))
    assert_near(parts.state_dict(), whole.state_dict())
    assert found.losses == pytest.approx(wanted.losses, rel=1e-5)
    torch.testing.assert_close(torch.tensor(found.counted), torch.tensor(wanted.counted))


def test_what_happens_around_an_update_happens_in_order() -> None:
    told: list[str] = []
    loop = Loop(
        begin_epoch=lambda epoch: told.append(f"begin {epoch}"),
        after_update=lambda updates: told.append(f"update {updates}"),
        on_epoch=lambda done, total: told.append(f"done {done} of {total}"),
    )
    run(Tiny(1), Order(N, 2, 24, 24, 0), loop)
    assert told == ["begin 0", "update 1", "update 2", "done 1 of 2",
                    "begin 1", "update 3", "update 4", "done 2 of 2"]  # fmt: skip


def test_dropout_depends_on_the_update_alone() -> None:
    def disturbed(_: int) -> None:
        torch.rand(7)

    modules = [Tiny(1, dropout=0.5) for _ in range(3)]
    run(modules[0])
    torch.manual_seed(123)
    run(modules[1], loop=Loop(begin_epoch=disturbed, after_update=disturbed))
    run(modules[2], Order(N, 3, 16, 8, seed=1))
    assert_same(modules[0].state_dict(), modules[1].state_dict())
    assert not torch.equal(modules[0].head.weight, modules[2].head.weight)


def test_each_update_drops_others() -> None:
    module, masks = nn.Dropout(0.5), list[Tensor]()
    weight = nn.Parameter(torch.ones(64))

    def loss_of(epoch: int, indices: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        kept = module(weight)
        masks.append(kept.detach() > 0)
        return kept.sum(), torch.zeros(0)

    optimizer = torch.optim.SGD([weight], lr=1e-9)
    fit(module, optimizer, make_views(), loss_of, 0, ORDER)
    assert len({tuple(mask.tolist()) for mask in masks}) == len(masks) == 18


@pytest.mark.parametrize("bn", ["train", "eval"])
def test_running_statistics_are_updated_or_kept(bn: str) -> None:
    module = Tiny(1, norm=True)
    before = state(module)
    run(module, loop=Loop(bn=bn))
    names = [f"body.2.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")]
    moved = [not torch.equal(before[name], module.state_dict()[name]) for name in names]
    assert moved == [bn == "train"] * 3
    assert not torch.equal(before["body.2.weight"], module.state_dict()["body.2.weight"])


def test_mixed_precision_is_near_full_precision() -> None:
    full, mixed, kinds = Tiny(1), Tiny(1), set[torch.dtype]()
    mixed.head.register_forward_hook(lambda *said: kinds.add(said[2].dtype))
    wanted = run(full)
    found = run(mixed, loop=Loop(amp="bfloat16"))
    assert kinds == {torch.bfloat16}
    assert found.losses == pytest.approx(wanted.losses, rel=0.02)
    for name, value in mixed.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full.state_dict()[name], atol=0.05, rtol=0.05)
    assert not torch.equal(mixed.head.weight, full.head.weight)


# --- losses that are not finite ------------------------------------------------------------------


def broken_at(forward_pass: int, value: float = math.nan) -> Callable[[int], float]:
    return lambda passes: value if passes == forward_pass else 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_a_loss_that_is_not_finite_names_its_update(
    tmp_path: Path, value: float, seconds: float
) -> None:
    """Two forward passes an update, three updates an epoch."""
    kept = Checkpoint(tmp_path / "state", seconds)
    with pytest.raises(NotFinite, match=rf"{value} at update 5 \(epoch 2\)") as caught:
        run(Tiny(1), loop=Loop(checkpoint=kept), change=broken_at(9, value))
    assert isinstance(caught.value, KtError) and "learning rate" in caught.value.tip


def test_without_a_checkpoint_it_is_named_too() -> None:
    with pytest.raises(NotFinite, match=r"nan at update 1 \(epoch 1\)"):
        run(Tiny(1), change=broken_at(0))


@pytest.mark.parametrize(("seconds", "last"), [(0.0, 4), (1e9, 3)])
def test_the_module_is_left_at_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, last: int
) -> None:
    """After an update, or an epoch."""
    monkeypatch.setattr(checkpoint, "WORTH_SECONDS", 0.0)
    module, states = Tiny(1, norm=True), list[dict[str, Tensor]]()
    counts = torch.zeros(1)

    def after_update(updates: int) -> None:
        counts.fill_(updates)
        states.append(state(module))

    loop = Loop(
        after_update=after_update,
        kept={"mine": {"counts": counts}},
        checkpoint=Checkpoint(tmp_path / "state", seconds),
    )
    with pytest.raises(NotFinite, match="update 5"):
        run(module, loop=loop, change=broken_at(8))
    assert_same(module.state_dict(), states[last - 1])
    assert counts.item() == last
