"""Does an accuracy look like a mistake? What a model near chance most probably suffers from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kt_cli.complementarity.predictions import Predictions
from kt_cli.complementarity.significance import wilson

ONE_CLASS = 0.9
TWICE = 2.0


def suspicion(predictions: Predictions) -> str | None:
    """A sentence that names the probable cause where an accuracy is near chance, else None.

    Near chance: the 95% interval (Wilson) of the accuracy reaches down to twice what guessing
    gives (the share of the most frequent class, or 1/C). No warning on fewer than 2 classes.
    """
    n, classes = len(predictions.images), len(predictions.images.classes)
    if classes < 2 or not n:
        return None
    chance = max(1 / classes, float(predictions.images.class_sizes.max() / n))
    low, _ = wilson(int(predictions.right.sum()), n)
    if float(low) > min(TWICE * chance, (1 + chance) / 2):
        return None
    return f"top-1 of {predictions.accuracy:.2f}% is near chance: {_cause(predictions, classes)}"


def _cause(predictions: Predictions, classes: int) -> str:
    pred, labels, n = predictions.pred, predictions.images.labels, len(predictions.images)
    if np.bincount(pred, minlength=classes).max() > ONE_CLASS * n:
        return (
            "it gives one class for nearly all images. Are its weights those of a trained model, "
            "and its mean, std and input size right?"
        )
    renamed = _renamed(pred, labels, classes)
    if renamed > 3 * max(predictions.accuracy / 100, 1 / classes):
        return (
            f"{100 * renamed:.0f}% would be right with its classes in another order. Name the "
            "model's order with --class-map, or its outputs with --valid-labels."
        )
    return "its answers look random. Are its weights those of a trained model?"


def _renamed(pred: NDArray[np.integer], labels: NDArray[np.int64], classes: int) -> float:
    """Accuracy if each class stood for the label that it mostly comes with.

    Learned from one half of the images and measured on the other: chance does not flatter it.
    """
    half = np.random.default_rng(0).random(len(pred)) < 0.5
    both, counts = np.unique(
        pred[half].astype(np.int64) * classes + labels[half], return_counts=True
    )
    order = np.argsort(counts, kind="stable")  # the last write, the most frequent, stays
    meant = np.full(classes, -1)
    meant[both[order] // classes] = both[order] % classes
    return float((meant[pred[~half]] == labels[~half]).mean()) if not half.all() else 0.0
