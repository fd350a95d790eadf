"""Named models side by side: everything that `kt complementarity` shows, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kt_cli.data.images import ImageSet
from kt_cli.errors import KtError, first_line
from kt_cli.knowledge.areas import Area, areas
from kt_cli.knowledge.class_similarity import ClassEmbedding
from kt_cli.knowledge.embedding import class_embedding
from kt_cli.knowledge.pairs import Matrix, Outputs, all_pairs
from kt_cli.knowledge.predict import How, predict_all
from kt_cli.knowledge.predictions import Predictions, logits_of
from kt_cli.knowledge.sanity_check import suspicion
from kt_cli.knowledge.significance import holm, percent, wilson
from kt_cli.progress import Progress, silent
from kt_cli.spec import Model
from kt_cli.zoo.imagenet_names import readable

LOGIT_ROWS = 4096


@dataclass(frozen=True)
class Comparison:
    """M models on the same n images of C classes; percentages unless said otherwise."""

    names: tuple[str, ...]  # of the models
    predictions: tuple[Predictions, ...]  # predictions, outputs: what they say, in that order
    outputs: Outputs
    # (M,) whether it is a randomly initialised baseline, which only teaches; these come last and
    # take no part in what models know together or alone.
    untrained: tuple[bool, ...]
    classes: tuple[str, ...]  # names of the classes, for people
    # (M, M) matrices [teacher, student] by name, as in the complementarity table.
    pairs: dict[str, Matrix]
    embedding: ClassEmbedding | None  # of the classes; None where there is none
    # The mean of all models' probabilities is right; None without logits.
    mean_probability: float | None
    warnings: tuple[str, ...]  # what looks wrong, a sentence each
    failures: tuple[str, ...] = ()  # models that could not be evaluated, and why, a sentence each

    @property
    def images(self) -> ImageSet:
        return self.predictions[0].images

    @property
    def n(self) -> int:
        return len(self.images)

    @property
    def right(self) -> NDArray[np.bool_]:
        """(M, n)"""
        return self.outputs.right

    @property
    def trained(self) -> int:
        """How many of the models are no baselines."""
        return self.untrained.count(False)

    @cached_property
    def accuracies(self) -> list[float]:
        """Top-1 of each model."""
        return percent(self.right.sum(axis=1), self.n).tolist()  # type: ignore[no-any-return]

    @cached_property
    def intervals(self) -> list[tuple[float, float]]:
        """Their 95% intervals (Wilson)."""
        low, high = wilson(self.right.sum(axis=1), self.n)
        return list(zip((100 * low).tolist(), (100 * high).tolist(), strict=True))

    @cached_property
    def alone(self) -> list[float]:
        """Right where all the other (trained) models are wrong."""
        known = self.right[: self.trained]
        lonely = known & (known.sum(axis=0) == 1)
        return percent(lonely.sum(axis=1), self.n).tolist()  # type: ignore[no-any-return]

    @cached_property
    def oracle(self) -> float:
        """Any model is right."""
        return float(percent(self.right[: self.trained].any(axis=0).sum(), self.n))

    @cached_property
    def confident(self) -> float | None:
        """The most confident model is right; of equally confident ones each decides its share."""
        confidence = self.outputs.confidence[: self.trained]
        if np.isnan(confidence).any():
            return None
        surest = confidence == confidence.max(axis=0)
        right = surest & self.right[: self.trained]
        return float(100 * (right.sum(axis=0) / surest.sum(axis=0)).mean())

    @cached_property
    def holm_p(self) -> Matrix:
        """McNemar's p-values, corrected for the number of unordered pairs; (M, M).

        NaN for baselines, which nobody compares with each other.
        """
        upper = np.triu_indices(self.trained, 1)
        found = np.full((len(self.names),) * 2, np.nan)
        found[upper] = holm(self.pairs["mcnemar_p"][upper])
        found.T[upper] = found[upper]
        return found

    def flips(self, teacher: int, student: int) -> NDArray[np.int64]:
        """(C,) images of each class that the teacher has right and the student wrong."""
        known = self.right[teacher] & ~self.right[student]
        return np.bincount(self.images.labels[known], minlength=len(self.classes))

    def answer(self, model: int, index: int) -> str:
        return self.classes[int(self.predictions[model].pred[index])]

    def areas(self, teacher: int, student: int) -> list[Area]:
        """Areas of expertise: groups of similar classes that hold much of the flips."""
        return areas(self.flips(teacher, student), self.embedding)


def compare(
    models: Sequence[Model],
    images: ImageSet,
    how: How,
    embedding: str = "head",
    progress: Progress = silent,
) -> Comparison:
    """Predict the images with each model (or find that in the cache) and compare all pairs.

    Args:
        embedding: what classes are compared by; see `kt_cli.knowledge.embedding`.

    Models that cannot be evaluated are left out, where others are left to compare.

    Raises:
        KtError: an image cannot be read, or too few models; what others said is in the cache.
    """
    models = sorted(models, key=lambda model: model.untrained)
    found = dict(zip(models, predict_all(models, images, how, progress), strict=True))
    failed = {model: said for model, said in found.items() if isinstance(said, Exception)}
    models = [model for model in models if model not in failed]
    if failed and sum(not model.untrained for model in models) < 2:
        raise _named(*next(iter(failed.items())))
    predictions = [said for said in found.values() if isinstance(said, Predictions)]
    order = np.argsort([-said.accuracy for said in predictions], kind="stable")
    vectors = class_embedding(embedding, [models[i] for i in order], images)
    untrained = [model.untrained for model in models]
    names = [model.name for model in models]
    failures = tuple(_named(model, error).message for model, error in failed.items())
    return replace(compared(names, predictions, untrained, vectors, how.logits), failures=failures)


def _named(model: Model, error: Exception) -> KtError:
    """An error that names its model, whose own code may raise anything."""
    if isinstance(error, KtError) and model.name in error.message:
        return error
    tip = "Its own code, or the size of its input, may be why."
    named = KtError(f"{model.name}: {first_line(error)}", getattr(error, "tip", tip))
    named.__cause__ = error
    return named


def compared(
    names: Sequence[str],
    predictions: Sequence[Predictions],
    untrained: Sequence[bool],
    embedding: ClassEmbedding | None,
    logits: bool,
) -> Comparison:
    """All pairs of models by what they say about the same images.

    Args:
        untrained: which are baselines; these come last. logits: whether predictions have them.
    """
    images = predictions[0].images
    outputs = Outputs(
        images.labels,
        np.stack([p.right for p in predictions]),
        np.stack([p.pred for p in predictions]),
        np.stack([p.confidence for p in predictions]),
        len(images.classes),
    )
    trained = predictions[: list(untrained).count(False)]
    suspicions = [suspicion(said) for said in trained]
    return Comparison(
        names=tuple(names),
        predictions=tuple(predictions),
        outputs=outputs,
        untrained=tuple(untrained),
        classes=tuple(readable(images.classes)),
        pairs=all_pairs(outputs, embedding),
        embedding=embedding,
        mean_probability=_mean_probability(trained) if logits else None,
        warnings=tuple(f"{n}: {text}" for n, text in zip(names, suspicions, strict=False) if text),
    )


def _mean_probability(predictions: Sequence[Predictions]) -> float | None:
    """Top-1 in percent of the mean of the models' probabilities, from their kept logits."""
    if any(p.path is None and p.logits is None for p in predictions):
        return None
    votes = []
    streams = [logits_of(p, LOGIT_ROWS) for p in predictions]
    for batch in zip(*streams, strict=True):
        total = sum(torch.from_numpy(logits.astype(np.float32)).softmax(dim=1) for logits in batch)
        assert isinstance(total, torch.Tensor)
        votes.append(total.argmax(dim=1).numpy())
    right = predictions[0].images.right(np.concatenate(votes))
    return float(percent(right.sum(), len(right)))


