"""`kt pretrain ARCH…`: train or fine-tune models on the user's own images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kt_cli.cli import beforehand, options, screen
from kt_cli.errors import UsageError
from kt_cli.spec import PretrainSpec, Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kt_cli.spec import DataSpec

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
    epochs: Annotated[
        int, typer.Option(min=1, help="Times that all training images are seen.")
    ] = DEFAULT.epochs,
    freeze: Annotated[
        int,
        typer.Option(
            "--freeze",
            min=0,
            metavar="N",
            help="Train the classifier alone in the first N epochs, then everything.",
        ),
    ] = DEFAULT.freeze_epochs,
    optimizer: Annotated[
        str,
        typer.Option(
            "--optimizer",
            "--opt",
            help="adamw, or sgd with momentum 0.9, which needs other --lr and --weight-decay.",
        ),
    ] = DEFAULT.optimizer,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = DEFAULT.lr,
    schedule: Annotated[
        str,
        typer.Option(
            "--schedule",
            "--sched",
            help="Learning rate after warm-up: cosine or linear to zero, step (a tenth after each "
            "third), or constant.",
        ),
    ] = DEFAULT.schedule,
    warmup: Annotated[
        float,
        typer.Option(help="Share of the updates in which the learning rate rises; 0 for none."),
    ] = DEFAULT.warmup,
    batch_size: Annotated[
        int, typer.Option("-b", "--batch-size", min=1, help="Samples per update.")
    ] = DEFAULT.batch_size,
    micro_batch: Annotated[
        int,
        typer.Option(
            min=1, help="Samples per forward pass; several of them add up to a larger batch."
        ),
    ] = DEFAULT.micro_batch,
    amp: options.Amp = False,
    amp_dtype: options.AmpType = None,
    weight_decay: Annotated[
        float, typer.Option(help="Weight decay of matrices; biases and normalisation have none.")
    ] = DEFAULT.weight_decay,
    label_smoothing: Annotated[
        float, typer.Option(help="Label smoothing of the cross-entropy.")
    ] = DEFAULT.label_smoothing,
    augment: options.Augment = DEFAULT.augment,
    crop: Annotated[
        float, typer.Option(help="Centre crop, share of the shorter side; also crop_pct.")
    ] = DEFAULT.crop,
    side: options.Side = DEFAULT.side,
    img_size: Annotated[
        int | None,
        typer.Option(min=1, help="Input size in pixels; by default the architecture's."),
    ] = None,
    fraction: options.Fraction = None,
    guard_share: Annotated[
        float, typer.Option(help="Share of the training images set aside: no model trains on them.")
    ] = GUARD,
    seed: options.Seed = DEFAULT.seed,
    overwrite: options.Overwrite = False,
) -> None:
    """Train or fine-tune timm models on your images; each becomes a model that timm loads.

    A slice of the training images (--guard-share) is set aside and recorded with the model.

    What was interrupted goes on with the same command; models that it finished stay.
    """
    images = options.data_spec(
        data, data_dir, train_split=train_split, val_split=val_split, guard=guard_share,
        class_map=class_map, labels=labels,
    )  # fmt: skip
    if name and len(arch) > 1:
        raise UsageError(f"--name names one model, not {len(arch)}", "Leave it out.")
    specs = [
        PretrainSpec(
            name=name or _file_name(one), arch=one, pretrained=pretrained, epochs=epochs, lr=lr,
            batch_size=batch_size, micro_batch=micro_batch, weight_decay=weight_decay,
            optimizer=optimizer, schedule=schedule, warmup=warmup, freeze_epochs=freeze,
            label_smoothing=label_smoothing, augment=augment, crop=crop, side=side,
            img_size=img_size, fraction=1.0 if fraction is None else fraction,
            amp=options.precision(amp, amp_dtype), seed=seed,
        )
        for one in arch
    ]  # fmt: skip
    _check(specs)
    if freeze >= epochs:
        screen.warn(f"--freeze {freeze} of {_epochs(epochs)}: only the classifier is trained.")
    _train(_runs(specs, images), output, overwrite)


def _check(specs: Sequence[PretrainSpec]) -> None:
    from kt_cli.data.views import find_augment
    from kt_cli.sweep.checks import check_pretrain
    from kt_cli.zoo import names

    for spec in specs:
        check_pretrain(spec)
        find_augment(spec.augment)
        names.require_architecture(spec.arch, spec.pretrained)
    called = [spec.name for spec in specs]
    twice = next((spec for spec in specs if called.count(spec.name) > 1), None)
    if twice:
        raise UsageError(
            f"two models would be called {twice.name!r}", "Train one of them alone, with --name."
        )


def _runs(specs: Sequence[PretrainSpec], images: DataSpec) -> list[Run]:
    from kt_cli.data.sources import training_id
    from kt_cli.sweep.plan import starting_point

    with screen.progress() as progress:
        return [
            Run("pretrain", starting_point(spec),
                training_id(images.part(spec.fraction), progress), spec, images, out=spec.name)
            for spec in specs
        ]  # fmt: skip


def _train(runs: Sequence[Run], output: Path, overwrite: bool) -> None:
    """Run after run, without those that this very command finished before it was interrupted."""
    from kt_cli.sweep.experiment import pretrain_run
    from kt_cli.sweep.plan import trained_by

    done = [run for run in runs if not overwrite and trained_by(output / run.out) == run.id]
    for run in runs:
        if run in done:
            screen.note(f"{run.out} is trained already: local-dir:{output / run.out}")
        else:
            options.require_free(output / run.out, overwrite)
            beforehand.require_writable((output / run.out).absolute())
    for run in runs:
        if run not in done:
            with screen.progress() as progress:
                (row,) = pretrain_run(run, output, progress)
            _show(row, output / run.out)


def _show(row: Mapping[str, Any], target: Path) -> None:
    told = f"last training loss {row['final_loss']:.4f}"
    if row["accuracy"] is not None:
        told += f", top-1 {row['accuracy']:.2f}% on {row['n']:,} evaluation images"
    screen.out.print(
        f"{row['model']}: {_epochs(row['epochs'])} on {row['n_train']:,} images, {told} → "
        f"local-dir:{target}"
    )


def _epochs(count: int) -> str:
    return f"{count} epoch" if count == 1 else f"{count} epochs"


def _file_name(arch: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]", "_", Path(arch).name)
