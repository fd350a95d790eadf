"""Losses against SciPy and loops by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, rel_entr, softmax
from torch import Tensor

from kt_cli.distillation import losses
from kt_cli.distillation.losses import TopK

Array = NDArray[np.float64]
RNG = np.random.default_rng(0)
N, CLASSES = 12, 5
STUDENT, TEACHER = (RNG.normal(scale=3, size=(N, CLASSES)) for _ in range(2))
LABELS = RNG.integers(0, CLASSES, N)
WEIGHTS = np.where(np.arange(N) % 3, RNG.random(N), 0)


def tensor(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(array)


def largest(values: Array, k: int) -> NDArray[np.intp]:
    return np.argsort(-values)[:k]


def kl(
    temperature: float,
    events: Callable[[Array, Array], Iterable[tuple[Array, Array]]],
    weights: Array | None = None,
) -> float:
    """Mean over samples of the divergence of what `events` makes of both probabilities."""
    total = 0.0
    for i, (student, target) in enumerate(zip(STUDENT, TEACHER, strict=True)):
        for q, p in events(target / temperature, student / temperature):
            total += float(rel_entr(q, p).sum()) * (1 if weights is None else weights[i])
    return temperature**2 * total / N


def all_classes(target: Array, student: Array) -> Iterable[tuple[Array, Array]]:
    yield softmax(target), softmax(student)


def renormalised(k: int) -> Callable[[Array, Array], Iterable[tuple[Array, Array]]]:
    def events(target: Array, student: Array) -> Iterable[tuple[Array, Array]]:
        classes = largest(target, k)
        yield softmax(target[classes]), softmax(student[classes])

    return events


def with_the_rest(k: int) -> Callable[[Array, Array], Iterable[tuple[Array, Array]]]:
    def events(target: Array, student: Array) -> Iterable[tuple[Array, Array]]:
        q, p, classes = softmax(target), softmax(student), largest(target, k)
        others = np.setdiff1d(np.arange(CLASSES), classes)
        yield np.append(q[classes], q[others].sum()), np.append(p[classes], p[others].sum())

    return events


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_distillation_is_the_mean_kl_divergence(temperature: float) -> None:
    found = losses.distillation(tensor(STUDENT), tensor(TEACHER), temperature)
    assert float(found) == pytest.approx(kl(temperature, all_classes), rel=1e-10)


def test_distillation_of_equals_is_zero() -> None:
    same = tensor(STUDENT)
    assert float(losses.distillation(same, same.clone())) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("topk", [0, 3])
def test_weights_multiply_each_sample_and_the_mean_is_over_all(topk: int) -> None:
    found = losses.distillation(tensor(STUDENT), tensor(TEACHER), 2.0, tensor(WEIGHTS), topk)
    wanted = kl(2.0, renormalised(topk) if topk else all_classes, WEIGHTS)
    assert float(found) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("topk", range(1, CLASSES + 2))
def test_topk_is_over_the_targets_classes_renormalised(topk: int) -> None:
    found = losses.distillation(tensor(STUDENT), tensor(TEACHER), 1.5, topk=topk)
    assert float(found) == pytest.approx(kl(1.5, renormalised(topk)), rel=1e-10, abs=1e-12)


def test_most_probable_classes_come_in_order_with_the_mass_of_the_rest() -> None:
    kept = TopK.of(tensor(TEACHER), 3, 2.0)
    for i, target in enumerate(TEACHER):
        classes = largest(target, 3)
        log_probs = log_softmax(target / 2)[classes]
        assert kept.classes[i].tolist() == classes.tolist()
        np.testing.assert_allclose(kept.log_probs[i], log_probs, rtol=1e-10)
        np.testing.assert_allclose(kept.log_rest[i], np.log(1 - np.exp(log_probs).sum()), rtol=1e-8)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("k", range(1, CLASSES))
def test_divergence_from_most_probable_classes_and_the_rest(k: int, temperature: float) -> None:
    kept = TopK.of(tensor(TEACHER), k, temperature)
    found = float(losses.distillation(tensor(STUDENT), kept, temperature, tensor(WEIGHTS)))
    assert found == pytest.approx(kl(temperature, with_the_rest(k), WEIGHTS), rel=1e-10)


def test_the_fewer_classes_are_kept_the_lower_the_divergence_and_one_less_is_all() -> None:
    found = [
        float(losses.distillation(tensor(STUDENT), TopK.of(tensor(TEACHER), k, 1.0)))
        for k in range(1, CLASSES)
    ]
    whole = float(losses.distillation(tensor(STUDENT), tensor(TEACHER)))
    assert 0 < found[0] < found[1] < found[2] < found[3]
    assert found[3] == pytest.approx(whole, rel=1e-10)
    assert found[2] < 0.999 * whole


@pytest.mark.parametrize("k", [3, 4])
@pytest.mark.parametrize("topk", [2, 3])
def test_topk_of_kept_classes_is_that_of_all(topk: int, k: int) -> None:
    kept = TopK.of(tensor(TEACHER), k, 2.0)
    found = losses.distillation(tensor(STUDENT), kept, 2.0, tensor(WEIGHTS), topk)
    assert float(found) == pytest.approx(kl(2.0, renormalised(topk), WEIGHTS), rel=1e-10)


def test_nothing_left_for_the_rest_is_finite_with_its_gradient() -> None:
    """A target so sure that no probability is left over in single precision."""
    target = torch.zeros(1, CLASSES)
    target[0, 2] = 200
    student = torch.randn(1, CLASSES, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = losses.distillation(student, TopK.of(target, 2, 1.0))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(-log_softmax(student.detach().numpy())[0, 2], 1e-5)
    assert student.grad is not None
    np.testing.assert_allclose(
        student.grad[0], softmax(student.detach().numpy()[0]) - np.eye(CLASSES)[2], atol=1e-6
    )


def test_a_student_sure_of_the_kept_classes_learns_of_the_rest() -> None:
    """What it leaves to the rest is far less than single precision tells from nothing."""
    z, target = np.array([20.0, 0, 0, 0, 0]), np.array([3.0, 2, 1.5, 1, 1])
    student = torch.tensor(z[None], dtype=torch.float32, requires_grad=True)
    loss = losses.distillation(student, TopK.of(torch.tensor(target[None]), 2, 1.0))
    loss.backward()  # type: ignore[no-untyped-call]
    q, p = (np.append(softmax(one)[:2], softmax(one)[2:].sum()) for one in (target, z))
    assert float(loss.detach()) == pytest.approx(rel_entr(q, p).sum(), rel=1e-6)
    shares = softmax(z)[2:] / softmax(z)[2:].sum()
    assert student.grad is not None
    np.testing.assert_allclose(
        student.grad[0], softmax(z) - np.append(q[:2], q[2] * shares), atol=1e-6
    )


def test_double_softmax_cross_entropy() -> None:
    """Smoothed is the student's softmax, not the label."""
    for smoothing in (0.0, 0.1):
        wanted = 0.0
        for z, y in zip(STUDENT, LABELS, strict=True):
            wanted -= log_softmax((1 - smoothing) * softmax(z) + smoothing / CLASSES)[y] / N
        found = losses.double_softmax_cross_entropy(tensor(STUDENT), tensor(LABELS), smoothing)
        assert float(found) == pytest.approx(wanted, rel=1e-10)


