"""One training of a model -> its row, and what all runs that train need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from kt_cli.data.guard import unseen_after
from kt_cli.data.sources import Data, open_data
from kt_cli.data.views import canonical, canonical_path, preprocess
from kt_cli.device import Meter, loss_named, pick_device, place
from kt_cli.distillation import checkpoint
from kt_cli.distillation.cards import pretrain_card
from kt_cli.distillation.distil import Curve
from kt_cli.distillation.pretrain import pretrain, seed_everything
from kt_cli.distillation.train import NotFinite
from kt_cli.errors import DataError
from kt_cli.knowledge.predictions import evaluate
from kt_cli.progress import Progress, silent
from kt_cli.rows import schema
from kt_cli.settings import DataSpec, PretrainSpec, TransferSpec
from kt_cli.settings.declared import digest
from kt_cli.spec import Run
from kt_cli.sweeps.columns import Row
from kt_cli.sweeps.transfer import views_of
from kt_cli.zoo import identity
from kt_cli.zoo import load as zoo


@loss_named()
def pretrain_run(run: Run, folder: Path, progress: Progress = silent) -> list[Row]:
    """Train one model of a zoo and save it as `folder / run.out`, a timm `local-dir:` model.

    Goes on from its checkpoint, where an earlier try left one.

    Raises:
        UsageError: the model cannot be built or trained so.
        NotFinite: the loss is not finite.
    """
    spec = run.settings
    assert isinstance(spec, PretrainSpec)
    device = pick_device()
    meter = Meter(device)
    used = run.data.part(spec.fraction)
    data = open_data(used, training=True)
    module, config = _starting_module(spec, len(data.classes))
    start = digest([zoo.fingerprint(module), identity.preprocessing(config, config)])
    module = place(module, device, spec.amp)
    try:
        curve = pretrain(
            module,
            views_of(used, spec.crop, spec.side, spec.augment, spec.seed),
            preprocess(config, device),
            spec,
            checkpoint=checkpoint.of_run(folder, run.id, start),
            on_epoch=lambda done, total: progress(done, total, spec.name),
        )
    except NotFinite:
        # It would only happen again.
        checkpoint.remove_all(folder, run.id)
        raise
    said = evaluate(module, config, data.eval, device) if len(data.eval) else None
    row = {
        **_pretrain_columns(run, data, curve),
        "accuracy": None if said is None else said.accuracy,
        **meter.columns(spec.epochs * len(data.training()), curve.earlier),
    }
    zoo.save(
        module, folder / run.out, data_config=config, num_classes=len(data.classes),
        label_names=data.classes, card=pretrain_card(row),
        extra={
            "run_id": run.id, "spec": asdict(spec), "guard": run.data.guard,
            "unseen": unseen_after(run.data, run.models), "train_data": row["train_data"],
        },
    )  # fmt: skip
    checkpoint.remove_all(folder, run.id)
    return [row]


def _starting_module(spec: PretrainSpec, classes: int) -> tuple[nn.Module, dict[str, Any]]:
    """The model before training, and its preprocessing at training size."""
    seed_everything(spec)
    build = zoo.for_fine_tuning if spec.pretrained else zoo.build
    module, config = build(spec.arch, classes, spec.img_size)
    return module, {**config, "crop_pct": spec.crop}


def _pretrain_columns(run: Run, data: Data, curve: Curve) -> Row:
    assert isinstance(run.settings, PretrainSpec)
    images = data.training()
    return {
        **{k: v for k, v in asdict(run.settings).items() if k in schema.TABLES["pretrain"]},
        "model": run.settings.name,
        "data": run.data.source,
        "train_data": images.fingerprint,
        "n_train": len(images),
        "fraction": run.data.part(run.settings.fraction).fraction,
        "guard_share": run.data.guard,
        "num_classes": len(data.classes),
        "final_loss": curve.losses[-1],
        "curve_loss": list(curve.losses),
        "curve_acc": list(curve.accuracies),
        "waiting_share": curve.waiting,
        "eval_data": data.eval.fingerprint,
        "n": len(data.eval),
        "path": run.out,
    }


def decode_training_images(runs: Sequence[Run], progress: Progress = silent) -> None:
    """Put the canonical training images of all runs into the cache."""
    for data, crop, side in _wanted_images(runs):
        canonical(open_data(data, training=True).training(), crop, side, progress)


def are_decoded(runs: Sequence[Run]) -> bool:
    """Whether the cache has them all."""
    return all(
        canonical_path(open_data(data, training=True).training(), crop, side).exists()
        for data, crop, side in _wanted_images(runs)
    )


def _wanted_images(runs: Sequence[Run]) -> list[tuple[DataSpec, float, int]]:
    return list(dict.fromkeys(found for run in runs if (found := _training_images(run))))


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
    settings = run.settings
    if isinstance(settings, PretrainSpec):
        data = open_data(run.data.part(settings.fraction), training=True)
        sets = [data.training()]
    elif isinstance(settings, TransferSpec):
        data = open_data(run.data, training=True)
        sets = data.of_transfer(settings.guarded)
    else:
        data = open_data(run.data)
        sets = [data.eval]
    for images, planned in zip(sets, run.data_id.split("+"), strict=True):
        if images.fingerprint != planned:
            raise DataError(
                f"the images of {images.name} changed since the run was planned: "
                f"{images.difference(planned)}",
                "Start the sweep again.",
            )
    # Training images were decoded under their fingerprint; the others are read again and again.
    for images in [each for each in sets if each is not data.train] or [data.eval]:
        images.require_unchanged()
