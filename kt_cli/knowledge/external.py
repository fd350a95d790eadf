"""Predictions that others' code wrote: `predictions:FILE` as a model (docs/predictions.md).

Parquet, CSV (also .csv.gz), JSON or NPZ, with these columns or arrays:

what            names
--------------  ----------------------------------------------------------------------------
image           id, filename, file, image or path (or a Parquet table's index)
truth           label, target, y, truth or ground_truth
answer          pred or prediction, top5 beside it; else index
probabilities   confidence, top1_prob or prob: the answer's; label_prob: the truth's
all outputs     probabilities or logits (also prob, logit): (n, C) arrays, list columns, or
                prob_0 … prob_C−1, logit_0 … logit_C−1; what is not given follows from them

timm's inference.py writes the k best: index, label and prob, each a list column or index_0 …; its
`label` names the answer, and the truth then comes from the data.
Classes are integers, or names that are looked up among the data's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kt_cli.data.class_names import AMBIGUOUS, described
from kt_cli.data.images import ImageSet, listing
from kt_cli.errors import DataError
from kt_cli.knowledge.file_columns import External, read_external
from kt_cli.knowledge.matching import (
    class_indices,
    numbered,
    require_labels,
    require_once,
    row_order,
)
from kt_cli.knowledge.predictions import COLUMNS, Predictions
from kt_cli.zoo.classes import BY_POSITION
from kt_cli.zoo.local_models import natural

__all__ = ["External", "aligned", "common_images", "images_of", "read_external"]

TOP = 5
LOGIT_TOLERANCE = 0.02  # of the largest: more than half precision or four digits lose


# --- the same images in the same order ---------------------------------------------------------


def aligned(
    external: External,
    ids: Sequence[str],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    by_position: bool = False,
) -> dict[str, NDArray[Any]]:
    """The columns of a prediction, in the order of `ids`.

    Args:
        by_position: integers count the classes, whatever the names beside them.

    Returns:
        label, pred, confidence, label_prob (NaN where unknown), each (n,); top5 (n, min(5, C))
        where the file tells so many answers; logits (n, C) where it has them.

    Raises:
        DataError: other images, other labels or other classes than the data's.
    """
    order = row_order(external.path, external.ids, len(external), ids)
    by_name = _numbers_are_names(external, order, labels, classes)
    if external.label is not None:
        found = class_indices(external.path, external.label, classes, by_name)[order]
        require_labels(external.path, found, ids, labels, classes)
    logits = _all_outputs(external, order, classes)
    if by_position:
        external = replace(external, words=None)
    answers = _given_answers(external, order, classes, by_name)
    top = None if logits is None else _top(logits)
    known = [found for found in (answers, top) if found is not None]
    pred = known[0][:, 0]
    columns: dict[str, NDArray[Any]] = {
        "label": labels,
        "pred": pred,
        "confidence": _confidence(external, order, pred, logits),
        "label_prob": _label_prob(external, order, labels, answers, logits),
    }
    width = min(TOP, len(classes))
    if wide := [found for found in known if found.shape[1] >= width]:
        columns["top5"] = wide[0][:, :width]
    if logits is not None:
        _require_agreement(external.path, pred, logits, ids, classes)
        columns["logits"] = logits
    return columns


def _given_answers(
    external: External, order: NDArray[np.int64], classes: Sequence[str], by_name: bool
) -> NDArray[np.int64] | None:
    """(n, k) answers as the file gives them; by timm's names of them, where these say otherwise."""
    values, words = external.answers, external.words
    if values is None:
        return None
    if words is not None and not _agree(words, values, classes):
        values = words
    return class_indices(external.path, values, classes, by_name)[order]


def _agree(words: NDArray[Any], index: NDArray[np.int64], classes: Sequence[str]) -> bool:
    """Whether names of answers are those of the data's classes at their index, or no names."""
    if list(classes) == list(map(str, range(len(classes)))):
        return True  # no names but numbers, which the index is
    place = described(classes) | {name: i for i, name in enumerate(classes)}
    pairs = set(zip(words.ravel().tolist(), index.ravel().tolist(), strict=True))
    return all(place.get(word) in (AMBIGUOUS, i) for word, i in pairs)


def _numbers_are_names(
    external: External,
    order: NDArray[np.int64],
    labels: NDArray[np.int64],
    classes: Sequence[str],
) -> bool:
    """Whether the file's integers are names of classes, where names are numbers; labels tell."""
    place = numbered(classes)
    given = (external.label, external.answers)
    if place is None or not any(v is not None and v.dtype.kind == "i" for v in given):
        return False
    by_name = by_index = True
    if external.label is not None and external.label.dtype.kind == "i":
        found = external.label[order]
        by_name = bool((np.array(list(place), np.int64)[labels] == found).all())
        by_index = bool((labels == found).all())
    if by_name and by_index:
        raise DataError(
            f"{external.path} has classes as numbers, which may be names of the data's classes "
            f"or count them: {classes[0]} is the first",
            "Add a column label with the true classes, or give names as text (Parquet, JSON, NPZ).",
        )
    return by_name


