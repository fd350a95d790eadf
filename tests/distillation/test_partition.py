"""Who teaches which sample, against loops by hand."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from kt_cli.distillation import partition
from kt_cli.distillation.partition import Partition, SampleStats

RNG = np.random.default_rng(0)
N, CLASSES = 200, 4
LABELS = RNG.integers(0, CLASSES, N)
# The frozen student, then teachers.
LOGITS = [RNG.normal(scale=2, size=(N, CLASSES)) for _ in range(4)]
SOURCES = [SampleStats.of(torch.from_numpy(z), torch.from_numpy(LABELS)) for z in LOGITS]
ALL_FLIPS = list(itertools.product([False, True], repeat=2))  # (frozen right, teacher right)


def rows(*weights: list[float]) -> Tensor:
    return torch.tensor(weights)


def one_hot(sources: list[int], count: int) -> NDArray[np.float64]:
    return np.eye(count)[sources]


def said(*right: bool) -> SampleStats:
    scores = torch.full((len(right),), 0.5)
    return SampleStats(scores, scores, torch.tensor(right))


def flipping() -> list[SampleStats]:
    """All four cases, in the order of ALL_FLIPS."""
    frozen, teacher = zip(*ALL_FLIPS, strict=True)
    return [said(*frozen), said(*teacher)]


def test_said_is_what_the_softmax_says() -> None:
    labels = LABELS.copy()
    labels[::5] = -1
    found = SampleStats.of(torch.from_numpy(LOGITS[0]), torch.from_numpy(labels))
    for i, (z, y) in enumerate(zip(LOGITS[0], labels, strict=True)):
        p = softmax(z)
        assert float(found.confidence[i]) == pytest.approx(p.max(), rel=1e-12)
        assert bool(found.right[i]) == (y == p.argmax())
        if y >= 0:
            assert float(found.label_prob[i]) == pytest.approx(p[y], rel=1e-12)
    assert not found.right[::5].any() and found.right.any()


def test_the_teacher_teaches_everything_and_the_frozen_student_is_not_asked() -> None:
    wanted = one_hot([1] * N, 2)
    np.testing.assert_array_equal(partition.teacher_only([None, SOURCES[1]]), wanted)
    np.testing.assert_array_equal(partition.teacher_only(SOURCES[:2]), wanted)


@pytest.mark.parametrize("teachers", [1, 3])
def test_the_frozen_student_teaches_everything_and_no_teacher_is_asked(teachers: int) -> None:
    found = partition.frozen_only([SOURCES[0], *[None] * teachers])
    np.testing.assert_array_equal(found, one_hot([0] * N, 1 + teachers))


@pytest.mark.parametrize("teachers", [1, 3])
def test_the_most_probable_label_teaches(teachers: int) -> None:
    wanted = []
    for i, y in enumerate(LABELS):
        best, source = -1.0, -1
        for k in range(1 + teachers):
            if softmax(LOGITS[k][i])[y] > best:
                best, source = softmax(LOGITS[k][i])[y], k
        wanted.append(source)
    found = partition.by_label(SOURCES[: 1 + teachers])
    np.testing.assert_array_equal(found, one_hot(wanted, 1 + teachers))
    assert set(wanted) == set(range(1 + teachers))


@pytest.mark.parametrize("teachers", [1, 3])
def test_the_most_confident_teaches(teachers: int) -> None:
    wanted = []
    for i in range(N):
        best, source = -1.0, -1
        for k in range(1 + teachers):
            if softmax(LOGITS[k][i]).max() > best:
                best, source = softmax(LOGITS[k][i]).max(), k
        wanted.append(source)
    found = partition.by_confidence(SOURCES[: 1 + teachers])
    np.testing.assert_array_equal(found, one_hot(wanted, 1 + teachers))
    assert set(wanted) == set(range(1 + teachers))


@pytest.mark.parametrize("choose", [partition.by_label, partition.by_confidence])
def test_in_a_tie_the_frozen_student_teaches_and_then_the_earlier_teacher(
    choose: Partition,
) -> None:
    scores = np.array(list(itertools.product([0.25, 0.5], repeat=4)))
    sources = [
        SampleStats(torch.tensor(column), torch.tensor(column), torch.zeros(len(column)).bool())
        for column in scores.T
    ]
    first_of_the_best = [row.index(max(row)) for row in scores.tolist()]
    np.testing.assert_array_equal(choose(sources), one_hot(first_of_the_best, 4))
    alone = [row.index(max(row)) for row in scores[:, :2].tolist()]
    np.testing.assert_array_equal(choose(sources[:2]), one_hot(alone, 2))


def test_equal_models_leave_everything_to_the_frozen_student() -> None:
    for choose in (partition.by_label, partition.by_confidence):
        assert choose([SOURCES[0], SOURCES[0]])[:, 0].all()


def test_unsupervised_partition_reads_no_labels() -> None:
    """Nothing that depends on them is there to be read, and without labels it is the same."""
    bare = [cast(SampleStats, SimpleNamespace(confidence=s.confidence)) for s in SOURCES]
    unlabelled = [
        SampleStats.of(torch.from_numpy(z), torch.full((N,), -1, dtype=torch.long)) for z in LOGITS
    ]
    wanted = partition.by_confidence(SOURCES)
    assert torch.equal(partition.by_confidence(bare), wanted)
    assert torch.equal(partition.by_confidence(unlabelled), wanted)
    assert all(s.label_prob.isnan().all() and not s.right.any() for s in unlabelled)


def test_flips_are_of_the_teacher_against_the_frozen_student() -> None:
    positive, negative = partition.flips(flipping())
    assert positive.tolist() == [t and not f for f, t in ALL_FLIPS]
    assert negative.tolist() == [f and not t for f, t in ALL_FLIPS]


def test_partitions_by_flips() -> None:
    frozen, teacher, mean = [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]
    # Neither right, positive, negative, both right.
    assert torch.equal(partition.flip_st(flipping()), rows(frozen, teacher, frozen, frozen))
    assert torch.equal(partition.flip_t(flipping()), rows(teacher, teacher, frozen, teacher))
    assert torch.equal(partition.flip_avg(flipping()), rows(mean, teacher, frozen, mean))


@pytest.mark.parametrize(
    "choose",
    [
        partition.teacher_only, partition.frozen_only, partition.by_label,
        partition.by_confidence, partition.flip_st, partition.flip_t, partition.flip_avg,
    ],
)  # fmt: skip
def test_the_weights_of_each_sample_sum_to_one(choose: Partition) -> None:
    found = choose(SOURCES[:2])
    assert found.shape == (N, 2) and found.dtype == torch.float32
    assert torch.equal(found.sum(dim=1), torch.ones(N)) and bool((found >= 0).all())
