"""`kt pretrain ARCH…`: train or fine-tune models on the user's own images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from kt_cli.cli import options, screen
from kt_cli.errors import UsageError
from kt_cli.spec import PretrainSpec, Run

DEFAULT = PretrainSpec("", "")
GUARD = 0.1


def pretrain(
    arch: Annotated[
        list[str],
        typer.Argument(
            metavar="ARCH…", help="timm architectures, or with --pretrained any models."
        ),
    ],
    data: options.DataOption = None,
    data_dir: options.DataDir = None,
    train_split: options.TrainSplit = "train",
    val_split: options.ValSplit = "validation",
    class_map: options.ClassMap = None,
    labels: options.Labels = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder that receives one folder per model.")
    ] = Path("zoo"),
    name: Annotated[
        str | None, typer.Option(help="Name of the model; only for one ARCH; by default ARCH.")
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from trained weights: fine-tune.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1)] = DEFAULT.epochs,
    lr: Annotated[float, typer.Option(help="Peak learning rate of AdamW.")] = DEFAULT.lr,
    batch_size: Annotated[int, typer.Option("-b", "--batch-size", min=1)] = DEFAULT.batch_size,
    weight_decay: Annotated[float, typer.Option()] = DEFAULT.weight_decay,
    label_smoothing: Annotated[float, typer.Option()] = DEFAULT.label_smoothing,
    augment: options.Augment = DEFAULT.augment,
    crop: Annotated[
        float, typer.Option(help="Centre crop, share of the shorter side; also crop_pct.")
    ] = DEFAULT.crop,
    side: options.Side = DEFAULT.side,
    img_size: Annotated[
        int | None, typer.Option(min=1, help="Input size; by default the architecture's.")
    ] = None,
    fraction: options.Fraction = None,
    guard: Annotated[
        float, typer.Option(help="Share of the training images set aside: no model trains on them.")
    ] = GUARD,
    seed: options.Seed = DEFAULT.seed,
    overwrite: options.Overwrite = False,
) -> None:
    """Train or fine-tune timm models on your images; each becomes a model that timm loads.

    A slice of the training images (--guard) is set aside and recorded with the model.
    """
    images = options.data_spec(
        data, data_dir, train_split=train_split, val_split=val_split, guard=guard,
        class_map=class_map, labels=labels,
    )  # fmt: skip
    if name and len(arch) > 1:
        raise UsageError(f"--name names one model, not {len(arch)}", "Leave it out.")
    specs = [
        PretrainSpec(
            name=name or _file_name(one), arch=one, pretrained=pretrained, epochs=epochs, lr=lr,
            batch_size=batch_size, weight_decay=weight_decay, label_smoothing=label_smoothing,
            augment=augment, crop=crop, side=side, img_size=img_size,
            fraction=1.0 if fraction is None else fraction, seed=seed,
        )
        for one in arch
    ]  # fmt: skip
    _check(specs)
    for spec in specs:
        options.require_free(output / spec.name, overwrite)
    from kt_cli.data.sources import training_id
    from kt_cli.sweep.experiment import pretrain_run
    from kt_cli.sweep.plan import starting_point

    for spec in specs:
        data_id = training_id(images.part(spec.fraction))
        run = Run("pretrain", starting_point(spec), data_id, spec, images, out=spec.name)
        with screen.progress() as progress:
            (row,) = pretrain_run(run, output, progress)
        target = output / spec.name
        screen.out.print(
            f"{spec.name}: {spec.epochs} epochs on {row['n_train']:,} images, last training loss "
            f"{row['final_loss']:.4f} → local-dir:{target}"
        )


def _check(specs: list[PretrainSpec]) -> None:
    from kt_cli.data.views import find_augment
    from kt_cli.sweep.config import check_pretrain
    from kt_cli.zoo import names

    for spec in specs:
        check_pretrain(spec)
        find_augment(spec.augment)
        names.require_architecture(spec.arch, spec.pretrained)


def _file_name(arch: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]", "_", Path(arch).name)