def _require_agreement(
    path: Path,
    pred: NDArray[np.int64],
    logits: NDArray[np.float32],
    ids: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Refuse outputs that are not largest where the answer is: they are of another order."""
    largest = logits.max(axis=1)
    behind = largest - _pick(logits, pred)
    different = np.flatnonzero(behind > LOGIT_TOLERANCE * np.maximum(1, np.abs(largest)))
    if different.size:
        i = int(different[0])
        raise DataError(
            f"{path}: for {different.size:,} of {len(pred):,} images its outputs are not largest "
            f"for its answer: {ids[i]} is {classes[pred[i]]}, and {classes[logits[i].argmax()]} "
            "by the outputs",
            "Are its outputs in another order than the data's classes?",
        )


# --- what follows from all outputs --------------------------------------------------------------


def _all_outputs(
    external: External, order: NDArray[np.int64], classes: Sequence[str]
) -> NDArray[np.float32] | None:
    logits = external.logits
    if logits is not None and logits.shape[1] != len(classes):
        raise DataError(
            f"{external.path} has outputs for {logits.shape[1]:,} classes, the data has "
            f"{len(classes):,}",
            "One for each class of the data is needed, in their order.",
        )
    return None if logits is None else logits[order]


def _top(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """(n, min(5, C)) classes, most probable first, the first of equals before the others."""
    width = logits.shape[1]
    best = np.argpartition(logits, max(0, width - TOP), axis=1)[:, -TOP:]
    best.sort(axis=1)
    ranks = np.argsort(-np.take_along_axis(logits, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, ranks, axis=1).astype(np.int64)


def _confidence(
    external: External,
    order: NDArray[np.int64],
    pred: NDArray[np.int64],
    logits: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """(n,) probability of the answer; NaN where it is not known."""
    known = np.full(len(pred), np.nan, np.float32)
    if external.confidence is not None:
        known = external.confidence[order, 0]
    if logits is not None and np.isnan(known).any():
        return np.asarray(np.where(np.isnan(known), _probabilities(logits, pred), known))
    return known


def _label_prob(
    external: External,
    order: NDArray[np.int64],
    labels: NDArray[np.int64],
    answers: NDArray[np.int64] | None,
    logits: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """(n,) probability of the label; NaN where it is not known, as of one beyond the best k."""
    if external.label_prob is not None:
        return external.label_prob[order]
    if logits is not None:
        return _probabilities(logits, labels)
    assert answers is not None and external.confidence is not None
    known = np.where(answers == labels[:, None], external.confidence[order], np.nan)
    return np.asarray(np.fmax.reduce(known, axis=1), np.float32)


def _probabilities(
    logits: NDArray[np.float32], columns: NDArray[np.integer]
) -> NDArray[np.float32]:
    """(n,) softmax of (n, C) logits at (n,) columns."""
    largest = logits.max(axis=1)
    total = np.exp(logits - largest[:, None]).sum(axis=1)
    return np.asarray(np.exp(_pick(logits, columns) - largest) / total, np.float32)


def _pick(values: NDArray[np.float32], columns: NDArray[np.integer]) -> NDArray[np.float32]:
    return np.asarray(values[np.arange(len(values)), columns])


def predictions(external: External, images: ImageSet, key: str) -> Predictions:
    """What a file, or arrays, say about `images`, as if kt had asked the model.

    Args:
        key: identity of the model.

    Raises:
        DataError: as `aligned`.
    """
    in_order = images.select == BY_POSITION
    columns = aligned(external, images.ids, images.labels, images.classes, in_order)
    kept: dict[str, Any] = {name: columns.get(name) for name in COLUMNS}
    return Predictions(images, **kept, about={"model": key}, logits=columns.get("logits"))


# --- where no other data is named ---------------------------------------------------------------


def images_of(externals: Sequence[External]) -> ImageSet:
    """The images that predictions are about, by the first of them that has labels.

    Raises:
        DataError: as `common_images`.
    """
    ids, labels, classes = common_images(externals)
    return ImageSet(
        name="predictions",
        classes=classes,
        ids=ids,
        labels=labels,
        read=_no_image,
        origin=listing("predictions", classes, ids, labels),
    )


def _no_image(i: int) -> Image.Image:
    raise DataError("files of predictions hold no images", "Name the images: --data.")


def common_images(
    externals: Sequence[External],
) -> tuple[list[str], NDArray[np.int64], tuple[str, ...]]:
    """Names, labels and classes of the images, by the first file that has labels.

    Classes are the numbers up to the largest, or all names, in the order of folders.

    Raises:
        DataError: no file has labels, or some count classes and others name them.
    """
    labelled = [e for e in externals if e.label is not None]
    if not labelled:
        raise DataError(
            "none of the files of predictions has labels",
            "Add a column label to one of them, or name the images: --data.",
        )
    first = min(labelled, key=lambda e: e.ids is None)  # the first with names, where there is one
    assert first.label is not None
    ids = [str(i) for i in range(len(first))] if first.ids is None else first.ids
    require_once(first.path, ids)
    counted = first.label.dtype.kind == "i"
    classes = _counted(externals) if counted else _named(externals)
    return ids, class_indices(first.path, first.label, classes), classes


def _counted(externals: Sequence[External]) -> tuple[str, ...]:
    count = 1
    for external in externals:
        for values in (external.label, external.answers):
            if values is not None and values.dtype.kind != "i":
                raise _mixture(external.path, "names", "count")
            count = max(count, 0 if values is None else 1 + int(values.max()))
        count = max(count, 0 if external.logits is None else external.logits.shape[1])
    return tuple(map(str, range(count)))


def _named(externals: Sequence[External]) -> tuple[str, ...]:
    names: set[str] = set()
    for external in externals:
        answers = external.answers if external.words is None else external.words
        for values in (external.label, answers):
            if values is not None and values.dtype.kind == "i":
                raise _mixture(external.path, "counts", "name")
            names.update(() if values is None else values.ravel().tolist())
    return tuple(sorted(names - described(list(names)).keys(), key=natural))


def _mixture(path: Path, does: str, others_do: str) -> DataError:
    return DataError(
        f"{path} {does} classes, and others {others_do} them",
        "Name the images, whose class folders tell: --data.",
    )
