"""`kt transfer TEACHER STUDENT`: teach the student what the teacher knows better."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from kt_cli.cli import beforehand, options, outcome, screen
from kt_cli.errors import UsageError
from kt_cli.spec import GUARDED, DataSpec, Model, Run, TransferSpec

DEFAULT = TransferSpec()
METHOD, NO_HARM, STUDENT = "Method", "To do no harm", "Student"
TRAINING = options.TRAINING


def transfer(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="TEACHER... STUDENT", help="One teacher or several; the last is the student."
        ),
    ],
    data: options.DataOption = None,
    data_dir: options.DataDir = None,
    train_split: options.TrainSplit = "train",
    val_split: options.ValSplit = "validation",
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=options.IMAGES,
            metavar="FOLDER",
            help="Images without labels to transfer on, in place of train/.",
        ),
    ] = None,
    class_map: options.ClassMap = None,
    labels: options.Labels = None,
    valid_labels: options.ValidLabels = None,
    by_position: options.ByPosition = None,
    real_labels: options.RealLabels = None,
    method: Annotated[
        str,
        typer.Option(
            "-m",
            "--method",
            rich_help_panel=METHOD,
            help="kl, xekl, kl-mcl, xekl-mcl, kl-dp, kl-dp-u; self, flip-st, flip-t, flip-avg; "
            "crd, cd.",
        ),
    ] = DEFAULT.method,
    teachers: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=METHOD,
            help="Several teachers teach sequential, parallel, or for a soup.",
        ),
    ] = None,
    order: Annotated[
        str,
        typer.Option(
            rich_help_panel=METHOD,
            help="Of sequential teachers, by accuracy: asc or desc; or as given.",
        ),
    ] = DEFAULT.order,
    epochs: Annotated[int, typer.Option(rich_help_panel=TRAINING, min=1)] = DEFAULT.epochs,
    lr: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=TRAINING,
            help="Learning rate at batch 256; by default 1e-4, of MCL 0.01.",
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            "-b", "--batch-size", rich_help_panel=TRAINING, min=1, help="Samples per update."
        ),
    ] = DEFAULT.batch_size,
    micro_batch: Annotated[
        int, typer.Option(rich_help_panel=TRAINING, min=1, help="Samples per forward pass.")
    ] = DEFAULT.micro_batch,
    temperature: Annotated[
        float, typer.Option(rich_help_panel=METHOD, help="T of distillation.")
    ] = DEFAULT.temperature,
    kd_lambda: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=METHOD,
            help="λ of xekl: weight of distillation; by default 0.5, of MCL 0.68.",
        ),
    ] = None,
    kd_topk: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=METHOD, min=0, help="Distil the K most probable classes; 0 for all."
        ),
    ] = None,
    distil_on: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=METHOD,
            help="kl, xekl: distil on all samples, positive flips, or not-negative ones.",
        ),
    ] = None,
    label_smoothing: Annotated[
        float, typer.Option(rich_help_panel=METHOD, help="Of the cross-entropy.")
    ] = DEFAULT.label_smoothing,
    mcl_tau: Annotated[
        float, typer.Option(rich_help_panel=METHOD, help="τ of MCL's slow weights.")
    ] = DEFAULT.mcl_tau,
    mcl_every: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=METHOD,
            min=1,
            help="Updates between two steps of MCL's slow weights; 512 / batch size.",
        ),
    ] = None,
    bn: Annotated[
        str,
        typer.Option(
            rich_help_panel=NO_HARM,
            help="Statistics of batch normalisation: train (as the paper), eval, or recompute.",
        ),
    ] = DEFAULT.bn,
    guard: Annotated[
        bool,
        typer.Option(
            "--guard",
            rich_help_panel=NO_HARM,
            help="Go only as far as images that the student never trained on bear out.",
        ),
    ] = False,
    guard_data: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=NO_HARM,
            metavar="FOLDER",
            help="Class folders for the guard to judge on.",
        ),
    ] = None,
    guard_share: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=NO_HARM,
            help="Training images left out; by default what the models' own training left out.",
        ),
    ] = None,
    force_guard: Annotated[
        bool,
        typer.Option(
            "--force-guard",
            rich_help_panel=NO_HARM,
            help="Guard on images that the student may have seen.",
        ),
    ] = False,
    augment: options.Augment = DEFAULT.augment,
    crop: Annotated[
        float, typer.Option(rich_help_panel=TRAINING, help="Canonical centre crop of a view.")
    ] = DEFAULT.crop,
    side: options.Side = DEFAULT.side,
    fraction: options.Fraction = None,
    data_seed: options.DataSeed = None,
    seed: options.Seed = DEFAULT.seed,
    limit: options.Limit = None,
    eval_size: options.EvalSizeOption = options.EvalSize.test,
    amp: options.Amp = False,
    amp_dtype: options.AmpType = None,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile", rich_help_panel=TRAINING, help="Compile the student with torch.compile."
        ),
    ] = False,
    retry_oom: Annotated[
        bool,
        typer.Option(
            "--retry-oom",
            rich_help_panel=TRAINING,
            help="Halve the micro-batch where memory runs out.",
        ),
    ] = False,
    reference_compat: Annotated[
        bool,
        typer.Option(
            "--reference-compat",
            rich_help_panel=METHOD,
            help="As the authors' code: see docs/methods.md.",
        ),
    ] = False,
    by_class: Annotated[
        bool,
        typer.Option(
            "--by-class", rich_help_panel=STUDENT, help="Also gain and loss of each class (--json)."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", rich_help_panel=STUDENT, help="Folder for the student after transfer."
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=STUDENT, metavar="ORG/NAME", help="Also upload the student to the hub."
        ),
    ] = None,
    private: Annotated[
        bool,
        typer.Option("--private", rich_help_panel=STUDENT, help="Make a new repository private."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Move what the teacher knows and the student does not into the student.

    The student after transfer is saved as a model that timm loads. A killed transfer goes on
    where it stopped when the same command runs again.
    """
    guard = guard or method.endswith(GUARDED)
    beforehand.require_sense(guard, guard_data, force_guard, push_to_hub, private)
    spec = TransferSpec(
        method=method.removesuffix(GUARDED) + GUARDED * guard, seed=seed, epochs=epochs, lr=lr,
        batch_size=batch_size, micro_batch=micro_batch, temperature=temperature,
        kd_lambda=kd_lambda, kd_topk=kd_topk,
        distil_on=distil_on, label_smoothing=label_smoothing, mcl_tau=mcl_tau,
        mcl_every=mcl_every, bn=bn, teachers=teachers or DEFAULT.teachers, order=order,
        augment=augment, crop=crop, side=side, eval_size=eval_size.value,
        amp=options.precision(amp, amp_dtype), compile=compile_,
        retry_oom=retry_oom, reference_compat=reference_compat, by_class=by_class,
        force_guard=force_guard,
    )  # fmt: skip
    images = options.data_spec(
        data, data_dir, train_split=train_split, val_split=val_split, limit=limit,
        fraction=fraction, seed=data_seed, guard=guard_share, class_map=class_map, labels=labels,
        valid_labels=valid_labels, by_position=by_position, real_labels=real_labels,
        unlabelled=unlabelled, guard_data=guard_data,
    )  # fmt: skip
    resolved = _resolve(models)
    _check(spec)
    if guard_share is None:
        from kt_cli.data.guard import leave_out_guards

        images = leave_out_guards(images, resolved)
    if output is not None:
        options.require_free(output, overwrite, resolved)
    if push_to_hub is not None:
        from kt_cli.zoo import hub

        hub.require_pushable(push_to_hub)
    row, target = _run(resolved, spec, images, output)
    if as_json:
        screen.out.print_json(json.dumps(row))
    else:
        outcome.show(row)
    screen.note(f"Saved the student to {target}")
    if push_to_hub is not None:
        message = f"{row['student']} taught by {row['teacher']} ({row['method']})"
        screen.note(f"Uploaded to {hub.push(target, push_to_hub, private, message)}")


