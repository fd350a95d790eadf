"""One training of a model -> its row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from kt_cli.data.guard_images import unseen_after
from kt_cli.data.images import ImageSet
from kt_cli.data.sources import Data, open_data
from kt_cli.data.training import views_of
from kt_cli.data.views import preprocess
from kt_cli.device import Meter, loss_named, pick_device, place
from kt_cli.distillation import checkpoint
from kt_cli.distillation.cards import pretrain_card
from kt_cli.distillation.distil import Curve
from kt_cli.distillation.pretrain import pretrain, seed_everything
from kt_cli.distillation.train import NotFinite
from kt_cli.knowledge.predictions import evaluate
from kt_cli.progress import Progress, silent
from kt_cli.rows import schema
from kt_cli.runs.columns import Row
from kt_cli.runs.kind import Kind, Prices, Rows
from kt_cli.settings import PretrainSpec
from kt_cli.settings.declared import digest
from kt_cli.spec import Model, RunOf
from kt_cli.zoo import identity
from kt_cli.zoo import load as zoo

STEP = 3.0  # forward and backward, against forward alone


@loss_named()
def pretrain_run(run: RunOf[PretrainSpec], folder: Path, progress: Progress = silent) -> list[Row]:
    """Train one model of a zoo and save it as `folder / run.out`, a timm `local-dir:` model.

    Goes on from its checkpoint, where an earlier try left one.

    Raises:
        UsageError: the model cannot be built or trained so.
        NotFinite: the loss is not finite.
    """
    spec = run.settings
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


def _pretrain_columns(run: RunOf[PretrainSpec], data: Data, curve: Curve) -> Row:
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


def _images(run: RunOf[PretrainSpec]) -> tuple[Data, list[ImageSet]]:
    data = open_data(run.data.part(run.settings.fraction), training=True)
    return data, [data.training()]


def _execute(
    runs: Sequence[RunOf[PretrainSpec]], folder: Path, progress: Progress
) -> list[Rows | Exception]:
    return [pretrain_run(run, folder, progress) for run in runs]


def _seconds(run: RunOf[PretrainSpec], prices: Prices) -> float:
    spec = run.settings
    model = run.models[0] if run.models else Model(spec.arch)
    return STEP * prices.per_image(model) * prices.training * spec.fraction * spec.epochs


PRETRAIN = Kind(
    "pretrain", "pretrain", PretrainSpec, _images, _execute,
    about=lambda run: {"model": run.settings.name},
    seconds=_seconds,
    trains_on=lambda run: (
        run.data.part(run.settings.fraction), run.settings.crop, run.settings.side
    ),
)  # fmt: skip
