"""Predictions that others' code wrote, as if kt had asked the model: `predictions:FILE`.

docs/predictions.md says which formats and columns there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kt_cli.data.images import ImageSet
from kt_cli.errors import DataError, counted, warn
from kt_cli.knowledge.file_columns import External, add_up, has_two_digits, read_external
from kt_cli.knowledge.matching import class_indices, numbered, require_labels, row_order
from kt_cli.knowledge.predictions import Predictions
from kt_cli.zoo.classes import BY_POSITION
from kt_cli.zoo.imagenet_names import AMBIGUOUS, described

__all__ = ["External", "predictions", "read_external"]

TOP = 5
ENOUGH = 10  # images that tell how many digits there are
LOGIT_TOLERANCE = 0.02  # of the largest: more than half precision or four digits lose

Classes = NDArray[np.int64]
Values = NDArray[np.float32]


def predictions(external: External, images: ImageSet, key: str) -> Predictions:
    """What a file, or arrays, say about `images`, in their order.

    Probabilities are NaN where they are not known.

    Args:
        key: identity of the model.

    Raises:
        DataError: other images, other labels or other classes than the data's.
    """
    path, ids, labels, classes = external.path, images.ids, images.labels, images.classes
    if isinstance(images.select, tuple):
        warn(f"{path}: --valid-labels is of models; in files numbers count the classes.")
    external = external.take(_row_order(external, ids))
    by_name = _numbers_are_names(external, labels, classes)
    if external.label is not None:
        found = class_indices(path, external.label, classes, by_name)
        require_labels(path, found, ids, labels, classes)
    if external.logits is not None and external.logits.shape[1] != len(classes):
        raise DataError(
            f"{path} has outputs for {external.logits.shape[1]:,} classes, the data has "
            f"{len(classes):,}",
            "One for each class of the data is needed, in their order.",
        )
    if images.select == BY_POSITION:
        external = replace(external, words=None)
    known = [_answers(external, classes, by_name)] if external.answers is not None else []
    if external.logits is not None:
        known.append(_top(external.logits))
    pred, width = known[0][:, 0], min(TOP, len(classes))
    top5 = next((answers[:, :width] for answers in known if answers.shape[1] >= width), None)
    confidence = _confidence(external, pred)
    label_prob = _label_prob(external, known[0], labels)
    if external.logits is not None:
        _require_agreement(external, pred, ids, classes)
    _doubt(external, confidence, len(classes))
    about = {"model": key}
    return Predictions(images, pred, confidence, label_prob, top5, about, logits=external.logits)


def _coarse(external: External) -> bool:
    """Whether probabilities were rounded to two digits, where there are enough to tell."""
    given = external.confidence
    if given is None or np.isnan(given).all():
        if external.logits is None or external.logits.max() > 0:
            return False
        given = np.exp(external.logits)
        if not add_up(given).all():
            return False  # no logarithms of probabilities
    return len(given) >= ENOUGH and has_two_digits(given[~np.isnan(given)])


def _row_order(external: External, ids: Sequence[str]) -> Classes:
    """(n,) row of each image, by whichever column has the images' names."""
    path, named = external.path, [] if external.ids is None else [external.ids]
    for names in (*named, *external.texts):
        with suppress(DataError):
            rows = row_order(path, names, len(external), ids)
            if others := len(external) - len(ids):
                warn(f"{path} has {counted(others, 'image')} that the data lacks: left out.")
            return rows
    rows = row_order(path, external.ids, len(external), ids)  # says what parts them
    if external.label is None:  # which would not be the data's in another order
        warn(
            f"no column of {path} has the images' names: its rows were taken in the data's order. "
            "If they are in another, all that is said of it is wrong: add a column id."
        )
    return rows


def _numbers_are_names(external: External, labels: Classes, classes: Sequence[str]) -> bool:
    """Whether the file's integers are names of classes, where names are numbers; labels tell."""
    place = numbered(classes)
    given = (external.label, external.answers)
    if place is None or not any(v is not None and v.dtype.kind == "i" for v in given):
        return False
    by_name = by_index = True
    if external.label is not None and external.label.dtype.kind == "i":
        by_name = bool((np.array(list(place), np.int64)[labels] == external.label).all())
        by_index = bool((labels == external.label).all())
    if by_name and by_index:
        raise DataError(
            f"{external.path} has classes as numbers, which may be names of the data's classes "
            f"or count them: {classes[0]} is the first",
            "Add a column label with the true classes, or give names as text (Parquet, JSON, NPZ).",
        )
    return by_name


