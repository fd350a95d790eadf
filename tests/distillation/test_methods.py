"""Each method's loss after docs/methods.md, and its sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from torch import Tensor

from kt_cli.distillation import losses, methods, partition
from kt_cli.distillation.contrast import Contrast
from kt_cli.distillation.methods import METHODS, LossInputs
from kt_cli.distillation.partition import SampleStats
from kt_cli.settings import TransferSpec

RNG = np.random.default_rng(0)
N, CLASSES, SIZES = 8, 5, (6, 9)
STUDENT, TARGET = (RNG.normal(scale=2, size=(N, CLASSES)) for _ in range(2))
FEATURES, TEACHER_FEATURES = (RNG.normal(size=(N, size)) for size in SIZES)
LABELS = np.arange(N) % CLASSES
WEIGHT = np.array([1.0, 0, 1, 1, 0, 1, 0, 1])
DISTILLING = ["kl", "kl-mcl", "kl-dp", "kl-dp-u", "self", "flip-st", "flip-t", "flip-avg"]
PARTITIONS = {
    **dict.fromkeys(["kl", "xekl", "kl-mcl", "xekl-mcl", "crd", "cd"], partition.teacher_only),
    "kl-dp": partition.by_label,
    "kl-dp-u": partition.by_confidence,
    "self": partition.frozen_only,
    "flip-st": partition.flip_st,
    "flip-t": partition.flip_t,
    "flip-avg": partition.flip_avg,
}


def spec_of(name: str, **settings: Any) -> TransferSpec:
    return TransferSpec(method=name, **settings)


def contrast() -> Contrast:
    return Contrast(*SIZES, torch.from_numpy(LABELS), seed=0, negatives=4)


def inputs(**changes: Any) -> LossInputs:
    arrays = {
        "student": STUDENT, "target": TARGET, "labels": LABELS, "indices": np.arange(N),
        "features": FEATURES, "teacher_features": TEACHER_FEATURES,
    }  # fmt: skip
    tensors: dict[str, Any] = {name: torch.from_numpy(a) for name, a in arrays.items()}
    return LossInputs(**{"weight": None, "contrast": contrast(), **tensors, **changes})


def loss(name: str, what: LossInputs | None = None, **settings: Any) -> float:
    spec = spec_of(name, **settings).with_defaults
    return methods.find(name).loss(what or inputs(), spec).item()


def kl(temperature: float = 1.0, weight: np.ndarray | None = None, topk: int = CLASSES) -> float:
    total = 0.0
    for i, (z, target) in enumerate(zip(STUDENT, TARGET, strict=True)):
        classes = np.argsort(-target)[:topk]
        q, p = softmax(target[classes] / temperature), softmax(z[classes] / temperature)
        total += rel_entr(q, p).sum() * (1 if weight is None else weight[i])
    return float(temperature**2 * total / N)


def cross_entropy(smoothing: float = 0.0, double: bool = False) -> float:
    found = []
    for z, y in zip(STUDENT, LABELS, strict=True):
        log_p = log_softmax(softmax(z) if double else z)
        found.append(-(1 - smoothing) * log_p[y] - smoothing * log_p.mean())
    return float(np.mean(found))


def similarities() -> float:
    rows = []
    for features in (TEACHER_FEATURES, FEATURES):
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        rows.append(softmax(unit @ unit.T, axis=1))
    return float(rel_entr(*rows).sum())


@pytest.mark.parametrize("name", DISTILLING)
def test_distillation_alone(name: str) -> None:
    """Whoever the target is from: labels and label smoothing have no part in it."""
    assert loss(name, temperature=2.0, label_smoothing=0.1) == pytest.approx(kl(2.0))
    weighted = inputs(weight=torch.from_numpy(WEIGHT))
    assert loss(name, weighted, temperature=2.0) == pytest.approx(kl(2.0, WEIGHT))
    assert loss(name, kd_topk=3) == pytest.approx(kl(topk=3))


@pytest.mark.parametrize(("name", "share"), [("xekl", 0.5), ("xekl-mcl", 0.68)])
def test_distillation_and_cross_entropy_by_lambda(name: str, share: float) -> None:
    weighted = inputs(weight=torch.from_numpy(WEIGHT))
    both = {"temperature": 2.0, "label_smoothing": 0.1}
    for given, used in ((None, share), (0.3, 0.3), (0.0, 0.0), (1.0, 1.0)):
        wanted = used * kl(2.0, WEIGHT) + (1 - used) * cross_entropy(0.1)
        assert loss(name, weighted, kd_lambda=given, **both) == pytest.approx(wanted)


def test_as_the_authors_code_has_it() -> None:
    """Cross-entropy of the softmax's output; with slow weights the KL over 100 classes."""
    wanted = 0.5 * kl() + 0.5 * cross_entropy(double=True)
    assert loss("xekl", reference_compat=True) == pytest.approx(wanted)
    rng = np.random.default_rng(1)
    student, target = rng.normal(size=(2, 3, 130))
    many = inputs(student=torch.from_numpy(student), target=torch.from_numpy(target))
    by_hand = 0.0
    for z, t in zip(student, target, strict=True):
        classes = np.argsort(-t)[:100]
        by_hand += rel_entr(softmax(t[classes]), softmax(z[classes])).sum() / 3
    assert loss("kl-mcl", many, reference_compat=True) == pytest.approx(by_hand)
    assert loss("kl-mcl", many) != pytest.approx(by_hand)