def test_similarity_sums_over_the_batch() -> None:
    """Also where the features of student and teacher have different sizes."""
    target = RNG.normal(size=(N, 8))

    def rows(features: Array) -> Array:
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        return np.array([softmax([float(a @ b) for b in unit]) for a in unit])

    wanted = sum(rel_entr(q, p).sum() for q, p in zip(rows(target), rows(STUDENT), strict=True))
    found = losses.similarity(tensor(STUDENT), tensor(target))
    assert float(found) == pytest.approx(wanted, rel=1e-10)
    assert float(losses.similarity(tensor(target), tensor(target * 3))) == pytest.approx(
        0, abs=1e-9
    )


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_similarity_is_computed_in_full_under_autocast(precision: torch.dtype) -> None:
    """A student near its teacher: what half precision rounds off of cosines is all there is."""
    target = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    student = (target + 0.03 * torch.randn(32, 64)).to(precision)
    wanted = losses.similarity(student.double(), target.double())
    with torch.autocast("cpu", precision):
        found = losses.similarity(student, target)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(wanted), rel=0.01)


def of_student(loss: Callable[..., Tensor], *arguments: object) -> Callable[[Tensor], Tensor]:
    return lambda student: loss(student, *arguments)


@pytest.mark.parametrize(
    "loss",
    [
        of_student(losses.distillation, tensor(TEACHER[:4]), 2.0),
        of_student(losses.distillation, tensor(TEACHER[:4]), 2.0, tensor(WEIGHTS[:4]), 3),
        of_student(losses.distillation, TopK.of(tensor(TEACHER[:4]), 2, 2.0), 2.0),
        of_student(losses.distillation, TopK.of(tensor(TEACHER[:4]), 3, 1.0), 1.0, None, 2),
        of_student(losses.double_softmax_cross_entropy, tensor(LABELS[:4]), 0.1),
        of_student(losses.similarity, tensor(TEACHER[:4])),
    ],
    ids=["all", "weighted topk", "kept", "topk of kept", "double softmax", "similarity"],
)
def test_gradients_are_right(loss: Callable[[Tensor], Tensor]) -> None:
    student = tensor(STUDENT[:4]).clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, (student,))


def test_gradients_of_similarity_stop_at_the_target() -> None:
    student, target = (tensor(one).clone().requires_grad_() for one in (STUDENT, TEACHER))
    losses.similarity(student, target).backward()  # type: ignore[no-untyped-call]
    assert target.grad is None
    assert student.grad is not None and bool(student.grad.abs().sum() > 0)
