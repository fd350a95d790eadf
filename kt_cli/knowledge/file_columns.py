"""What the columns of a file of predictions mean (docs/predictions.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kt_cli.data.labels import is_image
from kt_cli.errors import DataError, counted
from kt_cli.files import escaped
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
HALF_A_DIGIT = 0.005  # that rounding to two digits can move a probability by
MOST_ROUNDED = 0.2  # that the sum of many such may miss 1 by
ARRAYS = ("label", "answers", "words", "confidence", "label_prob", "logits")  # of an External


@dataclass(frozen=True)
class External:
    """What a file says about n images; classes are int64, or names as objects; else it is None.

    ids: of the images. texts: other columns that may name them.
    label: (n,), the truth. answers: (n, k) classes, most probable first.
    words: (n, k), timm's names of answers that are integers.
    confidence: (n, k) probability of each answer, NaN where unknown. label_prob: (n,) of the truth.
    logits: (n, C); logarithms where the file has probabilities.
    """

    path: Path
    ids: list[str] | None = None
    texts: tuple[list[str], ...] = ()
    label: NDArray[Any] | None = None
    answers: NDArray[Any] | None = None
    words: NDArray[Any] | None = None
    confidence: NDArray[np.float32] | None = None
    label_prob: NDArray[np.float32] | None = None
    logits: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(next(v for v in (self.answers, self.logits) if v is not None))

    def take(self, rows: NDArray[np.int64]) -> External:
        """These rows, without names."""
        return replace(self, ids=None, texts=(), **{
            name: values[rows] for name in ARRAYS if (values := getattr(self, name)) is not None
        })  # fmt: skip


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
    if answers is None and outputs is None:
        answers, words, truths = _of_timm(table)
    truth = table.first(truths)
    found = External(
        path=table.path,
        label=None if truth is None else _classes(table, truth),
        answers=answers,
        words=words,
        confidence=None if answers is None else _confidence(table, answers),
        label_prob=_probabilities(table, "label_prob") if table.first(("label_prob",)) else None,
        logits=_logits(table, outputs) if outputs else None,
    )
    ids, texts = _names(table, len(found))
    found = replace(found, ids=ids, texts=texts)
    arrays = (getattr(found, name) for name in ("ids", *ARRAYS))
    lengths = {len(values) for values in arrays if values is not None}
    if len(lengths) > 1:
        named = ", ".join(map(str, lengths))
        raise DataError(f"{found.path}: its columns have different lengths: {named}")
    if found.label is not None and found.label.ndim > 1:
        raise DataError(f"{found.path} has several labels an image, not one")
    return found


def _names(table: Table, rows: int) -> tuple[list[str] | None, tuple[list[str], ...]]:
    """Names of the images by what they are called or look like, and what else may name them.

    Files of images go before what is called a name, and that before text that no two rows share.
    """
    texts = {
        name: [escaped(str(value)) for value in values.tolist()]
        for name, values in table.columns.items()
        if values.ndim == 1 and (name in IDS or values.dtype == object)
    }
    texts = {name: t for name, t in texts.items() if name in IDS or len(set(t)) == len(t) == rows}
    files = {name for name, t in texts.items() if sum(map(is_image, t)) > len(t) / 2}

    def rank(name: str) -> tuple[bool, int]:
        return name not in files, IDS.index(name) if name in IDS else len(IDS)

    ranked = sorted(texts, key=rank)
    named = ranked[:1] if files or set(IDS) & texts.keys() else []
    others = tuple(texts[name] for name in ranked[len(named) :])
    return (texts[named[0]] if named else None), others


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
    index, label = (
        _columns(_classes(table, name)) if name in table.columns else None
        for name in ("index", "label")
    )  # fmt: skip
    if index is None and label is not None and label.dtype == object:
        return label, None, TRUTHS[1:]
    if index is None:
        reason = "has no predictions, but" if label is None else "does not tell what was predicted:"
        raise DataError(f"{table.path} {reason} {table.summary}", EXPECTED)
    if label is None or label.shape != index.shape:
        return index, None, TRUTHS
    if label.dtype != object:
        return index, None, TRUTHS[1:] if (label == index).all() else TRUTHS
    pairs = set(zip(index.ravel().tolist(), label.ravel().tolist(), strict=True))
    if len(pairs) > len(np.unique(index)):
        raise DataError(
            f"{table.path}: its label is not the name of its index: {table.summary}",
            "Is it the truth? Then call the index pred.",
        )
    return index, label, TRUTHS[1:]


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
        row = int(unknown.reshape(len(values), -1).any(axis=1).argmax()) + 1
        images = counted(int(unknown.sum()), "image")
        raise DataError(
            f"{table.path}: its {name} is empty for {images}, the first in row {row}",
            "Each image needs an answer.",
        )
    if values.dtype == object:
        return np.array([str(v) for v in values.ravel()], object).reshape(values.shape)
    if (values != values.round()).any():
        raise DataError(f"{table.path}: its {name} is neither whole numbers nor names")
    return values.astype(np.int64)


# --- numbers ------------------------------------------------------------------------------------


def _outputs_name(table: Table) -> str | None:
    """The first of OUTPUTS that has several values an image, if these are not only the best k."""
    columns = table.columns
    for name in OUTPUTS:
        if name in columns and columns[name].ndim == 2 and columns[name].shape[1] > 1:
            classes = [columns[c].shape for c in ("index", "label", "top5") if c in columns]
            ranked = name in BEST_OF_TIMM and columns[name].shape in classes
            return None if ranked else name
    return None


def _logits(table: Table, name: str) -> NDArray[np.float32]:
    """(n, C) logits, or logarithms of probabilities."""
    numbers = _numbers(table, name)
    if not np.isfinite(numbers).all():
        raise DataError(f"{table.path}: its {name} are not all finite")
    if name in LOGITS:
        return numbers
    sums = numbers.sum(axis=1)
    wrong = (numbers.min(axis=1) < 0) | ~add_up(numbers)
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(
            f"{table.path}: its probabilities do not add up to 1 (row {first + 1} gives "
            f"{sums[first]:.3g}, its least is {numbers[first].min():.3g})",
            _otherwise(numbers, sums),
        )
    return np.log(np.maximum(numbers, np.finfo(np.float32).tiny))


def add_up(numbers: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Which rows of probabilities (n, C) add up to 1, of two digits but for rounding: (n,)."""
    missed = np.abs(numbers.sum(axis=1, dtype=np.float64) - 1) - 1e-6
    most = SUM_TOLERANCE
    if missed.max(initial=0) > most and has_two_digits(numbers):
        most = np.clip(HALF_A_DIGIT * numbers.shape[1], most, MOST_ROUNDED)
    return np.asarray(missed <= most)


