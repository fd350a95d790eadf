"""Statistics of all ordered pairs of models."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kt_cli.data.sources import open_data
from kt_cli.device import Meter, pick_device
from kt_cli.knowledge.class_similarity import ClassEmbedding
from kt_cli.knowledge.embedding import class_embedding
from kt_cli.knowledge.pairs import Outputs, pair_blocks
from kt_cli.knowledge.predict import How, outputs_of
from kt_cli.progress import Progress, silent
from kt_cli.rows import store
from kt_cli.runs.columns import Row, data_columns
from kt_cli.runs.kind import Kind, one_by_one
from kt_cli.runs.predict import evaluation_images, require_as_measured, traits_measured
from kt_cli.settings import PairsSpec
from kt_cli.spec import RunOf, pair_id

SECONDS = 1e-3  # of an ordered pair, about


def pairs_run(run: RunOf[PairsSpec], folder: Path, progress: Progress = silent) -> list[Row]:
    """Write the complementarity rows of all ordered pairs of the run's models, block by block."""
    spec = run.settings
    device = pick_device()
    meter = Meter(device)
    images = open_data(run.data).eval
    measured = traits_measured(folder, images, spec.evaluation)
    outputs = outputs_of(
        run.models, images, How(spec.evaluation, device), progress,
        look=lambda model, said: require_as_measured({model: said.traits}, measured),
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
    run: RunOf[PairsSpec], folder: Path, outputs: Outputs, embedding: ClassEmbedding | None,
    same: Row, meter: Meter, progress: Progress = silent,
) -> None:  # fmt: skip
    """A part of the complementarity table for each block of teachers.

    Args:
        outputs: of the run's models. same: columns that are equal in all rows.
    """
    spec, models = run.settings, run.models
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
            "measured_with": run.id, "by_class": spec.by_class, **same, **meter.columns(),
            "status": store.OK, "attempt": run.attempt,
        })  # fmt: skip


def row_ids(run: RunOf[PairsSpec]) -> list[str]:
    """Of each ordered pair; baselines only teach."""
    return [
        pair_id(teacher, student, run.data_id, run.settings)
        for teacher in run.models
        for student in run.models
        if teacher is not student and not student.untrained
    ]


PAIRS = Kind(
    "pairs", "complementarity", PairsSpec, evaluation_images, one_by_one(pairs_run),
    about=lambda run: {},
    seconds=lambda run, prices: SECONDS * len(run.models) ** 2,
    row_ids=row_ids, many_rows=True,
)  # fmt: skip
