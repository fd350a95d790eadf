"""What runs cost, and chunks of about equal cost.

A model's cost for an image is measured where a row says so, else published multiply-adds, else
guessed from its parameters. Rows of earlier transfers correct what that makes of a student.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kt_cli.rows import store
from kt_cli.runs.kinds import kind_of
from kt_cli.spec import Model, Run
from kt_cli.zoo import imagenet_facts

MACS_PER_SECOND = 3e12  # a data centre's GPU in full precision, where nothing is measured yet
MACS_PER_PARAMETER = 200.0  # of convolutional networks and transformers at 224 pixels
TYPICAL_SECONDS = 5e9 / MACS_PER_SECOND
TRAINING = 3.0  # forward and backward, against forward alone


class Costs:
    """Estimates of what runs take, from what is in `folder`.

    Args:
        training, evaluation: how many images there are.
    """

    def __init__(self, folder: Path, training: int, evaluation: int) -> None:
        self.training, self.evaluation = training, evaluation
        self._images = _seconds_per_image(folder)
        measured = list(self._images.values())
        self._typical = float(np.median(measured)) if measured else None
        self._factors: dict[str, float] = {}
        self._factors = _corrections(folder, self)

    def seconds(self, run: Run) -> float:
        """Estimated seconds of a run on one GPU."""
        return kind_of(run).seconds(run, self)

    def typical(self, kind: str, models: Sequence[Model], epochs: int) -> float:
        """About what a run takes that is not planned yet, on one of these models, in seconds."""
        if not models or kind not in ("predict", "transfer"):
            return 0.0
        image = float(np.mean([self.per_image(model) for model in models]))
        if kind == "predict":
            return image * self.evaluation
        return (TRAINING + 2) * image * epochs * self.training + 2 * image * self.evaluation

    def transfer(self, models: Sequence[Model], epochs: int) -> float:
        """What a transfer from the first models into the last takes, in seconds."""
        *teachers, student = (model.key for model in models)
        factor = self._factors.get(student, self._factors.get("", 1.0))
        return factor * self.uncorrected(teachers, student, epochs)

    def uncorrected(self, teachers: Sequence[str], student: str, epochs: float) -> float:
        """What a transfer should take before any correction, in seconds."""
        of = {key: self.per_image(Model(key)) for key in (*teachers, student)}
        step = TRAINING * of[student] + sum(of[key] for key in teachers) + of[student]
        return step * epochs * self.training + 2 * of[student] * self.evaluation

    def per_image(self, model: Model) -> float:
        """Seconds of a model's forward pass."""
        if model.key in self._images:
            return self._images[model.key]
        return _published(model.key) or self._typical or TYPICAL_SECONDS


def _published(key: str) -> float | None:
    """Seconds of a forward pass, from published multiply-adds or parameters."""
    found = imagenet_facts.fact(key)
    if found is None:
        return None
    macs = found.gmacs * 1e9 if found.gmacs else None
    return (macs or found.params_m * 1e6 * MACS_PER_PARAMETER) / MACS_PER_SECOND


def _seconds_per_image(folder: Path) -> dict[str, float]:
    """By the key of the model, from rows of predictions.

    Models that were measured together have one speed, which is shared out by published costs.
    """
    columns = ["model_key", "status", "samples_per_s", "measured_with"]
    rows = store.read([folder], "models", columns)
    rows = rows[(rows["status"] == store.OK) & rows["measured_with"].notna()]
    costs = pd.Series([_published(key) or TYPICAL_SECONDS for key in rows["model_key"]],
                      rows.index, dtype=float)  # fmt: skip
    mean = costs.groupby(rows["measured_with"]).transform("mean")
    seconds = costs / mean / rows["samples_per_s"]
    return dict(zip(rows["model_key"], seconds.astype(float), strict=True))


def _corrections(folder: Path, costs: Costs) -> dict[str, float]:
    """Seconds taken against those estimated, by the student's key; "" for all together."""
    columns = ["teacher_key", "student_key", "epochs", "seconds", "status"]
    rows = store.read([folder], "transfer", columns)
    rows = rows[(rows["status"] == store.OK) & (rows["seconds"] > 0)]
    if rows.empty:
        return {}
    ratios = rows["seconds"] / [
        costs.uncorrected(str(teacher).split(" + "), student, epochs)
        for teacher, student, epochs in rows[columns[:3]].itertuples(index=False)
    ]
    by_student = ratios.groupby(rows["student_key"]).median()
    found = {str(key): float(ratio) for key, ratio in by_student.items()}
    return {**found, "": float(ratios.median())}


def edges(costs: Sequence[float], count: int) -> list[int]:
    """`count` + 1 rising borders of chunks of neighbours, of about equal cost; none is empty."""
    n = len(costs)
    count = min(count, n)
    total: NDArray[np.float64] = np.cumsum(np.maximum(costs, 1e-9))
    wanted = total[-1] * np.arange(1, count) / count
    middle = total - np.maximum(costs, 1e-9) / 2
    inner = np.searchsorted(middle, wanted)
    borders = np.array([0, *inner, n])
    # Every chunk keeps at least one run, from the left and then from the right.
    borders = np.maximum.accumulate(borders - np.arange(count + 1)) + np.arange(count + 1)
    borders = np.minimum(borders, n - count + np.arange(count + 1))
    return [int(border) for border in borders]
