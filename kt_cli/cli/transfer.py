"""`kt transfer TEACHER STUDENT`: teach the student what the teacher knows better."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kt_cli.cli import options, screen
from kt_cli.errors import UsageError
from kt_cli.spec import DataSpec, Model, Run, TransferSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT = TransferSpec()
FEW_UPDATES = 1_000


def transfer(
    models: Annotated[
        list[str], typer.Argument(metavar="TEACHER STUDENT", help="The last model is the student.")
    ],
    data: options.DataOption = None,
    data_dir: options.DataDir = None,
    train_split: options.TrainSplit = "train",
    val_split: options.ValSplit = "validation",
    class_map: options.ClassMap = None,
    labels: options.Labels = None,
    valid_labels: options.ValidLabels = None,
    real_labels: options.RealLabels = None,
    method: Annotated[
        str, typer.Option("-m", "--method", help="kl, xekl, kl-dp or kl-dp-u.")
    ] = DEFAULT.method,
    epochs: Annotated[int, typer.Option(min=1)] = DEFAULT.epochs,
    lr: Annotated[float, typer.Option(help="Learning rate at batch 256.")] = DEFAULT.lr,
    batch_size: Annotated[
        int, typer.Option("-b", "--batch-size", min=1, help="Samples per update.")
    ] = DEFAULT.batch_size,
    micro_batch: Annotated[
        int, typer.Option(min=1, help="Samples per forward pass.")
    ] = DEFAULT.micro_batch,
    temperature: Annotated[float, typer.Option()] = DEFAULT.temperature,
    kd_lambda: Annotated[
        float, typer.Option(help="λ of xekl: weight of distillation.")
    ] = DEFAULT.kd_lambda,
    augment: options.Augment = DEFAULT.augment,
    crop: Annotated[float, typer.Option(help="Canonical centre crop of a view.")] = DEFAULT.crop,
    side: options.Side = DEFAULT.side,
    fraction: options.Fraction = None,
    guard: Annotated[
        float | None,
        typer.Option(
            help="Training images left out; by default what the models' own training left out."
        ),
    ] = None,
    data_seed: options.DataSeed = None,
    seed: options.Seed = DEFAULT.seed,
    limit: options.Limit = None,
    eval_size: options.EvalSizeOption = options.EvalSize.test,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the student after transfer.")
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Move what the teacher knows and the student does not into the student.

    The student after transfer is saved as a model that timm loads.
    """
    spec = TransferSpec(
        method=method, seed=seed, epochs=epochs, lr=lr, batch_size=batch_size,
        micro_batch=micro_batch, temperature=temperature, kd_lambda=kd_lambda, augment=augment,
        crop=crop, side=side, eval_size=eval_size.value,
    )  # fmt: skip
    images = options.data_spec(
        data, data_dir, train_split=train_split, val_split=val_split, limit=limit,
        fraction=fraction, seed=data_seed, guard=guard, class_map=class_map, labels=labels,
        valid_labels=valid_labels, real_labels=real_labels,
    )  # fmt: skip
    teacher, student = _two(models)
    _check(spec)
    if guard is None:
        from kt_cli.data.guard import leave_out_guards

        images = leave_out_guards(images, (teacher, student))
    if output is not None:
        options.require_free(output, overwrite, (teacher, student))
    row, target = _run(teacher, student, spec, images, output)
    if as_json:
        screen.out.print_json(json.dumps(row))
    else:
        show(row)
    screen.note(f"Saved the student to {target}")


def _two(references: list[str]) -> tuple[Model, Model]:
    if len(references) < 2:
        raise UsageError("kt transfer needs a teacher and a student, not one model alone")
    if len(references) > 2:
        raise UsageError(
            f"kt transfer takes one teacher and one student, not {len(references)} models",
            "Several teachers for one student are not supported in this version.",
        )
    from kt_cli.zoo import names

    resolved = names.resolve(references)
    names.refuse_predictions(resolved, "kt transfer")
    if len(resolved) != 2:
        raise UsageError(
            f"teacher and student must be two different models: {', '.join(references)}",
            "A selection such as timm-top300 is for kt sweep.",
        )
    return resolved[0], resolved[1]


def _check(spec: TransferSpec) -> None:
    from kt_cli.data.views import find_augment
    from kt_cli.sweep.config import check_transfer
    from kt_cli.transfer import methods

    methods.find(spec.method)
    check_transfer(spec)
    find_augment(spec.augment)


def _run(
    teacher: Model, student: Model, spec: TransferSpec, images: DataSpec, output: Path | None
) -> tuple[dict[str, Any], Path]:
    """The row of the transfer, and where the student is."""
    from kt_cli.data.sources import open_data
    from kt_cli.sweep.experiment import transfer_run
    from kt_cli.zoo import classes, load

    opened = open_data(images, training=True)
    classes.require_classes((teacher, student), opened.classes, images.source, opened.eval.select)
    options.warn_of_empty_classes(opened.eval)
    load.require_weights((teacher, student))
    _warn_if_short(spec, len(opened.training()))
    run = Run("transfer", (teacher, student), opened.transfer_id, spec, images)
    target = output or Path("students") / _folder_name(teacher, student, spec.method, run.id)
    run = replace(run, out=target.absolute().name)
    with screen.progress() as progress:
        (row,) = transfer_run(run, target.absolute().parent, progress)
    return row, target


def _warn_if_short(spec: TransferSpec, images: int) -> None:
    from kt_cli.transfer.train import Order

    order = Order(images, spec.epochs, spec.batch_size, spec.micro_batch, spec.seed)
    if order.updates < FEW_UPDATES and spec.lr <= DEFAULT.lr:
        screen.warn(
            f"{order.updates} updates at learning rate {spec.lr:g} will hardly move the student; "
            "the default is made for about 10,000. Raise --lr (say 0.01) or --epochs."
        )


def _folder_name(teacher: Model, student: Model, method: str, run_id: str) -> str:
    name = f"{student.name}-from-{teacher.name}-{method}-{run_id[:8]}"
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name)


def show(row: Mapping[str, Any]) -> None:
    """Before and after, and what came of it."""
    screen.out.print(
        f"{row['teacher']} → {row['student']} by {row['method']}, on {row['n_train']:,} images; "
        f"evaluated on {row['n']:,}\n"
    )
    table = screen.simple_table()
    for header in ("%", "before", "after"):
        table.add_column(header, justify="left" if header == "%" else "right")
    known, unknown = "pos_flips", "neg_flips"
    table.add_row("student's top-1", f"{row['student_acc']:.2f}", f"{row['after_acc']:.2f}")
    table.add_row("teacher's top-1", f"{row['teacher_acc']:.2f}", "")
    table.add_row(
        "teacher right, student wrong (ρ⁺)", f"{row[known]:.2f}", f"{row[known + '_after']:.2f}"
    )
    table.add_row(
        "student right, teacher wrong (ρ⁻)", f"{row[unknown]:.2f}", f"{row[unknown + '_after']:.2f}"
    )
    screen.out.print(table)
    rate = "nothing to learn" if row["transfer_rate"] is None else f"{row['transfer_rate']:.1f}%"
    style = "green" if row["delta"] > 0 else "red" if row["delta"] < 0 else "yellow"
    screen.out.print(
        f"\ntransfer delta Δ [bold {style}]{row['delta']:+.2f}[/] points = "
        f"gain {row['gain']:.2f} − loss {row['loss']:.2f} (McNemar p = {row['transfer_p']:.2g})\n"
        f"transfer rate {rate} of ρ⁺ · the teacher taught {row['share_taught']:.1f}% of the samples"
    )
