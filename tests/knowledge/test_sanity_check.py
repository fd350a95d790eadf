"""Accuracies that look like a mistake, and the cause that is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from kt_cli.data.images import ImageSet
from kt_cli.knowledge.predictions import Predictions
from kt_cli.knowledge.sanity_check import near_chance, suspicion

N, C = 2000, 20


def predictions(
    pred: NDArray[np.int64],
    labels: NDArray[np.int64],
    matching: str = "position",
    classes: int = C,
) -> Predictions:
    def no_image(i: int) -> None:
        raise AssertionError

    names = tuple(f"class {i}" for i in range(classes))
    ids = [str(i) for i in range(len(labels))]
    images = ImageSet("made up", names, ids, labels, no_image, "f")  # type: ignore[arg-type]
    unknown = np.full(len(labels), np.nan, np.float32)
    return Predictions(images, pred, unknown, unknown, None, {"class_matching": matching})


@pytest.fixture
def labels() -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, C, N)


def test_nothing_is_said_of_a_model_that_knows_something(labels: NDArray[np.int64]) -> None:
    rng = np.random.default_rng(1)
    pred = np.where(rng.random(N) < 0.2, labels, rng.integers(0, C, N))
    assert suspicion(predictions(pred, labels)) is None


@pytest.mark.parametrize(
    ("n", "classes", "right", "told"),
    [(3, 10, 2, False), (3, 10, 1, False), (6, 3, 0, True), (30, 10, 3, True), (10, 2, 5, False),
     (200, 2, 100, True)],
)  # fmt: skip
def test_few_images_tell_nothing(n: int, classes: int, right: int, told: bool) -> None:
    """Two of three right, of ten classes, is not near the third that the largest class has."""
    labels = np.arange(n) % classes
    pred = np.where(np.arange(n) < right, labels, (labels + 1 + np.arange(n) % 2) % classes)
    pred = np.where((np.arange(n) >= right) & (pred == labels), (labels + 1) % classes, pred)
    assert bool(suspicion(predictions(pred, labels, classes=classes))) == told


def test_random_answers(labels: NDArray[np.int64]) -> None:
    text = suspicion(predictions(np.random.default_rng(1).integers(0, C, N), labels))
    assert text and "near chance" in text and "look random" in text


def test_another_order_of_classes(labels: NDArray[np.int64]) -> None:
    rng = np.random.default_rng(1)
    known = np.where(rng.random(N) < 0.8, labels, rng.integers(0, C, N))
    text = suspicion(predictions(np.roll(np.arange(C), 1)[known], labels))
    assert text and "another order" in text and "--class-map" in text


@pytest.mark.parametrize(("tested", "trained", "said"), [(224, 48, True), (288, 192, False)])
def test_sizes_that_are_far_apart(
    labels: NDArray[np.int64], tested: int, trained: int, said: bool
) -> None:
    found = predictions(labels, labels)
    sizes = {"input_size": [3, tested, tested], "train_input_size": [3, trained, trained]}
    found.about["preprocessing"] = json.dumps(sizes)
    text = suspicion(found)
    assert (text is not None) == said
    assert not said or text == (
        "it was trained at 48 pixels and is evaluated at 224, as its configuration says: "
        "--eval-size train evaluates it as it was trained"
    )


def test_few_images_alone_are_no_reason_for_doubt(labels: NDArray[np.int64]) -> None:
    """14 of 18 right among three classes: twice a third is in the interval, yet it is far above."""
    few = labels[:18] % 3
    pred = np.where(np.arange(18) < 14, few, (few + 1) % 3)
    assert suspicion(predictions(pred, few, classes=3)) is None


def test_one_answer_for_all(labels: NDArray[np.int64]) -> None:
    text = suspicion(predictions(np.full(N, 3), labels))
    assert text and "one class" in text


@pytest.mark.parametrize("n", [10, 25, 27, 28, 1000])
@pytest.mark.parametrize("others", [(), (0,), (0, 0, 0)])
def test_images_of_one_class_tell_nothing(n: int, others: tuple[int, ...]) -> None:
    assert near_chance(n, np.array([n, *others])) is None


def test_a_frequent_class_is_chance() -> None:
    labels = np.zeros(N, np.int64)
    labels[: N // 20] = np.arange(N // 20) % C
    assert suspicion(predictions(np.zeros(N, np.int64), labels))
    assert suspicion(predictions(labels, labels)) is None


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_some_classes_in_another_order(labels: NDArray[np.int64], share: float) -> None:
    """As of a renamed class folder, which sorts elsewhere: three classes change their places."""
    rng = np.random.default_rng(1)
    known = np.where(rng.random(N) < share, labels, rng.integers(0, C, N))
    order = np.arange(C)
    order[[3, 4, 7]] = [4, 7, 3]
    text = suspicion(predictions(order[known], labels))
    assert text and text.startswith("3 of its classes look to be in another order (class 3, class")
    assert "--valid-labels" in text
    assert suspicion(predictions(order[known], labels, "by-position")) == text
    assert suspicion(predictions(order[known], labels, "names")) is None
    assert suspicion(predictions(known, labels)) is None


def test_half_of_few_classes_in_another_order(labels: NDArray[np.int64]) -> None:
    """What remains right of four classes is near chance, and still the order is to blame."""
    few = labels % 4
    known = np.where(np.random.default_rng(1).random(N) < 0.8, few, (few + 1) % 4)
    text = suspicion(predictions(np.array([0, 2, 1, 3])[known], few))
    assert text and "near chance: 2 of its classes look to be in another order" in text


@pytest.mark.parametrize("seed", range(20))
def test_confusions_are_no_other_order(labels: NDArray[np.int64], seed: int) -> None:
    """A model that says one class for another, or knows little, means what it says."""
    rng = np.random.default_rng(seed)
    pred = np.where(rng.random(N) < 0.2, labels, rng.integers(0, C, N))
    pred[np.isin(labels, (1, 2))] = 2  # never says 1
    pred[np.isin(labels, (5, 6))] = rng.choice([5, 6], np.isin(labels, (5, 6)).sum())
    assert suspicion(predictions(pred, labels)) is None