def to_dict(found: Comparison, count: int = 10) -> dict[str, Any]:
    """JSON-able: models, all ordered pairs with their statistics, ceilings."""
    models = [
        {"model": name, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high,
         "top5": predictions.top5_accuracy,
         "class_matching": predictions.about.get("class_matching")}
        for name, accuracy, (low, high), predictions in zip(
            found.names, found.accuracies, found.intervals, found.predictions, strict=True)
    ]  # fmt: skip
    for model, alone in zip(models, found.alone, strict=False):
        model["alone"] = alone
    every, students = range(len(found.names)), range(found.trained)
    return {
        "n": found.n,
        "num_classes": len(found.classes),
        "models": models,
        "pairs": [_pair(found, t, s, count) for t in every for s in students if t != s],
        "oracle_acc": found.oracle,
        "confident_acc": found.confident,
        "mean_probability_acc": found.mean_probability,
        "class_embedding": found.embedding.name if found.embedding else None,
        "class_similarity": found.embedding.mean if found.embedding else None,
        "warnings": list(found.warnings),
        "failures": list(found.failures),
    }


def _pair(found: Comparison, teacher: int, student: int, count: int) -> dict[str, Any]:
    values = {name: _number(matrix[teacher, student]) for name, matrix in found.pairs.items()}
    flips = found.flips(teacher, student)
    shares = 100 * flips / max(1, flips.sum())
    return {
        "teacher": found.names[teacher],
        "student": found.names[student],
        **values,
        "mcnemar_p_holm": _number(found.holm_p[teacher, student]),
        "classes": [
            {"class": found.classes[c], "flips": int(flips[c]), "share": _number(shares[c])}
            for c in top_classes(flips, count)
        ],
        "areas": [
            {**area._asdict(), "classes": [found.classes[c] for c in area.classes]}
            for area in found.areas(teacher, student)
        ],
    }  # fmt: skip


def top_classes(flips: NDArray[np.int64], count: int) -> list[int]:
    """Up to `count` classes with most flips, descending, none without any."""
    order = np.argsort(-flips, kind="stable")[:count]
    return [int(c) for c in order if flips[c] > 0]


def _number(value: float) -> float | None:
    """Rounded to what is exact: differences of percentages carry noise in the last digits."""
    return None if np.isnan(value) else float(f"{value:.10g}")
