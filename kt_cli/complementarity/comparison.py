"""Named models side by side: everything that `kt complementarity` shows, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kt_cli.complementarity.pairs import (
    Matrix,
    all_pairs,
    flips_by_class,
    mean_probability_accuracy,
)
from kt_cli.complementarity.predictions import Predictions, predict, stacked
from kt_cli.data.class_names import readable
from kt_cli.data.images import ImageSet
from kt_cli.progress import Progress, silent
from kt_cli.spec import EvalSpec, Model


@dataclass(frozen=True)
class Comparison:
    """M models on n images of C classes; percentages unless said otherwise.

    Attributes:
        accuracies: (M,). alone: (M,) right where all the others are wrong.
        pairs: (M, M) matrices [teacher, student] by name, as in the complementarity table.
        flips: (M, M, C) counts of positive flips by class.
        oracle: any model is right. confident: the most confident model is right.
        mean_probability: the mean of all models' probabilities is right.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    class_sizes: tuple[int, ...]
    n: int
    accuracies: tuple[float, ...]
    alone: tuple[float, ...]
    pairs: dict[str, Matrix]
    flips: Matrix
    oracle: float
    confident: float
    mean_probability: float

    def top_classes(self, teacher: int, student: int, count: int) -> list[tuple[str, int, float]]:
        """The classes with most of what teacher knows and student does not: name, flips, share."""
        flips = self.flips[teacher, student]
        total = flips.sum()
        order = np.argsort(-flips, kind="stable")[:count]
        return [(self.classes[c], int(flips[c]), float(100 * flips[c] / total))
                for c in order if flips[c] > 0]  # fmt: skip

    def to_dict(self, count: int = 10) -> dict[str, Any]:
        """JSON-able: models, all ordered pairs with their statistics, ceilings."""
        models = [
            {"model": name, "accuracy": accuracy, "alone": alone}
            for name, accuracy, alone in zip(self.names, self.accuracies, self.alone, strict=True)
        ]
        return {
            "n": self.n,
            "num_classes": len(self.classes),
            "models": models,
            "pairs": [self._pair(t, s, count) for t in self._range for s in self._range if t != s],
            "oracle_acc": self.oracle,
            "confident_acc": self.confident,
            "mean_probability_acc": self.mean_probability,
        }

    @property
    def _range(self) -> range:
        return range(len(self.names))

    def _pair(self, teacher: int, student: int, count: int) -> dict[str, Any]:
        values = {name: _number(matrix[teacher, student]) for name, matrix in self.pairs.items()}
        classes = [
            {"class": name, "flips": flips, "share": share}
            for name, flips, share in self.top_classes(teacher, student, count)
        ]
        return {"teacher": self.names[teacher], "student": self.names[student], **values,
                "classes": classes}  # fmt: skip


def compare(
    models: Sequence[Model],
    images: ImageSet,
    spec: EvalSpec,
    device: torch.device,
    workers: int | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Predict the images with each model (or find that in the cache) and compare all pairs."""
    predictions = [
        predict(m, images, spec, device, logits=True, workers=workers, progress=progress)
        for m in models
    ]
    outputs = stacked(predictions, len(images.classes))
    right = outputs.right
    correct = torch.from_numpy(right).float()
    votes = right.sum(axis=0)
    surest = outputs.confidence.argmax(axis=0)
    return Comparison(
        names=tuple(m.name for m in models),
        classes=tuple(readable(images.classes)),
        class_sizes=tuple(np.bincount(images.labels, minlength=len(images.classes)).tolist()),
        n=len(images),
        accuracies=tuple(p.accuracy for p in predictions),
        alone=tuple((100 * (right & (votes == 1)).mean(axis=1)).tolist()),
        pairs=all_pairs(outputs),
        flips=flips_by_class(correct, correct, images.labels, len(images.classes)).numpy(),
        oracle=float(100 * (votes > 0).mean()),
        confident=float(100 * np.take_along_axis(right, surest[None], axis=0).mean()),
        mean_probability=_mean_probability(predictions),
    )


def _mean_probability(predictions: Sequence[Predictions]) -> float:
    logits = [p.logits for p in predictions if p.logits is not None]
    return mean_probability_accuracy(logits, predictions[0].label)


def _number(value: float) -> float | int | None:
    return None if np.isnan(value) else float(value)
