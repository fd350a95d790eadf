"""One training of a student, against loops by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from kt_cli.distillation.order import order_of
from tests.distillation.by_hand import Choose, assert_curve, by_hand, by_label, kl, the_teacher
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


@pytest.mark.parametrize("augment", ["none", "flip"])
@pytest.mark.parametrize(
    ("method", "temperature", "choose"),
    [("kl", 1.0, the_teacher), ("kl", 3.0, the_teacher), ("xekl", 2.0, the_teacher),
     ("kl-dp", 1.0, by_label)],
)  # fmt: skip
def test_distillation_equals_a_loop_by_hand(
    method: str, temperature: float, choose: Choose, augment: str
) -> None:
    spec = replace(SPEC, method=method, temperature=temperature, augment=augment, micro_batch=16)
    student, other = Tiny(1), Tiny(1)
    found = train(spec, student, [Tiny(0)])
    wanted = by_hand(spec, other, [Tiny(1), Tiny(0)], choose, augment)
    assert_near(student.state_dict(), other.state_dict())
    assert_curve(found, wanted)
    if method == "kl-dp":
        assert 0 < wanted.shares[0][0] < 100
    assert not torch.allclose(student.head.weight, Tiny(1).head.weight, atol=1e-3)


def test_with_batch_normalisation_too() -> None:
    """The student's statistics move, in the loop as by hand."""
    spec = replace(SPEC, micro_batch=16)
    student, other = Tiny(1, norm=True), Tiny(1, norm=True)
    assert_curve(train(spec, student, [Tiny(0)]), by_hand(spec, other, [Tiny(1), Tiny(0)]))
    assert_near(student.state_dict(), other.state_dict())
    assert not student.training


def test_shares_of_parallel_teachers_are_those_by_hand() -> None:
    spec = replace(SPEC, method="kl-dp", together="parallel", micro_batch=5)
    student, other, teachers = Tiny(1), Tiny(1), [Tiny(seed) for seed in (0, 2, 3)]
    found = train(spec, student, teachers)
    wanted = by_hand(spec, other, [Tiny(1), *teachers], by_label)
    assert_curve(found, wanted)
    assert_near(student.state_dict(), other.state_dict())
    assert all(share > 0 for shares in wanted.shares for share in shares)


@pytest.mark.parametrize("method", ["kl-dp", "flip-avg", "xekl-mcl"])
def test_micro_batches_accumulate_to_the_same_update(method: str) -> None:
    students = Tiny(1), Tiny(1)
    curves = [
        train(replace(SPEC, method=method, micro_batch=micro), student, [Tiny(0)])
        for student, micro in zip(students, (16, 5), strict=True)
    ]
    assert_near(students[0].state_dict(), students[1].state_dict())
    assert_curve(*curves)


@pytest.mark.parametrize("method", ["kl", "kl-dp", "self", "xekl-mcl", "crd", "cd"])
def test_teacher_and_frozen_student_do_not_change_by_a_bit(method: str) -> None:
    teacher, frozen, student = Tiny(0, norm=True), Tiny(1, norm=True), Tiny(1, norm=True)
    before = state(teacher), state(frozen), state(student)
    train(replace(SPEC, method=method, augment="flip"), student, [teacher], frozen)
    for module, values in zip((teacher, frozen), before, strict=False):
        assert_same(module.state_dict(), values)
        assert all(p.grad is None for p in module.parameters())
    assert not torch.equal(student.head.weight, before[2]["head.weight"])


@pytest.mark.parametrize("method", ["kl-dp", "kl-dp-u", "flip-st"])
def test_a_teacher_that_knows_nothing_better_teaches_nothing(method: str) -> None:
    """The student as its own teacher: every sample is a tie, the loss is zero from the start."""
    student = Tiny(1)
    spec = replace(SPEC, method=method, weight_decay=0.0)
    found = train(spec, student, [Tiny(1)])
    assert found.shares == ((0.0,) * 3,)
    assert found.losses == pytest.approx([0] * 3, abs=1e-6)
    torch.testing.assert_close(student.state_dict(), Tiny(1).state_dict(), atol=1e-5, rtol=0)


def test_distilling_on_positive_flips_alone_leaves_the_rest_out() -> None:
    views, spec = make_views(), replace(SPEC, distil_on="positive", micro_batch=16)
    images = prepare(views.batch(0, torch.arange(N)))
    right = [Tiny(seed)(images).argmax(1) == views.labels for seed in (1, 0)]
    positive = right[1] & ~right[0]
    assert 0 < int(positive.sum()) < N
    student, other = Tiny(1), Tiny(1)
    found = train(replace(spec, epochs=1), student, [Tiny(0)])
    optimizer = torch.optim.SGD(other.parameters(), 2.0 * 16 / 256, 0.9, weight_decay=1e-4)
    losses = []
    for batch in order_of(replace(spec, epochs=1), N).batches(0):
        target = Tiny(0)(images[batch]).detach()
        loss = (kl(target, other(images[batch])) * positive[batch]).sum() / 16
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert found.losses == pytest.approx([sum(losses) / 3], rel=1e-5)
    assert_near(student.state_dict(), other.state_dict())


def test_distilling_similarities_equals_a_loop_by_hand() -> None:
    """Within each micro-batch: the sum over the pairs of its samples."""
    views, spec = make_views(), replace(SPEC, method="cd", lr=0.05)
    student, other, teacher = Tiny(1), Tiny(1), Tiny(0)
    found = train(spec, student, [teacher])
    images = prepare(views.batch(0, torch.arange(N)))
    optimizer = torch.optim.SGD(other.parameters(), 0.05 * 16 / 256, 0.9, weight_decay=1e-4)
    order, losses = order_of(spec, N), list[float]()
    for epoch in range(3):
        for batch in order.batches(epoch):
            optimizer.zero_grad()
            parts = []
            for part in order.micro_batches(batch):
                mine, its = (m.body(images[part]) for m in (other, teacher))
                q, p = (
                    torch.cosine_similarity(f[:, None], f[None], dim=2).softmax(1)
                    for f in (its.detach(), mine)
                )
                logits = other.head(mine)
                classify = nn.functional.nll_loss(logits.log_softmax(1), views.labels[part])
                parts.append(0.1 * classify + 10 * (q * (q / p).log()).sum())
            loss = torch.stack(parts).mean()  # of two parts of eight
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(float(loss.detach()))
    assert found.losses[-1] == pytest.approx(sum(losses[-3:]) / 3, rel=1e-4)
    assert_near(student.state_dict(), other.state_dict())


@pytest.mark.parametrize("method", ["crd", "cd"])
def test_no_hook_stays_on_the_student(method: str) -> None:
    student = Tiny(1)
    train(replace(SPEC, method=method, epochs=1), student, [Tiny(0)])
    assert not any(module._forward_pre_hooks for module in student.modules())


def test_contrast_learns() -> None:
    student = Tiny(1)
    curve = train(replace(SPEC, method="crd", epochs=12, lr=0.5), student, [Tiny(0)])
    assert curve.losses[-1] < curve.losses[0] and len(curve.losses) == 12
