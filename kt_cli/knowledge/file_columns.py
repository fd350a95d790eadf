"""What the columns of a file of predictions mean; `kt_cli.knowledge.external` lists them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kt_cli.errors import DataError
from kt_cli.knowledge.file_tables import IDS, Table, read_table

TRUTHS: tuple[str, ...] = ("label", "target", "y", "truth", "ground_truth")
ANSWERS = ("pred", "prediction")
CONFIDENCES = ("confidence", "top1_prob", "prob")
LOGITS = ("logits", "logit")
OUTPUTS = (*LOGITS, "probabilities", "prob")
BEST_OF_TIMM = ("logit", "prob")  # all outputs, or the best k beside their classes
EXPECTED = (
    "Expected pred (or timm's index or label) or all outputs (probabilities, logits, prob_0 …, "
    "logit_0 …), and beside it id and label; see docs/predictions.md."
)
SUM_TOLERANCE = 0.01


@dataclass(frozen=True)
class External:
    """What a file says about n images; classes are int64, or names as objects.

    Attributes:
        ids: of the images; None where the file has none.
        label: (n,) the truth; None where the file does not tell.
        answers: (n, k) classes, most probable first; None where only `logits` tell.
        words: (n, k) timm's names of answers that are integers.
        confidence: (n, k) float32 probability of each answer; NaN where it is not known.
        label_prob: (n,) float32 probability of the truth.
        logits: (n, C) float32; logarithms where the file has probabilities.
    """

    path: Path
    ids: list[str] | None = None
    label: NDArray[Any] | None = None
    answers: NDArray[Any] | None = None
    words: NDArray[Any] | None = None
    confidence: NDArray[np.float32] | None = None
    label_prob: NDArray[np.float32] | None = None
    logits: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(next(v for v in (self.answers, self.logits) if v is not None))


def read_external(path: Path) -> External:
    """Read a file of predictions.

    Raises:
        DataError: it cannot be read, or it does not tell what was predicted.
    """
    return external_of(read_table(path))


def external_of(table: Table) -> External:
    """What the columns of a table mean.

    Raises:
        DataError: they do not tell what was predicted.
    """
    outputs, words = _outputs_name(table), None
    answers, truths = _answers(table), TRUTHS
    if answers is None and (outputs is None or _is_ranked(table, outputs)):
        answers, words, truths = _of_timm(table)
    whole = outputs is not None and not _is_ranked(table, outputs)
    ids, truth = table.first(IDS), table.first(truths)
    found = External(
        path=table.path,
        ids=None if ids is None else [str(name) for name in table.columns[ids].tolist()],
        label=None if truth is None else _classes(table, truth),
        answers=answers,
        words=words,
        confidence=None if answers is None else _confidence(table, answers),
        label_prob=_probabilities(table, "label_prob") if table.first(("label_prob",)) else None,
        logits=_logits(table, outputs) if whole and outputs else None,
    )
    _require_one_length(found)
    return found


def _require_one_length(found: External) -> None:
    arrays = (found.ids, found.label, found.answers, found.words, found.confidence,
              found.label_prob, found.logits)  # fmt: skip
    lengths = {len(values) for values in arrays if values is not None}
    if len(lengths) > 1:
        raise DataError(
            f"{found.path}: its columns have different lengths: {', '.join(map(str, lengths))}"
        )
    if found.label is not None and found.label.ndim > 1:
        raise DataError(f"{found.path} has several labels an image, not one")


# --- answers ------------------------------------------------------------------------------------


def _answers(table: Table) -> NDArray[Any] | None:
    """(n, k) what is called an answer."""
    name = table.first(ANSWERS)
    if name is None:
        return None
    answers = _columns(_classes(table, name))
    if "top5" not in table.columns:
        return answers
    top5 = _columns(_classes(table, "top5"))
    if len(top5) != len(answers) or (top5[:, 0] != answers[:, 0]).any():
        raise DataError(f"{table.path}: its top5 do not begin with its {name}")
    return top5


def _of_timm(table: Table) -> tuple[NDArray[Any], NDArray[Any] | None, tuple[str, ...]]:
    """(n, k) answers, their names, and what columns may have the truth, as timm writes them.

    Its `label` names the answers, but there are files with an index and the true label, too.
    """
    there = [name for name in ("index", "label") if name in table.columns]
    columns = {name: _columns(_classes(table, name)) for name in there}
    index, label = columns.get("index"), columns.get("label")
    if index is None and label is not None and label.dtype == object:
        return label, None, TRUTHS[1:]
    if index is None:
        reason = "has no predictions, but" if label is None else "does not tell what was predicted:"
        raise DataError(f"{table.path} {reason} {table.summary}", EXPECTED)
    if label is None or label.shape != index.shape:
        return index, None, TRUTHS
    if label.dtype != object:
        return index, None, TRUTHS[1:] if (label == index).all() else TRUTHS
    if not _are_names_of(label, index):
        raise DataError(
            f"{table.path}: its label is not the name of its index: {table.summary}",
            "Is it the truth? Then call the index pred.",
        )
    return index, label, TRUTHS[1:]


def _are_names_of(words: NDArray[Any], index: NDArray[Any]) -> bool:
    """Whether each index always goes with the same word."""
    _, codes = np.unique(words.ravel(), return_inverse=True)
    pairs = np.unique(np.stack([index.ravel().astype(np.int64), codes]), axis=1)
    return bool(pairs.shape[1] == len(np.unique(index)))


def _columns(values: NDArray[Any]) -> NDArray[Any]:
    return values[:, None] if values.ndim == 1 else values


def _classes(table: Table, name: str) -> NDArray[Any]:
    """A column of classes as int64, or as names."""
    values = table.columns[name]
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        unknown = np.isnan(values)
    else:
        values = values.astype(object)
        unknown = np.array([v is None for v in values.ravel()])
    if unknown.any():
        raise DataError(f"{table.path}: its {name} is empty for {unknown.sum():,} images")
    if values.dtype == object:
        return np.array([str(v) for v in values.ravel()], object).reshape(values.shape)
    if (values != values.round()).any():
        raise DataError(f"{table.path}: its {name} is neither whole numbers nor names")
    return values.astype(np.int64)


# --- numbers ------------------------------------------------------------------------------------


def _outputs_name(table: Table) -> str | None:
    """The first of OUTPUTS that has several values an image."""
    for name in OUTPUTS:
        values = table.columns.get(name)
        if values is not None and values.ndim == 2 and values.shape[1] > 1:
            return name
    return None


def _is_ranked(table: Table, outputs: str) -> bool:
    """Whether the values are the best k of each image, which stand beside their classes."""
    values = table.columns.get(outputs)
    beside = (table.columns.get(name) for name in ("index", "label", "top5"))
    return outputs in BEST_OF_TIMM and any(
        there is not None and values is not None and there.shape == values.shape for there in beside
    )


def _logits(table: Table, name: str) -> NDArray[np.float32]:
    """(n, C) logits, or logarithms of probabilities."""
    numbers = _numbers(table, name)
    if not np.isfinite(numbers).all():
        raise DataError(f"{table.path}: its {name} are not all finite")
    if name in LOGITS:
        return numbers
    sums = numbers.sum(axis=1)
    if numbers.min() < 0 or np.abs(sums - 1).max() > SUM_TOLERANCE:
        worst = int(np.abs(sums - 1).argmax())
        raise DataError(
            f"{table.path}: its probabilities do not add up to 1 (row {worst} gives "
            f"{sums[worst]:.3g}, its least is {numbers[worst].min():.3g})",
            "If they are logits, call them logits, or logit_0 …; if they are only the best, their "
            "classes are needed (of timm's inference.py: --include-index, or --topk 0 for all).",
        )
    return np.log(np.maximum(numbers, np.finfo(np.float32).tiny))


def _confidence(table: Table, answers: NDArray[Any]) -> NDArray[np.float32]:
    """(n, k) probability of each answer."""
    known = np.full(answers.shape, np.nan, np.float32)
    name = table.first(CONFIDENCES)
    if name is None:
        return known
    given = _columns(_probabilities(table, name))
    if given.shape == answers.shape:
        return given
    if given.shape[1] == 1 and len(given) == len(answers):
        known[:, :1] = given
    return known


def _probabilities(table: Table, name: str) -> NDArray[np.float32]:
    numbers = _numbers(table, name)
    outside = numbers[(numbers < 0) | (numbers > 1 + SUM_TOLERANCE)]
    if outside.size:
        raise DataError(
            f"{table.path}: its {name} has {outside[0]:.3g}, which is no probability",
            "If these are logits, call them logit.",
        )
    return numbers


def _numbers(table: Table, name: str) -> NDArray[np.float32]:
    values = table.columns[name]
    try:
        return values.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{table.path}: its {name} are not all numbers: {error}") from error
