"""What runs cost, and what fits into a budget.

A model's cost for an image is measured where a row says so, else published multiply-adds of its
architecture, else guessed from its parameters. Rows of earlier transfers correct what that makes of
a student.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kt_cli.rows import store
from kt_cli.runs.kinds import KINDS, kind_of
from kt_cli.settings import SweepSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps.config import model_names, transfer_count
from kt_cli.zoo import imagenet_facts, local_models, timm_registry

MACS_PER_SECOND = 3e12  # a data centre's GPU in full precision, where nothing is measured yet
MACS_PER_PARAMETER = 200.0  # of convolutional networks and transformers at 224 pixels
CPU_MACS_PER_SECOND = 2e10  # of one thread
TYPICAL_MACS, TYPICAL_SIDE = 5e9, 224
FIXED = 2.0  # seconds of a transfer, in which models are opened, saved and written about
TRAINING = 3.0  # forward and backward, against forward alone
PREDICTION_BYTES = 50  # an image's row in the cache of predictions, its name included
TYPICAL_PARAMS_M = 50.0


class Costs:
    """Estimates of what runs take, from what is in `folder`.

    Args:
        training, evaluation: how many images there are.
        speed: multiply-adds a second, where nothing is measured.
    """

    def __init__(
        self, folder: Path, training: int, evaluation: int, speed: float = MACS_PER_SECOND
    ) -> None:
        self.training, self.evaluation, self._speed = training, evaluation, speed
        self._images = _seconds_per_image(folder)
        measured = list(self._images.values())
        self._typical = float(np.median(measured)) if measured else None
        self._factors = self._corrections(folder)

    def seconds(self, runs: Sequence[Run]) -> list[float]:
        """Estimated seconds of each run on one GPU; what several share is the first one's."""
        done: set[str] = set()
        found = []
        for run in runs:
            kind = kind_of(run)
            seconds, shared = kind.seconds(run, self), kind.shared(run)
            if shared is not None and shared.id not in done:
                done.add(shared.id)
                seconds += kind.seconds(shared, self)
            found.append(seconds)
        return found

    def typical(
        self, kind: str, images: Sequence[float], roles: Sequence[Sequence[float]], epochs: int
    ) -> float:
        """About what a run takes that is not planned yet, in seconds.

        Args:
            images: `per_image` of each model. roles: of those that teach, and that are taught.
        """
        if kind == "predict":
            return float(np.mean(images)) * self.evaluation
        if kind == "transfer":
            return self._uncorrected([float(np.mean(role)) for role in roles], epochs)
        return 0.0

    def transfer(self, models: Sequence[Model], epochs: int) -> float:
        """What a transfer from the first models into the last takes, in seconds."""
        factor = self._factors.get(models[-1].key, self._factors.get("", 1.0))
        return factor * self._uncorrected([self.per_image(model) for model in models], epochs)

    def _uncorrected(self, images: Sequence[float], epochs: float) -> float:
        """images: seconds of a forward pass of the teachers and, last, the student."""
        *teachers, student = images
        step = TRAINING * student + sum(teachers) + student
        return FIXED + step * epochs * self.training + 2 * student * self.evaluation

    def per_image(self, model: Model, side: int | None = None) -> float:
        """Seconds of a model's forward pass; side: of its input, if not the usual."""
        if model.key in self._images:
            return self._images[model.key]
        known = filter(None, (model.key, local_models.architecture(model)))
        found = next(filter(None, map(imagenet_facts.fact_of_architecture, known)), None)
        if found is None and self._typical is not None:
            return self._typical
        usual = found.img_size if found else TYPICAL_SIDE
        *_, own = local_models.stated(model).get("pretrained_cfg", {}).get("input_size", [usual])
        macs = _macs(found)
        if found is None:
            count = local_models.parameters(model) or timm_registry.parameters(model.key)
            macs = count * MACS_PER_PARAMETER if count else macs
        return macs / self._speed * ((side or own) / usual) ** 2

    def _corrections(self, folder: Path) -> dict[str, float]:
        """Seconds taken against those estimated, by the student's key; "" for all together."""
        columns = ["teacher_key", "teacher_keys", "student_key", "epochs", "seconds", "status",
                   "subtract_drift", "created"]  # fmt: skip
        rows = store.read([folder], "transfer", columns).sort_values("created")
        rows = rows[(rows["status"] == store.OK) & (rows["seconds"] > 0)]
        # The first transfer of a student may have trained it towards itself as well.
        rows = rows[rows["subtract_drift"].ne(True) | rows.duplicated(["student_key", "epochs"])]
        if rows.empty:
            return {}
        names = (rows["teacher_keys"].isna(), rows["teacher_key"], rows["teacher_keys"])
        teachers = [[one] if alone else several for alone, one, several in zip(*names, strict=True)]
        transfers = zip(teachers, rows["student_key"], rows["epochs"], strict=True)
        ratios = rows["seconds"] / [
            self._uncorrected([self.per_image(Model(key)) for key in (*taught_by, student)], epochs)
            for taught_by, student, epochs in transfers
        ]
        by_student = ratios.groupby(rows["student_key"]).median()
        factors = {str(key): float(ratio) for key, ratio in by_student.items()}
        return {**factors, "": float(ratios.median())}


