"""How models of the user's own are trained or fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass

from kt_cli.settings import shared
from kt_cli.settings.declared import NOT_NEGATIVE, POSITIVE, Settings, setting
from kt_cli.settings.shared import of_images, of_models, of_training

OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True)
class PretrainSpec(Settings):
    """How a model of the user's own zoo is trained."""

    name: str = of_models(
        help="Name of the model, and of its folder.", column=None, usual="ARCH; for one ARCH only"
    )
    arch: str = setting(help="timm architecture or model reference it started from.", option=False)
    pretrained: bool = of_models(False, "Start from trained weights: fine-tune.")
    epochs: int = shared.epochs(20)
    lr: float = of_training(1e-3, "Peak learning rate.", within=POSITIVE)
    batch_size: int = shared.batch(64)
    micro_batch: int = shared.micro_batch(64)
    weight_decay: float = of_training(
        0.05, "Weight decay of matrices; biases and normalisation have none.", within=NOT_NEGATIVE
    )
    optimizer: str = of_training(
        "adamw", "sgd, with momentum 0.9, needs another learning rate and weight decay.",
        flags=("--optimizer", "--opt"), choices=OPTIMIZERS,
    )  # fmt: skip
    schedule: str = of_training(
        "cosine", "Learning rate after warm-up: cosine or linear to zero, step (a tenth after each "
        "third), or constant.", flags=("--schedule", "--sched"), choices=shared.SCHEDULES,
    )  # fmt: skip
    warmup: float = of_training(
        0.1, "Share of the updates in which the learning rate rises; 0 for none.", within="[0, 1)"
    )
    freeze_epochs: int = of_training(
        0, "Train the classifier alone in the first N epochs, then everything.",
        flags=("--freeze",), metavar="N", within=NOT_NEGATIVE,
    )  # fmt: skip
    label_smoothing: float = shared.smoothing()
    augment: str = shared.augment("none")
    crop: float = of_training(
        1.0, "Centre crop, share of the shorter side; also the model's crop_pct.", within="(0, 1]"
    )
    side: int = shared.side(256)
    img_size: int | None = of_training(
        None, "Input size in pixels.", within=POSITIVE, usual="the architecture's"
    )
    fraction: float = of_images(
        1.0, "Share of the training images this model sees, stratified by class: of all of them, "
        "whatever fraction [data] has for transfers.", within="(0, 1]", option=False, column=None,
    )  # fmt: skip
    amp: str = shared.amp()
    seed: int = shared.seed("Seed of everything random.")
