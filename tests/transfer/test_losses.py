"""Losses, partitions and outcomes against NumPy, SciPy and loops by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr, softmax
from scipy.stats import binomtest

from kt_cli.errors import UnknownName
from kt_cli.spec import TransferSpec
from kt_cli.transfer import losses, methods, partition
from kt_cli.transfer.outcome import transfer_outcome

RNG = np.random.default_rng(0)
STUDENT, TEACHER, FROZEN = (RNG.normal(scale=3, size=(12, 5)) for _ in range(3))
LABELS = RNG.integers(0, 5, 12)


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(a) for a in arrays]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_distillation_is_the_mean_kl_divergence(temperature: float) -> None:
    wanted = 0.0
    for student, target in zip(STUDENT, TEACHER, strict=True):
        q, p = softmax(target / temperature), softmax(student / temperature)
        wanted += rel_entr(q, p).sum()
    wanted *= temperature**2 / len(STUDENT)
    found = losses.distillation(*tensors(STUDENT, TEACHER), temperature)
    assert float(found) == pytest.approx(wanted, rel=1e-10)


def test_distillation_of_equals_is_zero() -> None:
    (same,) = tensors(STUDENT)
    assert float(losses.distillation(same, same.clone())) == pytest.approx(0, abs=1e-12)


def test_xekl_mixes_by_lambda() -> None:
    spec = TransferSpec(method="xekl", kd_lambda=0.3, temperature=2.0)
    student, target, labels = tensors(STUDENT, TEACHER, LABELS)
    cross_entropy = -np.mean([log_softmax(z)[y] for z, y in zip(STUDENT, LABELS, strict=True)])
    kl = float(losses.distillation(student, target, 2.0))
    found = methods.find("xekl").loss(student, target, labels, spec)
    assert float(found) == pytest.approx(0.3 * kl + 0.7 * cross_entropy, rel=1e-10)


@pytest.mark.parametrize("name", methods.METHODS)
def test_gradients_are_right_and_stop_at_the_target(name: str) -> None:
    spec = TransferSpec(method=name, temperature=2.0)
    student, target, labels = tensors(STUDENT[:4], TEACHER[:4], LABELS[:4])
    student.requires_grad_()
    target.requires_grad_()
    loss: Callable[..., torch.Tensor] = methods.find(name).loss
    assert torch.autograd.gradcheck(lambda z: loss(z, target.detach(), labels, spec), (student,))
    loss(student, target, labels, spec).backward()
    assert target.grad is None and student.grad is not None


def test_partitions_by_hand() -> None:
    teacher, frozen, labels = tensors(TEACHER, FROZEN, LABELS)
    by_label, by_confidence = [], []
    for t, f, y in zip(TEACHER, FROZEN, LABELS, strict=True):
        by_label.append(softmax(t)[y] > softmax(f)[y])
        by_confidence.append(softmax(t).max() > softmax(f).max())
    assert partition.by_label(teacher, frozen, labels).tolist() == by_label
    assert partition.by_confidence(teacher, frozen, labels).tolist() == by_confidence
    assert 0 < sum(by_label) < 12 and 0 < sum(by_confidence) < 12
    assert partition.everything(teacher, frozen, labels).all()


def test_in_a_tie_the_frozen_student_teaches() -> None:
    same, labels = tensors(TEACHER, LABELS)
    assert not partition.by_label(same, same.clone(), labels).any()
    assert not partition.by_confidence(same, same.clone(), labels).any()


def test_unsupervised_partition_does_not_look_at_labels() -> None:
    teacher, frozen, labels = tensors(TEACHER, FROZEN, LABELS)
    one = partition.by_confidence(teacher, frozen, labels)
    assert torch.equal(one, partition.by_confidence(teacher, frozen, torch.zeros_like(labels)))


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        methods.find("kl-pd")
    assert "kl-dp" in caught.value.tip


masks = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(masks)
def test_outcome_by_hand(samples: list[tuple[bool, bool, bool]]) -> None:
    found = transfer_outcome(*np.array(samples).T)
    n = len(samples)
    gain = sum(a and not b for _, b, a in samples)
    loss = sum(b and not a for _, b, a in samples)
    known = sum(t and not b for t, b, _ in samples)
    learned = sum(t and not b and a for t, b, a in samples)
    assert found["gain"] == pytest.approx(100 * gain / n)
    assert found["loss"] == pytest.approx(100 * loss / n)
    assert found["pos_flips"] == pytest.approx(100 * known / n)
    assert found["transfer_rate"] == (pytest.approx(100 * learned / known) if known else None)
    assert found["transfer_p"] == pytest.approx(
        binomtest(gain, gain + loss).pvalue if gain + loss else 1
    )
    assert found["delta"] == pytest.approx(found["after_acc"] - found["student_acc"])
    assert found["delta"] == pytest.approx(found["gain"] - found["loss"])
    assert found["acc_diff"] == pytest.approx(found["pos_flips"] - found["neg_flips"])
