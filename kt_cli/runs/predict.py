"""What a model says about the evaluation images, and that later runs are about the very same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kt_cli.data.images import ImageSet
from kt_cli.data.sources import Data, open_data
from kt_cli.device import Meter, pick_device
from kt_cli.errors import DataError
from kt_cli.knowledge.predict import How, predict_all
from kt_cli.knowledge.predictions import Predictions
from kt_cli.knowledge.sanity_check import suspicion
from kt_cli.knowledge.significance import wilson
from kt_cli.progress import Progress, silent
from kt_cli.rows import store
from kt_cli.runs.columns import Row, data_columns
from kt_cli.runs.kind import Kind
from kt_cli.settings import EvalSpec
from kt_cli.spec import Model, Run, RunOf
from kt_cli.zoo.identity import TRAITS, Traits, differences


def predict_runs(
    runs: Sequence[RunOf[EvalSpec]], folder: Path, progress: Progress = silent
) -> list[list[Row] | Exception]:
    """Evaluate the models of several runs on the same images, which are decoded once for all.

    Rows of each run, or what went wrong with it. All that were evaluated have an equal part of the
    seconds, and the samples/s of all together.
    """
    spec, data = runs[0].settings, runs[0].data
    device = pick_device()
    meter = Meter(device)
    images = open_data(data).eval
    how = How(spec, device)
    found = predict_all([run.models[0] for run in runs], images, how, progress)
    known = [isinstance(said, Predictions) and not said.fresh for said in found]
    evaluated = len(runs) - sum(known)
    pairs = zip(runs, found, strict=True)
    fresh = [run.id for run, said in pairs if isinstance(said, Predictions) and said.fresh]
    measured = meter.columns(len(images) * evaluated)
    measured["seconds"] /= max(1, evaluated)
    measured["measured_with"] = fresh[0] if fresh else None
    idle = {**measured, "seconds": 0.0, "samples_per_s": None, "measured_with": None}
    return [
        [{**_model_row(run, said), **(idle if cached else measured)}]
        if isinstance(said, Predictions) else said
        for run, said, cached in zip(runs, found, known, strict=True)
    ]  # fmt: skip


def _model_row(run: RunOf[EvalSpec], said: Predictions) -> Row:
    (model,), spec = run.models, run.settings
    low, high = wilson(int(said.right.sum()), len(said.images))
    return {
        "model": model.name,
        "model_key": model.key,
        **data_columns(run.data, spec),
        "accuracy": said.accuracy,
        "accuracy_low": 100 * float(low),
        "accuracy_high": 100 * float(high),
        "top5": said.top5_accuracy,
        "params_m": float(said.about["params_m"]),
        "input_size": int(said.about["input_size"]),
        **said.traits,
        "class_matching": said.about["class_matching"],
        "batch_size": int(said.about["batch_size"]),
        "warning": None if model.untrained else suspicion(said),
    }


def traits_measured(folder: Path, images: ImageSet, how: EvalSpec) -> dict[str, Traits]:
    """Of each model, by key, what the results in `folder` say it was when it saw `images`."""
    columns = ["model_key", "eval_data", "eval_size", "eval_amp", *TRAITS, "status"]
    rows = store.read([folder], "models", columns)
    same = (
        (rows["status"] == store.OK) & (rows["eval_data"] == images.fingerprint)
        & (rows["eval_size"] == how.size) & (rows["eval_amp"] == how.amp)
    )  # fmt: skip
    return {
        row["model_key"]: {k: row[k] for k in TRAITS if isinstance(row[k], str)}
        for row in rows[same].to_dict("records")
    }


def require_as_measured(found: Mapping[Model, Traits], measured: Mapping[str, Traits]) -> None:
    """Refuse models that are not what was measured (DataError); what never was may be anything."""
    changed = {m: differences(measured.get(m.key, {}), traits) for m, traits in found.items()}
    said = [f"{model.name}: {'; '.join(what)}" for model, what in changed.items() if what]
    if said:
        raise DataError(
            f"models changed since this sweep measured them: {', '.join(said)}",
            "Rows of both must not meet: bring back what it was, or start a sweep of another "
            "--name.",
        )


def evaluation_images(run: Run) -> tuple[Data, list[ImageSet]]:
    """What a run reads that only measures."""
    data = open_data(run.data)
    return data, [data.eval]


PREDICT = Kind(
    "predict", "models", EvalSpec, evaluation_images, predict_runs,
    about=lambda run: {"model": run.models[0].name, "model_key": run.models[0].key},
    seconds=lambda run, prices: prices.per_image(run.models[0]) * prices.evaluation,
    together=True,
)  # fmt: skip
