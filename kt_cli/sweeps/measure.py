"""Runs that only measure: predictions of models, and statistics of all their pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kt_cli.data.sources import open_data
from kt_cli.device import Meter, pick_device
from kt_cli.knowledge.classes import ClassEmbedding
from kt_cli.knowledge.embedding import class_embedding
from kt_cli.knowledge.pairs import Outputs, pair_blocks
from kt_cli.knowledge.predict import How, outputs_of, predict_all
from kt_cli.knowledge.predictions import Predictions
from kt_cli.knowledge.significance import wilson
from kt_cli.knowledge.suspicion import suspicion
from kt_cli.progress import Progress, silent
from kt_cli.rows import store
from kt_cli.settings import EvalSpec, PairsSpec
from kt_cli.spec import Run, pair_id
from kt_cli.sweeps.columns import Row, data_columns
from kt_cli.sweeps.measured import Measured


def predict_runs(
    runs: Sequence[Run], folder: Path, progress: Progress = silent
) -> list[list[Row] | Exception]:
    """Evaluate the models of several runs on the same images, which are decoded once for all.

    Rows of each run, or what went wrong with it. All that were evaluated have an equal part of the
    seconds, and the samples/s of all together.
    """
    spec, data = runs[0].settings, runs[0].data
    assert isinstance(spec, EvalSpec)
    device = pick_device()
    meter = Meter(device)
    images = open_data(data).eval
    how = How(spec, device)
    found = predict_all([run.models[0] for run in runs], images, how, progress)
    known = [isinstance(said, Predictions) and not said.fresh for said in found]
    evaluated = len(runs) - sum(known)
    measured = meter.columns(len(images) * evaluated)
    measured["seconds"] /= max(1, evaluated)
    idle = {**measured, "seconds": 0.0, "samples_per_s": None}
    return [
        said
        if isinstance(said, Exception)
        else [{**_model_row(run, said), **(idle if cached else measured)}]
        for run, said, cached in zip(runs, found, known, strict=True)
    ]


def _model_row(run: Run, said: Predictions) -> Row:
    (model,), spec = run.models, run.settings
    assert isinstance(spec, EvalSpec)
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


def pairs_run(run: Run, folder: Path, progress: Progress = silent) -> list[Row]:
    """Write the complementarity rows of all ordered pairs of the run's models, block by block."""
    spec = run.settings
    assert isinstance(spec, PairsSpec)
    device = pick_device()
    meter = Meter(device)
    images = open_data(run.data).eval
    measured = Measured(folder, images, spec.evaluation)
    outputs = outputs_of(
        run.models, images, How(spec.evaluation, device), progress,
        look=lambda model, said: measured.require({model: said.traits}),
    )  # fmt: skip
    best_first = np.argsort(-outputs.right.mean(axis=1), kind="stable")
    ranked = [run.models[i] for i in best_first]
    embedding = class_embedding(spec.embedding, ranked, images)
    same = {
        **data_columns(run.data, spec.evaluation),
        "class_embedding": embedding.name if embedding else f"{spec.embedding}:",
        "class_similarity": embedding.mean if embedding else None,
    }
    write_pairs(run, folder, outputs, embedding, same, meter, progress)
    return []


def write_pairs(
    run: Run,
    folder: Path,
    outputs: Outputs,
    embedding: ClassEmbedding | None,
    same: Row,
    meter: Meter,
    progress: Progress = silent,
) -> None:
    """A part of the complementarity table for each block of teachers.

    Args:
        outputs: of the run's models. same: columns that are equal in all rows.
    """
    spec, models = run.settings, run.models
    assert isinstance(spec, PairsSpec)
    names, keys = (np.array([getattr(m, field) for m in models]) for field in ("name", "key"))
    trained = np.array([not m.untrained for m in models])
    blocks = pair_blocks(outputs, embedding, by_class=spec.by_class, progress=progress)
    for rows, block in blocks:
        teacher, student = np.mgrid[rows, : len(models)]
        wanted = (teacher != student) & trained[student]
        t, s = teacher[wanted], student[wanted]
        ids = [pair_id(models[i], models[j], run.data_id, spec) for i, j in zip(t, s, strict=True)]
        store.write_columns(folder, "complementarity", {
            "run_id": ids, "teacher": names[t], "student": names[s],
            "teacher_key": keys[t], "student_key": keys[s],
            **{name: values[wanted] for name, values in block.items()},
            "by_class": spec.by_class, **same, **meter.columns(),
            "status": store.OK, "attempt": run.attempt,
        })  # fmt: skip
