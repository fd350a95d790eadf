"""Around the loss: slow weights, running statistics, precision, numbers that are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.train import NotFinite
from tests.distillation.by_hand import assert_curve, by_hand
from tests.distillation.toys import (
    SPEC,
    N,
    Tiny,
    assert_near,
    assert_same,
    make_views,
    prepare,
    state,
    train,
)

# --- slow weights --------------------------------------------------------------------------------

TAU = 0.7
SLOW = replace(
    SPEC, method="kl-mcl", mcl_tau=TAU, mcl_every=2, micro_batch=16, lr=2.0, distil_on="all"
)


def mixed(slow: dict[str, Tensor], live: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: TAU * slow[name] + (1 - TAU) * value if value.is_floating_point() else value
        for name, value in live.items()
    }


@pytest.mark.parametrize("every", [1, 2, 4])
def test_slow_weights_equal_a_recursion_by_hand(every: int) -> None:
    """Integer buffers, the batches that normalisation counted, are copied."""
    spec = replace(SLOW, mcl_every=every)
    student, other = Tiny(1, norm=True), Tiny(1, norm=True)
    slow = state(other)

    def after_update(update: int) -> None:
        nonlocal slow
        if update % every == 0:
            slow = mixed(slow, state(other))

    wanted = by_hand(spec, other, [Tiny(1), Tiny(0)], after_update=after_update)
    assert_curve(train(spec, student, [Tiny(0)]), wanted)
    assert_near(student.state_dict(), slow)
    count = student.state_dict()["body.2.num_batches_tracked"]
    assert count.dtype == torch.long and int(count) == 9 // every * every
    assert not torch.allclose(slow["head.weight"], other.head.weight, atol=1e-3)


def test_training_never_sees_the_slow_weights() -> None:
    plain = train(replace(SLOW, method="kl"), Tiny(1), [Tiny(0)])
    slow = train(replace(SLOW, lr=2.0), Tiny(1), [Tiny(0)])
    assert plain.losses == slow.losses and plain.accuracies == slow.accuracies


# --- running statistics, precision, numbers that are none ----------------------------------------


@pytest.mark.parametrize("method", ["kl-dp", "kl-mcl"])
def test_kept_statistics_are_those_from_before_bit_for_bit(method: str) -> None:
    student = Tiny(1, norm=True)
    before = state(student)
    train(replace(SPEC, method=method, bn="eval"), student, [Tiny(0)])
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(student.state_dict()[f"body.2.{name}"], before[f"body.2.{name}"])
    assert not torch.equal(student.head.weight, before["head.weight"])


@pytest.mark.parametrize("method", ["kl-dp", "kl-mcl"])
def test_statistics_estimated_anew_are_those_of_the_student_at_the_end(method: str) -> None:
    """Of the slow weights where they are the student; 48 images are one batch."""
    spec = replace(SPEC, method=method, augment="flip", mcl_tau=TAU)
    student, other = Tiny(1, norm=True), Tiny(1, norm=True)
    train(replace(spec, bn="recompute"), student, [Tiny(0)])
    train(spec, other, [Tiny(0)])
    mine, its = student.state_dict(), other.state_dict()
    names = {f"body.2.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")}
    assert_same({n: mine[n] for n in mine.keys() - names}, {n: its[n] for n in its.keys() - names})
    inside = student.body[1](student.body[0](prepare(make_views().batch(0, torch.arange(N)))))
    torch.testing.assert_close(mine["body.2.running_mean"], inside.mean(0).detach())
    torch.testing.assert_close(mine["body.2.running_var"], inside.var(0).detach())
    assert int(mine["body.2.num_batches_tracked"]) == 1
    assert not torch.allclose(mine["body.2.running_mean"], its["body.2.running_mean"])


@pytest.mark.parametrize("method", ["kl-dp", "xekl-mcl", "crd", "cd"])
def test_mixed_precision_is_near_full_precision(method: str) -> None:
    students, spec = (Tiny(1), Tiny(1)), replace(SPEC, method=method, lr=0.1)
    full, amp = (
        train(replace(spec, amp=amp), student, [Tiny(0)])
        for student, amp in zip(students, ("", "bfloat16"), strict=True)
    )
    assert amp.losses == pytest.approx(full.losses, rel=0.05)
    for one, other in zip(students[0].parameters(), students[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=0.05, rtol=0.05)
        assert other.dtype == torch.float32
    assert not torch.equal(students[0].head.weight, students[1].head.weight)


def test_a_learning_rate_that_explodes_is_told(tmp_path: Path) -> None:
    student = Tiny(1)
    checkpoint = Checkpoint(tmp_path / "state", 0)
    with pytest.raises(NotFinite, match=r"at update \d+ \(epoch \d\)") as caught:
        train(replace(SPEC, lr=1e30), student, [Tiny(0)], checkpoint=checkpoint)
    assert "learning rate" in caught.value.tip
    tensors, about = checkpoint.load() or ({}, {})
    assert_same(
        student.state_dict(), {n: tensors[f"module.{n}"] for n in student.state_dict()}
    )  # as it was at the last checkpoint
    assert about["update"] + 3 * about["epoch"] >= 1
