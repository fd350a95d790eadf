"""Contrastive representation distillation against a loop over samples in double precision."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import chisquare
from torch import Tensor

from kt_cli.distillation.contrast import Contrast

Array = NDArray[np.float64]
N, STUDENT_DIM, TEACHER_DIM, NEGATIVES = 30, 5, 7, 16
LABELS = torch.tensor([0, 1, 3, 1, 0, 3, 3, 1, 3, 0] * 3)  # classes of 9, 9 and 12 images
BATCH = torch.tensor([4, 17, 9, 22, 1, 13])


def contrast(seed: int = 0) -> Contrast:
    return Contrast(STUDENT_DIM, TEACHER_DIM, LABELS, seed, NEGATIVES)


def features(seed: int, size: int = len(BATCH)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(size, STUDENT_DIM, generator=generator),
        torch.randn(size, TEACHER_DIM, generator=generator),
    )


def loss_of(
    made: Contrast, student: Tensor, teacher: Tensor, draw: int, batch: Tensor = BATCH
) -> tuple[Tensor, Array]:
    """The loss, and the images of the positive and the negatives (b, 1 + K) that it is about."""
    torch.manual_seed(draw)
    negatives = made.draw(LABELS[batch])
    torch.manual_seed(draw)
    loss: Tensor = made(student, teacher, batch, LABELS[batch])
    return loss, torch.cat([batch[:, None], negatives], dim=1).numpy()


@dataclass
class ByHand:
    """Tian et al. (2020), after the formulas: h(t, s) = e^{t·s/τ} / Z against K noise samples."""

    weights: dict[str, Array]
    memories: list[Array]
    normalisers: list[float]  # empty before the first batch

    @classmethod
    def of(cls, made: Contrast) -> ByHand:
        parameters = {name: double(value) for name, value in made.named_parameters()}
        return cls(parameters, [double(made.student_memory), double(made.teacher_memory)], [])

    def embedded(self, kind: str, one: Array) -> Array:
        linear = f"{kind}_embedding"
        value = self.weights[f"{linear}.weight"] @ one + self.weights[f"{linear}.bias"]
        return np.asarray(value / np.linalg.norm(value))

    def scores(self, student: Array, teacher: Array, chosen: Array) -> list[Array]:
        """Of the student's and the teacher's side, (b, 1 + K) each, before Z."""
        found: list[Array] = []
        for kind, own, other in (("student", student, 1), ("teacher", teacher, 0)):
            rows = [
                [np.exp(self.embedded(kind, one) @ self.memories[other][j] / 0.07) for j in row]
                for one, row in zip(own, chosen, strict=True)
            ]
            found.append(np.array(rows))
        return found

    def loss(self, student: Array, teacher: Array, chosen: Array) -> float:
        total, k = 0.0, chosen.shape[1] - 1
        sides = self.scores(student, teacher, chosen)
        self.normalisers = self.normalisers or [scores.mean() * N for scores in sides]
        for scores, normaliser in zip(sides, self.normalisers, strict=True):
            for row in scores / normaliser:
                total -= np.log(row[0] / (row[0] + k / N))
                for negative in row[1:]:
                    total -= np.log(1 - negative / (negative + k / N))
        return total / len(chosen)

    def remember(self, student: Array, teacher: Array, batch: Array) -> None:
        for kind, own, memory in zip(
            ("student", "teacher"), (student, teacher), self.memories, strict=True
        ):
            for one, i in zip(own, batch, strict=True):
                mixed = 0.5 * memory[i] + 0.5 * self.embedded(kind, one)
                memory[i] = mixed / np.linalg.norm(mixed)


def double(value: Tensor) -> Array:
    return np.array(value.detach().double().numpy())


def test_loss_and_memories_equal_a_loop_over_samples() -> None:
    """Over three batches, of which two share images: Z is the first one's."""
    made = contrast()
    by_hand = ByHand.of(made)
    for step, batch in enumerate((BATCH, BATCH + 2, BATCH.flip(0))):
        student, teacher = features(step)
        loss, chosen = loss_of(made, student, teacher, step, batch)
        wanted = by_hand.loss(double(student), double(teacher), chosen)
        by_hand.remember(double(student), double(teacher), batch.numpy())
        assert float(loss.detach()) == pytest.approx(wanted, rel=1e-4)
        np.testing.assert_allclose(made.student_memory, by_hand.memories[0], atol=1e-6)
        np.testing.assert_allclose(made.teacher_memory, by_hand.memories[1], atol=1e-6)
    np.testing.assert_allclose(made.normaliser, np.array(by_hand.normalisers), rtol=1e-4)