def _resolve(references: list[str]) -> list[Model]:
    """The teachers and, last, the student."""
    if len(references) < 2:
        raise UsageError("kt transfer needs a teacher and a student, not one model alone")
    from kt_cli.zoo import names

    resolved = names.resolve(references)
    names.refuse_predictions(resolved, "kt transfer")
    if len(resolved) < len(references):
        raise UsageError(f"teachers and student must be different models: {', '.join(references)}")
    several = next((one for one in references if len(names.resolve([one])) > 1), None)
    if several is not None:
        raise UsageError(
            f"{several} names several models, kt transfer takes them one by one",
            "Write each of them, the student last; selections are for kt sweep.",
        )
    return resolved


def _check(spec: TransferSpec) -> None:
    from kt_cli.data.views import find_augment
    from kt_cli.sweep.checks import check_transfer
    from kt_cli.transfer import methods

    methods.find(spec.method)
    check_transfer(spec)
    find_augment(spec.augment)


def _run(
    models: list[Model], spec: TransferSpec, images: DataSpec, output: Path | None
) -> tuple[dict[str, Any], Path]:
    """The row of the transfer, and where the student is."""
    from kt_cli.data.guard import require_guard
    from kt_cli.data.sources import open_data
    from kt_cli.sweep.transfer import transfer_run
    from kt_cli.transfer import methods
    from kt_cli.zoo import load

    opened = open_data(images, training=True)
    methods.require_possible(spec, len(models) - 1, opened.training().labelled)
    if spec.guarded:
        require_guard(images, opened.guard, models[-1], spec.force_guard)
    options.require_classes(models, opened.eval, images.source)
    options.warn_of_empty_classes(opened.eval)
    load.require_weights(models)
    beforehand.warn_if_short(spec.settled, len(opened.training()))
    with screen.progress() as progress:
        data_id = opened.transfer_id(spec.guarded, progress)
    run = Run("transfer", tuple(models), data_id, spec, images)
    target = output or Path("students") / _folder_name(models, spec.method, run.id)
    run = replace(run, out=target.absolute().name)
    beforehand.require_writable(target.absolute())
    with screen.progress() as progress:
        (row,) = transfer_run(run, target.absolute().parent, progress)
    return row, target


def _folder_name(models: list[Model], method: str, run_id: str) -> str:
    *teachers, student = (model.name for model in models)
    name = f"{student}-from-{'-'.join(teachers)[:80]}-{method}-{run_id[:8]}"
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name)