def test_contrast_and_cross_entropy() -> None:
    memory = contrast()
    torch.manual_seed(0)
    given = inputs(contrast=memory)
    alone = memory(given.features, given.teacher_features, given.indices, given.labels).item()
    torch.manual_seed(0)
    found = loss("crd", inputs(), label_smoothing=0.1)
    assert found == pytest.approx(cross_entropy(0.1) + 0.8 * alone)


def test_similarities_and_cross_entropy() -> None:
    wanted = 0.1 * cross_entropy(0.1) + 10 * similarities()
    assert loss("cd", label_smoothing=0.1) == pytest.approx(wanted)


@pytest.mark.parametrize("name", [*DISTILLING, "xekl", "xekl-mcl"])
def test_kept_targets_serve_every_distilling_method(name: str) -> None:
    """All classes but one and the mass of the rest are all classes."""
    kept = inputs(target=losses.TopK.of(torch.from_numpy(TARGET), CLASSES - 1, 2.0))
    assert loss(name, kept, temperature=2.0) == pytest.approx(loss(name, temperature=2.0), rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_the_student_and_stop_at_the_target(name: str) -> None:
    given = inputs()
    for one in (given.student, given.target, given.features):
        assert isinstance(one, Tensor)
        one.requires_grad_()
    spec = spec_of(name, temperature=2.0).with_defaults
    methods.find(name).loss(given, spec).backward()  # type: ignore[no-untyped-call]
    assert isinstance(given.target, Tensor) and given.target.grad is None
    assert given.student.grad is not None and given.student.grad.abs().sum() > 0
    assert given.features is not None
    assert (given.features.grad is not None) == METHODS[name].features


@pytest.mark.parametrize("name", [n for n in METHODS if n != "crd"])
def test_gradients_are_right(name: str) -> None:
    """The contrast is computed in single precision; it has its own test."""
    spec, method = (
        spec_of(name, temperature=2.0, label_smoothing=0.1).with_defaults,
        methods.find(name),
    )

    def of(student: Tensor, features: Tensor) -> Tensor:
        return method.loss(inputs(student=student, features=features), spec)

    start = [torch.from_numpy(a).clone().requires_grad_() for a in (STUDENT, FEATURES)]
    assert torch.autograd.gradcheck(of, start)


def said() -> list[SampleStats]:
    """The frozen student, then the teacher: neither right, positive, negative, both right."""
    return [
        SampleStats(torch.rand(4), torch.rand(4), torch.tensor(right))
        for right in ([False, False, True, True], [False, True, False, True])
    ]


@pytest.mark.parametrize("name", METHODS)
def test_who_teaches(name: str) -> None:
    method, sources = methods.find(name), said()
    assert method.partition is PARTITIONS[name]
    weights, distilled = method.sources(spec_of(name, distil_on="all"), sources)
    assert torch.equal(weights, PARTITIONS[name](sources))
    assert distilled is None


@pytest.mark.parametrize("name", ["kl", "xekl", "kl-mcl", "xekl-mcl"])
def test_what_is_distilled(name: str) -> None:
    published = [1, 1, 0, 1] if name.endswith("-mcl") else None
    for on, wanted in (("positive", [0, 1, 0, 0]), ("not-negative", [1, 1, 0, 1]),
                       ("all", None), (None, published)):  # fmt: skip
        weights, distilled = methods.find(name).sources(spec_of(name, distil_on=on), said())
        assert weights.tolist() == [[0, 1]] * 4
        assert (distilled.tolist() if distilled is not None else None) == wanted


def test_the_frozen_student_and_labels_are_asked_where_they_are_needed() -> None:
    frozen = {n for n in METHODS if methods.needs_frozen(spec_of(n))}
    labels = {n for n in METHODS if methods.needs_labels(spec_of(n))}
    flips = {"flip-st", "flip-t", "flip-avg"}
    assert frozen == {"kl-dp", "kl-dp-u", "self", "kl-mcl", "xekl-mcl"} | flips
    assert labels == {"xekl", "kl-mcl", "xekl-mcl", "kl-dp", "crd", "cd"} | flips
    on_all = {n for n in METHODS if not methods.needs_labels(spec_of(n, distil_on="all"))}
    assert on_all == {"kl", "kl-mcl", "kl-dp-u", "self"}
    positive = spec_of("kl", distil_on="positive")
    assert methods.needs_frozen(positive) and methods.needs_labels(positive)
    compat = spec_of("kl-mcl", reference_compat=True)  # finds flips with the student in training
    assert not methods.needs_frozen(compat) and methods.needs_labels(compat)
