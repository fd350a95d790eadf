"""One training or transfer -> rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path

from kt_cli import schema
from kt_cli.complementarity.predict import How, predict
from kt_cli.complementarity.predictions import evaluate
from kt_cli.data.sources import open_data, training_id
from kt_cli.data.views import Views, canonical, preprocess
from kt_cli.device import Meter, pick_device
from kt_cli.errors import DataError
from kt_cli.progress import Progress, silent
from kt_cli.spec import (
    DataSpec,
    Model,
    PretrainSpec,
    Run,
    TransferSpec,
    digest,
)
from kt_cli.sweep.measure import Row, data_columns
from kt_cli.transfer import methods
from kt_cli.transfer.cards import pretrain_card, transfer_card
from kt_cli.transfer.outcome import transfer_outcome
from kt_cli.transfer.pretrain import pretrain, seed_everything
from kt_cli.transfer.targets import LogitsCache, Targets
from kt_cli.transfer.train import distil
from kt_cli.zoo import load as zoo

LOGITS = LogitsCache()


def pretrain_run(run: Run, folder: Path, progress: Progress = silent) -> list[Row]:
    """Train one model of a zoo and save it as `folder / run.out`, a timm `local-dir:` model."""
    spec = run.settings
    assert isinstance(spec, PretrainSpec)
    device = pick_device()
    meter = Meter(device)
    data = open_data(run.data.part(spec.fraction), training=True)
    images = data.training()
    seed_everything(spec)
    if spec.pretrained:
        module, config = zoo.for_fine_tuning(spec.arch, len(data.classes), spec.img_size)
    else:
        module, config = zoo.build(spec.arch, len(data.classes), spec.img_size)
    config = {**config, "crop_pct": spec.crop}
    views = _views(run.data.part(spec.fraction), spec.crop, spec.side, spec.augment, spec.seed)
    module = module.to(device)
    prepare = preprocess(config, device)
    losses = pretrain(
        module, views, prepare, spec, lambda done, total: progress(done, total, spec.name)
    )
    zoo.save(
        module,
        folder / run.out,
        data_config=config,
        num_classes=len(data.classes),
        label_names=data.classes,
        card=pretrain_card(spec, run.data, len(images), losses[-1]),
        extra={
            "run_id": run.id,
            "spec": asdict(spec),
            "guard": run.data.guard,
            "train_data": images.fingerprint,
        },
    )
    row = {
        **{k: v for k, v in asdict(spec).items() if k in schema.TABLES["pretrain"]},
        "model": spec.name,
        "data": run.data.source,
        "train_data": images.fingerprint,
        "n_train": len(images),
        "num_classes": len(data.classes),
        "final_loss": losses[-1],
        "path": run.out,
    }
    return [{**row, **meter.columns(spec.epochs * len(images))}]


def transfer_run(run: Run, folder: Path, progress: Progress = silent) -> list[Row]:
    """Transfer from the teacher into the student and measure what changed.

    Where `run.out` names a folder, the student is saved there.
    """
    teacher, student = run.models
    spec = run.settings
    assert isinstance(spec, TransferSpec)
    method = methods.find(spec.method)
    device = pick_device()
    meter = Meter(device)
    data = open_data(run.data, training=True)
    images = data.training()
    how = How(spec.evaluation, device)
    told, before = (predict(m, data.eval, how).right for m in (teacher, student))
    views = _views(run.data, spec.crop, spec.side, spec.augment, spec.seed)
    load = partial(zoo.load, classes=data.classes, select=data.eval.select)
    loaded = load(student)
    module = loaded.module.to(device)
    targets = Targets(method, teacher, student, views, load, LOGITS)
    prepare = preprocess(loaded.config("train"), device)
    losses, taught = distil(
        module,
        views,
        prepare,
        targets.epoch,
        method,
        spec,
        lambda done, total: progress(done, total, "transfer"),
    )
    after = evaluate(
        module, loaded.config(spec.eval_size), data.eval, device, amp=spec.eval_amp
    ).right
    row = {
        **{k: v for k, v in asdict(spec).items() if k in schema.TABLES["transfer"]},
        **pair_columns(teacher, student),
        **data_columns(run.data, spec.evaluation),
        "settings": spec.settings,
        "train_data": images.fingerprint,
        "n_train": len(images),
        "fraction": run.data.fraction,
        "subset_seed": run.data.seed,
        "guard": run.data.guard,
        **transfer_outcome(told, before, after),
        "share_taught": taught,
        "final_loss": losses[-1],
        "path": run.out or None,
        **meter.columns(spec.epochs * len(images)),
    }
    if run.out:
        zoo.save(zoo.whole(module), folder / run.out, data_config=loaded.config("train"),
                 num_classes=loaded.outputs.count, label_names=loaded.outputs.names,
                 card=transfer_card(row),
                 extra={"run_id": run.id, "spec": asdict(spec), "guard": run.data.guard,
                        "train_data": images.fingerprint})  # fmt: skip
    return [row]


def pair_columns(teacher: Model, student: Model) -> Row:
    return {
        "teacher": teacher.name,
        "student": student.name,
        "teacher_key": teacher.key,
        "student_key": student.key,
    }


def decode_training_images(runs: Sequence[Run], progress: Progress = silent) -> None:
    """Put the canonical training images of all runs into the cache."""
    wanted = dict.fromkeys(found for run in runs if (found := _training_images(run)))
    for data, crop, side in wanted:
        canonical(open_data(data, training=True).training(), crop, side, progress)


def _training_images(run: Run) -> tuple[DataSpec, float, int] | None:
    if isinstance(run.settings, PretrainSpec):
        return run.data.part(run.settings.fraction), run.settings.crop, run.settings.side
    if isinstance(run.settings, TransferSpec):
        return run.data, run.settings.crop, run.settings.side
    return None


def check_data(run: Run) -> None:
    """Refuse to run on other images than the ones that the run was planned for.

    Raises:
        DataError: the images changed since.
    """
    if run.kind == "pretrain":
        assert isinstance(run.settings, PretrainSpec)
        found = training_id(run.data.part(run.settings.fraction))
    elif run.kind == "transfer":
        found = open_data(run.data, training=True).transfer_id
    else:
        found = open_data(run.data).eval.fingerprint
    if found != run.data_id:
        raise DataError(f"the images of {run.data.source} changed", "Start the sweep again.")


@lru_cache(maxsize=2)
def _views(data: DataSpec, crop: float, side: int, augment: str, seed: int) -> Views:
    images = open_data(data, training=True).training()
    key = digest([images.fingerprint, crop, side])
    pixels = canonical(images, crop, side)
    return Views(pixels, images.labels, augment, seed, pick_device(), key)
