"""One training of a model -> its row."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from kt_cli.data.guard_images import unseen_after
from kt_cli.data.images import ImageSet
from kt_cli.data.sources import Data, open_data
from kt_cli.data.views import preprocess, seed_of, views_of
from kt_cli.device import Meter, loss_named, pick_device, place
from kt_cli.distillation import checkpoint
from kt_cli.distillation.cards import pretrain_card
from kt_cli.distillation.pretrain import pretrain
from kt_cli.distillation.train import Curve, Diverged
from kt_cli.knowledge.evaluate import OutputsNotFinite, evaluate
from kt_cli.progress import Progress, silent
from kt_cli.runs.columns import Row, setting_columns
from kt_cli.runs.kind import Kind, Prices, one_by_one
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
        Diverged: the loss is not finite, or half precision holds no gradient.
    """
    spec = run.settings
    device = pick_device()
    meter = Meter(device)
    used = run.data.part(spec.fraction)
    data = open_data(used, training=True)
    torch.manual_seed(seed_of("pretrain", spec.seed))  # of the initial weights
    build = zoo.for_fine_tuning if spec.pretrained else zoo.build
    module, config = build(spec.arch, len(data.classes), spec.img_size)
    config = {**config, "crop_pct": spec.crop}
    start = digest([zoo.fingerprint(module), identity.preprocessing(config, config)])
    module = place(module, device, spec.amp)
    views = views_of(used, spec.crop, spec.side, spec.augment, spec.seed)
    progress(0, spec.epochs, f"{spec.name}: epoch")
    try:
        curve = pretrain(
            module, views, preprocess(config, device), spec,
            checkpoint=checkpoint.of_run(folder, run.id, start),
            on_epoch=lambda done, total, right: progress(
                done, total, f"{spec.name}: {right:.1f}% right, epoch"
            ),
        )  # fmt: skip
        said = evaluate(module, config, data.eval, device) if len(data.eval) else None
    except (Diverged, OutputsNotFinite):
        # It would only happen again.
        checkpoint.remove_all(folder, run.id)
        raise
    row = {
        **_pretrain_columns(run, data, curve),
        "accuracy": None if said is None else said.accuracy,
        **meter.columns(spec.epochs * len(data.training()), curve.earlier),
    }
    zoo.save(
        module, folder / run.out, data_config=config, num_classes=len(data.classes),
        label_names=data.classes, card=pretrain_card(row), test_size=False,
        extra={
            "run_id": run.id, "spec": asdict(spec), "guard": run.data.guard,
            "unseen": unseen_after(run.data, run.models), "train_data": row["train_data"],
        },
    )  # fmt: skip
    checkpoint.remove_all(folder, run.id)
    return [row]


def _pretrain_columns(run: RunOf[PretrainSpec], data: Data, curve: Curve) -> Row:
    images = data.training()
    return {
        **setting_columns(run.settings, "pretrain"),
        "model": run.settings.name,
        "data": run.data.source,
        "train_data": images.fingerprint,
        "n_train": len(images),
        "skipped_train": images.skipped,
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


def _seconds(run: RunOf[PretrainSpec], prices: Prices) -> float:
    spec = run.settings
    model = run.models[0] if run.models else Model(spec.arch)
    _, (images,) = _images(run)
    return STEP * prices.per_image(model, spec.img_size) * len(images) * spec.epochs


PRETRAIN = Kind(
    "pretrain", "pretrain", PretrainSpec, _images, one_by_one(pretrain_run),
    about=lambda run: {"model": run.settings.name},
    seconds=_seconds,
    trains_on=lambda run: (
        run.data.part(run.settings.fraction), run.settings.crop, run.settings.side
    ),
)  # fmt: skip