def _answers(external: External, classes: Sequence[str], by_name: bool) -> Classes:
    """(n, k) answers as the file gives them; by timm's names of them, where these say otherwise."""
    values, words = external.answers, external.words
    assert values is not None
    if words is not None and not _agree(words, values, classes):
        values = words
    return class_indices(external.path, values, classes, by_name)


def _agree(words: NDArray[Any], index: Classes, classes: Sequence[str]) -> bool:
    """Whether names of answers are those of the data's classes at their index, or no names."""
    if list(classes) == list(map(str, range(len(classes)))):
        return True  # no names but numbers, which the index is
    place = described(classes) | {name: i for i, name in enumerate(classes)}
    pairs = set(zip(words.ravel().tolist(), index.ravel().tolist(), strict=True))
    return all(place.get(word) in (AMBIGUOUS, i) for word, i in pairs)


def _require_agreement(
    external: External, pred: Classes, ids: Sequence[str], classes: Sequence[str]
) -> None:
    """Refuse outputs that are not largest where the answer is: they are of another order.

    Where they are but for rounding, a note says how many answers differ.
    """
    logits = external.logits
    assert logits is not None
    largest = logits.max(axis=1)
    behind = largest - _pick(logits, pred)
    different = np.flatnonzero(behind > LOGIT_TOLERANCE * np.maximum(1, np.abs(largest)))
    if different.size:
        i = int(different[0])
        raise DataError(
            f"{external.path}: for {different.size:,} of {len(pred):,} images its outputs are not "
            f"largest for its answer: {ids[i]} is {classes[pred[i]]}, and "
            f"{classes[logits[i].argmax()]} by the outputs",
            "Are its outputs in another order than the data's classes?",
        )
    if others := int(np.count_nonzero(behind)):
        text = f"for {others:,} of {len(pred):,} images its answer is not its largest output"
        warn(f"{external.path}: {text}, if nearly; the answers count.")


def _top(logits: Values) -> Classes:
    """(n, min(5, C)) classes, most probable first, the first of equals before the others."""
    width = logits.shape[1]
    best = np.argpartition(logits, max(0, width - TOP), axis=1)[:, -TOP:]
    least = np.take_along_axis(logits, best, axis=1).min(axis=1)
    tied = np.count_nonzero(logits >= least[:, None], axis=1) > best.shape[1]
    best[tied] = np.argsort(-logits[tied], axis=1, kind="stable")[:, :TOP]
    best.sort(axis=1)
    ranks = np.argsort(-np.take_along_axis(logits, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, ranks, axis=1).astype(np.int64)


def _doubt(external: External, confidence: Values, classes: int) -> None:
    """Warn of probabilities that are none of the likeliest class, or coarse."""
    path = external.path
    if (confidence < (1 - LOGIT_TOLERANCE) / classes).any():
        warn(
            f"{path} has answers with a probability below 1/{classes:,}, which the likeliest "
            "class never has: is it the probability of one certain class?"
        )
    if _coarse(external):
        warn(
            f"{path} has probabilities of two digits: many are equal, and whatever goes by "
            "confidence is coarse. Write more digits."
        )


def _confidence(external: External, pred: Classes) -> Values:
    """(n,) probability of the answer; NaN where it is not known."""
    known = np.full(len(pred), np.nan, np.float32)
    if external.confidence is not None:
        known = external.confidence[:, 0]
    if external.logits is not None and np.isnan(known).any():
        known = np.where(np.isnan(known), _probabilities(external.logits, pred), known)
    return known


def _label_prob(external: External, answers: Classes, labels: Classes) -> Values:
    """(n,) probability of the label; NaN where it is not known, as of one beyond the best k."""
    if external.label_prob is not None:
        return external.label_prob
    if external.logits is not None:
        return _probabilities(external.logits, labels)
    assert external.confidence is not None
    known = np.where(answers == labels[:, None], external.confidence, np.nan)
    return np.asarray(np.fmax.reduce(known, axis=1), np.float32)


def _probabilities(logits: Values, columns: Classes) -> Values:
    """(n,) softmax of (n, C) logits at (n,) columns."""
    largest = logits.max(axis=1)
    total = np.exp(logits - largest[:, None]).sum(axis=1)
    return np.asarray(np.exp(_pick(logits, columns) - largest) / total, np.float32)


def _pick(values: Values, columns: Classes) -> Values:
    return np.asarray(values[np.arange(len(values)), columns])