def test_memory_changes_where_the_batch_is_only() -> None:
    made = contrast()
    before = made.student_memory.clone(), made.teacher_memory.clone()
    loss_of(made, *features(0), draw=0)
    elsewhere = torch.ones(N, dtype=torch.bool)
    elsewhere[BATCH] = False
    for memory, was in zip((made.student_memory, made.teacher_memory), before, strict=True):
        assert torch.equal(memory[elsewhere], was[elsewhere])
        assert not (memory[BATCH] == was[BATCH]).any()
        torch.testing.assert_close(memory[BATCH].norm(dim=1), torch.ones(len(BATCH)))


@pytest.mark.parametrize("direction", range(3))
def test_gradients_equal_differences_of_the_loop(direction: int) -> None:
    made = contrast()
    loss_of(made, *features(9), draw=9)  # so that Z is set: it is no function of this batch
    by_hand = ByHand.of(made)
    by_hand.normalisers = [float(z) for z in made.normaliser]
    student, teacher = (one.requires_grad_() for one in features(0))
    loss, chosen = loss_of(made, student, teacher, draw=0)
    loss.backward()  # type: ignore[no-untyped-call]

    rng = np.random.default_rng(direction)
    tensors = {"student": student, "teacher": teacher, **dict(made.named_parameters())}
    start = {name: double(value) for name, value in tensors.items()}
    for name, value in tensors.items():
        towards = rng.normal(size=tuple(value.shape))
        ends = []
        for step in (1e-5, -1e-5):
            moved = {**start, name: start[name] + step * towards}
            by_hand.weights = moved
            ends.append(by_hand.loss(moved["student"], moved["teacher"], chosen))
        assert value.grad is not None
        found = float((value.grad.double().numpy() * towards).sum())
        assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-4), name


def test_memories_carry_no_gradient_and_two_micro_batches_make_one_backward_pass() -> None:
    made = contrast()
    student, teacher = features(0)
    losses = [loss_of(made, student.requires_grad_(), teacher, draw)[0] for draw in range(2)]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    for memory in (made.student_memory, made.teacher_memory, made.normaliser):
        assert not memory.requires_grad and memory.grad_fn is None
    assert {name for name, _ in made.named_parameters()} == {
        f"{kind}_embedding.{part}" for kind in ("student", "teacher") for part in ("weight", "bias")
    }


@pytest.mark.parametrize("amp", [torch.float16, torch.bfloat16])
def test_mixed_precision_leaves_it_in_full_precision(amp: torch.dtype) -> None:
    """Where embeddings and memories agree, scores are more than half precision holds."""
    found = []
    for enabled in (False, True):
        made = contrast()
        student, teacher = features(0)
        with torch.no_grad():
            made.teacher_memory[BATCH] = F.normalize(made.student_embedding(student), dim=1)
            made.student_memory[BATCH] = F.normalize(made.teacher_embedding(teacher), dim=1)
        with torch.autocast("cpu", amp, enabled=enabled):
            found.append(loss_of(made, student, teacher, draw=0)[0])
    assert torch.equal(found[0], found[1]) and bool(found[0].isfinite())


def test_negatives_are_of_other_classes_and_each_is_as_likely() -> None:
    made = Contrast(STUDENT_DIM, TEACHER_DIM, LABELS, 0, negatives=3000)
    torch.manual_seed(0)
    for label in (0, 1, 3):
        found = Counter(made.draw(torch.tensor([label]))[0].tolist())
        others = [i for i in range(N) if LABELS[i] != label]
        assert set(found) == set(others)
        assert chisquare([found[i] for i in others]).pvalue > 1e-3


def test_negatives_of_each_sample_are_drawn_for_itself() -> None:
    torch.manual_seed(0)
    found = contrast().draw(LABELS[BATCH])
    assert found.shape == (len(BATCH), NEGATIVES)
    assert bool((LABELS[found] != LABELS[BATCH][:, None]).all())
    assert not torch.equal(found[0], found[1])


def test_the_seed_decides_where_it_starts() -> None:
    first, same, other = (contrast(seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], same[name]) for name in first)
    for name in first:
        assert name == "normaliser" or not torch.equal(first[name], other[name])


def test_a_state_goes_on_where_it_was() -> None:
    made, later = contrast(0), contrast(1)
    loss_of(made, *features(0), draw=0)
    later.load_state_dict(made.state_dict())
    student, teacher = features(1)
    assert torch.equal(
        loss_of(made, student, teacher, 1)[0], loss_of(later, student, teacher, 1)[0]
    )