def has_two_digits(numbers: NDArray[np.floating[Any]]) -> bool:
    """Whether numbers are shares of two digits."""
    hundredths = 100 * np.asarray(numbers, dtype=np.float64)
    whole = np.abs(hundredths - hundredths.round()).max(initial=0) < 1e-3
    return bool(whole and hundredths.max(initial=0) <= 100)


def _otherwise(numbers: NDArray[np.float32], sums: NDArray[np.float32]) -> str:
    """What (n, C) numbers may be that are no probabilities."""
    if numbers.min() >= 0 and np.abs(sums - 100).max() <= 100 * SUM_TOLERANCE:
        return "These are percent: divide them by 100."
    if numbers.max() <= 0 and np.abs(np.exp(numbers).sum(axis=1) - 1).max() <= SUM_TOLERANCE:
        return "These are logarithms of probabilities: call them logits, or logit_0 …"
    many = HALF_A_DIGIT * numbers.shape[1] > MOST_ROUNDED
    if many and numbers.min() >= 0 and has_two_digits(numbers):
        return "Rounded to two digits they have lost too much: write more digits."
    return (
        "If they are logits, call them logits, or logit_0 …; if they are only the best, their "
        "classes are needed (of timm's inference.py: --include-index, or --topk 0 for all)."
    )


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