def _macs(found: imagenet_facts.Fact | None) -> float:
    """Multiply-adds of a forward pass, published or guessed from published parameters."""
    if found is None:
        return TYPICAL_MACS
    return found.gmacs * 1e9 if found.gmacs else found.params_m * 1e6 * MACS_PER_PARAMETER


def _seconds_per_image(folder: Path) -> dict[str, float]:
    """By the key of the model, from rows of predictions.

    Models that were measured together have one speed, which is shared out by published costs.
    """
    columns = ["model_key", "status", "samples_per_s", "measured_with"]
    rows = store.read([folder], "models", columns)
    rows = rows[(rows["status"] == store.OK) & (rows["samples_per_s"] > 0)]
    rows = rows[rows["measured_with"].notna()]
    costs = pd.Series([_macs(imagenet_facts.fact(key)) for key in rows["model_key"]],
                      rows.index, dtype=float)  # fmt: skip
    mean = costs.groupby(rows["measured_with"]).transform("mean")
    seconds = costs / mean / rows["samples_per_s"]
    return dict(zip(rows["model_key"], seconds.astype(float), strict=True))


def spent(folder: Path) -> float:
    """Seconds that the rows in `folder` took, failed ones included."""
    tables = [kind.table for kind in KINDS.values() if not kind.many_rows]
    return sum(float(store.read([folder], t, ["seconds"])["seconds"].sum()) for t in tables)


def fitting(
    runs: Sequence[Run],
    seconds: Sequence[float],
    ranks: Mapping[tuple[str, ...], int],
    budget: float,
) -> list[Run]:
    """The transfers that fit into a number of seconds, in their order.

    A pair is taken with all its methods and seeds, so that methods stay comparable, or not at all;
    teams come after all pairs.

    Args:
        seconds: about what each run takes.
        ranks: how early each pair (keys of teacher and student) is drawn.
    """
    groups: dict[tuple[str, ...], float] = {}
    for run, took in zip(runs, seconds, strict=True):
        groups[_keys(run)] = groups.get(_keys(run), 0.0) + took
    taken: set[tuple[str, ...]] = set()
    for keys in sorted(groups, key=lambda keys: ranks.get(keys, math.inf)):
        budget -= groups[keys]
        if budget < 0:
            break
        taken.add(keys)
    return [run for run in runs if _keys(run) in taken]


def _keys(run: Run) -> tuple[str, ...]:
    return tuple(model.key for model in run.models)


def bytes_needed(
    spec: SweepSpec, models: Sequence[Model], training: int, evaluation: int
) -> dict[str, float]:
    """Bytes on disk, about, by what they hold; without targets: those have a budget of their own.

    Args:
        training, evaluation: how many images there are.
    """
    names = model_names(spec, models)
    params = [published.params_m if (published := imagenet_facts.fact(m.key)) else TYPICAL_PARAMS_M
              for m in models] or [TYPICAL_PARAMS_M]  # fmt: skip
    transfers = transfer_count(spec, names)
    squares = {(zoo.side, zoo.crop, zoo.fraction) for zoo in spec.zoo}  # of all training images
    whole = training / (spec.data.fraction if spec.data else 1)
    of_zoo = sum(3.0 * side**2 * share * whole for side, _, share in squares)
    return {
        "predictions": PREDICTION_BYTES * len(names) * evaluation,
        "training images": 3.0 * spec.transfer.side**2 * training * bool(transfers) + of_zoo,
        "students": 4e6 * sum(params) / len(params) * transfers * spec.save_students,
    }
