"""Does an accuracy look like a mistake? What a model most probably suffers from."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kt_cli.errors import some_of
from kt_cli.knowledge.predictions import Predictions
from kt_cli.knowledge.significance import mcnemar, wilson
from kt_cli.zoo.classes import BY_POSITION

ONE_CLASS = 0.9
TWICE = 2.0
SURE = 0.001
SIZES_APART = 1.6  # of timm's own models, whose test sizes were chosen, none exceeds 1.5
NAMED = 5
IN_ORDER = ("position", BY_POSITION)  # how classes were matched where no name says so
HOW_TO_ORDER = "Name the model's order with --class-map, or its outputs with --valid-labels."
Classes = NDArray[np.int64]


def suspicion(predictions: Predictions) -> str | None:
    """A sentence that names the probable cause where an accuracy is doubtful, else None.

    Near chance; above it, classes that stand for each other where outputs were taken by position.
    Before these, an image size far from that of training. None on fewer than 2 classes.
    """
    if len(predictions.images.classes) < 2 or not len(predictions.images):
        return None
    if apart := _sizes_apart(predictions.about):
        return apart
    near = near_chance(int(predictions.right.sum()), predictions.images.class_sizes)
    if near:
        said = f"top-1 of {predictions.accuracy:.2f}% is near chance"
        return f"{said}: {_cause(predictions)}"
    in_order = predictions.about.get("class_matching") in IN_ORDER
    return _in_circles(predictions) if in_order and near is False else None


def near_chance(right: int, class_sizes: NDArray[np.integer]) -> bool | None:
    """Whether an accuracy is hardly above that of guessing; None where the images do not tell.

    At most twice what guessing gives (the share of the most frequent class, by its lower bound, or
    1/C), or not above it by the 95% interval (Wilson), if that ends below half way from chance to
    all.

    Args:
        right: images that are. class_sizes: (C,) images of each class.
    """
    n, classes, most = int(class_sizes.sum()), len(class_sizes), int(class_sizes.max())
    if right == most == n:
        return None
    chance = max(1 / classes, float(wilson(most, n)[0]))
    half_way = (1 + max(1 / classes, most / n)) / 2
    low, high = map(float, wilson(right, n))
    if low > chance and right / n > min(TWICE * chance, half_way):
        return False
    return True if high < half_way else None


def _sizes_apart(about: Mapping[str, str]) -> str | None:
    sizes = json.loads(about.get("preprocessing") or "{}")
    tested, trained = sizes.get("input_size", [0])[-1], sizes.get("train_input_size", [0])[-1]
    if not trained or 1 / SIZES_APART < tested / trained < SIZES_APART:
        return None
    return (
        f"it was trained at {trained} pixels and is evaluated at {tested}, as its configuration "
        "says: --eval-size train evaluates it as it was trained"
    )


def _cause(predictions: Predictions) -> str:
    pred, labels = predictions.pred, predictions.images.labels
    if np.bincount(pred).max() > ONE_CLASS * len(pred):
        return (
            "it gives one class for nearly all images. Are its weights those of a trained model, "
            "and its mean, std and input size right?"
        )
    half, meant = _meant(predictions)
    # Chance does not flatter what is learned from one half and measured on the other.
    renamed = float((meant[pred[~half]] == labels[~half]).mean()) if not half.all() else 0.0
    if renamed > 3 * max(predictions.accuracy / 100, 1 / len(meant)):
        share = f"{100 * renamed:.0f}%"
        return f"{share} would be right with its classes in another order. {HOW_TO_ORDER}"
    random = "its answers look random. Are its weights those of a trained model?"
    return _in_circles(predictions) or random


def _in_circles(predictions: Predictions) -> str | None:
    """Classes that a model says for images of each other: it must mean others by them.

    A model that means what it says may say one class for images of another, but not, in a circle,
    each mostly for images of the next.
    """
    pred, labels = predictions.pred, predictions.images.labels
    half, meant = _meant(predictions)
    moved = _circles(meant)
    held = ~half & np.isin(pred, moved)
    renamed, said = meant[pred[held]] == labels[held], pred[held] == labels[held]
    gained, lost = int((renamed & ~said).sum()), int((said & ~renamed).sum())
    if gained <= lost or float(mcnemar(gained, lost)) > SURE:
        return None
    names = [predictions.images.classes[c] for c in moved]
    return (
        f"{len(moved)} of its classes look to be in another order ({some_of(names, NAMED)}): each "
        f"is mostly said of images of the next. {HOW_TO_ORDER}"
    )


def _circles(meant: Classes) -> Classes:
    """The classes that come back to themselves by way of others, from class to what it means."""
    left = np.arange(len(meant))
    while len(left) > len(onward := np.unique(meant[left][meant[left] >= 0])):
        left = onward
    return np.asarray(left[meant[left] != left])


def _meant(said: Predictions) -> tuple[NDArray[np.bool_], Classes]:
    """A random half of the images, and the label that each class mostly comes with there."""
    pred, labels, classes = said.pred, said.images.labels, len(said.images.classes)
    half = np.random.default_rng(0).random(len(pred)) < 0.5
    cells = pred[half].astype(np.int64) * classes + labels[half]
    both, counts = np.unique(cells, return_counts=True)
    order = np.argsort(counts, kind="stable")  # the last write, the most frequent, stays
    meant = np.full(classes, -1)
    meant[both[order] // classes] = both[order] % classes
    return half, meant
