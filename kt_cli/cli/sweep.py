"""`kt sweep [FILE]`: complementarity and transfer over many pairs, resumed where it stopped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kt_cli.cli import cluster_options as on_cluster
from kt_cli.cli import options, screen
from kt_cli.cli.leading import Executor, choose
from kt_cli.cli.session import Session, places
from kt_cli.errors import UsageError

if TYPE_CHECKING:
    from kt_cli.spec import Model
    from kt_cli.sweep.config import SweepSpec


def sweep(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A sweep file (TOML); flags win over it."),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="Models or selections: timm-top300, 'vit_*', @list.txt, a,b,c. May repeat."
        ),
    ] = None,
    data: options.DataOption = None,
    data_dir: options.DataDir = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            help="Ordered pairs to transfer: a number or all; by default all up to 400, else 400."
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--methods",
            help="Comma list, as of kt transfer, with +guard for the guard; by default kl-dp.",
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Comma list of seeds; by default 0.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each transfer.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate at batch 256.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("-b", "--batch-size", help="Samples per update.")
    ] = None,
    micro_batch: Annotated[int | None, typer.Option(help="Samples per forward pass.")] = None,
    augment: Annotated[str | None, typer.Option(help="none, flip, affine or paper.")] = None,
    bn: Annotated[
        str | None, typer.Option(help="Statistics of batch normalisation: train, eval, recompute.")
    ] = None,
    teachers: Annotated[
        list[str] | None,
        typer.Option(help="Also teams of teachers: sequential, parallel, soup; comma list."),
    ] = None,
    students: Annotated[
        list[str] | None,
        typer.Option(help="Models that are taught, by name or glob; comma list; by default all."),
    ] = None,
    team: Annotated[int | None, typer.Option(min=2, help="Teachers in a team.")] = None,
    amp: Annotated[
        str | None,
        typer.Option(help="Mixed precision of training: float16 or bfloat16; by default none."),
    ] = None,
    target_budget: Annotated[
        float | None,
        typer.Option(
            metavar="GB", help="Disk for what models say about training views; by default 100."
        ),
    ] = None,
    retry_oom: Annotated[
        bool | None,
        typer.Option("--retry-oom/--no-retry-oom", help="Halve micro-batches that do not fit."),
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Images without labels to transfer on."),
    ] = None,
    guard_data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Class folders for the guard to judge on.")
    ] = None,
    fraction: options.Fraction = None,
    limit: options.Limit = None,
    class_map: options.ClassMap = None,
    labels: options.Labels = None,
    valid_labels: options.ValidLabels = None,
    by_position: options.ByPosition = None,
    real_labels: options.RealLabels = None,
    eval_amp: Annotated[
        str | None,
        typer.Option(help="Mixed precision of evaluation: float16 or bfloat16; by default none."),
    ] = None,
    class_embedding: Annotated[
        str | None, typer.Option(help="What classes are compared by: head, clip or none.")
    ] = None,
    flips_by_class: Annotated[
        bool | None,
        typer.Option("--flips-by-class/--no-flips-by-class", help="Keep flips of each class."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="random: adds randomly initialised teachers.")
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, help="GPUs to use at once; by default all here, 8 on a cluster."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes at once where there is no GPU; by default one per core."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the sweep: its folder of results.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where sweeps keep their results.")
    ] = Path("results"),
    save_students: Annotated[
        bool | None,
        typer.Option(
            "--save-students/--no-save-students", help="Keep every student after transfer."
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also try again what failed three times.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    executor: on_cluster.ExecutorOption = Executor.auto,
    detach: on_cluster.Detach = False,
    follow: on_cluster.Follow = False,
    partition: on_cluster.Partition = None,
    account: on_cluster.Account = None,
    qos: on_cluster.Qos = None,
    constraint: on_cluster.Constraint = None,
    time: on_cluster.Time = None,
    mem: on_cluster.Mem = None,
    cpus_per_gpu: on_cluster.CpusPerGpu = None,
    setup: on_cluster.Setup = None,
    srun_arg: on_cluster.SrunArg = None,
    wckey: on_cluster.Wckey = None,
    max_gpu_hours: on_cluster.MaxGpuHours = None,
) -> None:
    """Measure all ordered pairs of many models, and transfer between some of them.

    Every result is a row in Parquet files; running the same sweep again goes on where it stopped.
    """
    transfer = {
        "epochs": epochs, "lr": lr, "batch_size": batch_size, "micro_batch": micro_batch,
        "augment": augment, "pairs": _pairs(pairs), "methods": _comma(methods),
        "seeds": _numbers(seeds), "save_students": save_students, "eval_amp": eval_amp,
        "bn": bn, "teachers": _comma(teachers), "team": team, "amp": amp,
        "students": _comma(students),
        "target_budget": target_budget, "retry_oom": retry_oom,
    }  # fmt: skip
    about_pairs = {
        "class_embedding": class_embedding, "flips_by_class": flips_by_class, "baseline": baseline,
    }  # fmt: skip
    images = {
        "source": data, "root": data_dir, "fraction": fraction, "limit": limit,
        "class_map": class_map, "labels": labels, "valid_labels": valid_labels,
        "by_position": by_position, "real_labels": real_labels, "unlabelled": unlabelled,
        "guard_data": guard_data,
    }  # fmt: skip
    slurm = {
        "gpus": gpus, "max_gpu_hours": max_gpu_hours, "partition": partition, "account": account,
        "qos": qos, "constraint": constraint, "time": time, "mem": mem,
        "cpus_per_gpu": cpus_per_gpu, "setup": setup, "srun_args": srun_arg, "wckey": wckey,
    }  # fmt: skip
    spec = _spec(file, {"name": name, "models": models, "complementarity": about_pairs,
                        "transfer": transfer, "data": images, "slurm": slurm})  # fmt: skip
    _check_names(spec)
    resolved = _resolve(spec)
    place = choose(executor, spec.slurm.partition, processes, detach, follow)
    session = Session(
        spec, (output / spec.name).absolute() if place.facts else output / spec.name, resolved,
        places(gpus, processes), retry_failed, place,
    )  # fmt: skip
    plan = session.show_plan(screen.out if dry_run else screen.err, asked_gpus=gpus)
    if not dry_run:
        session.work(plan)
        if session.finished:
            session.show_results()
        if session.failures:
            raise typer.Exit(1)


def _spec(file: Path | None, flags: dict[str, Any]) -> SweepSpec:
    """The sweep of the file with the flags laid over it."""
    from kt_cli.sweep import config

    tables = config.read_file(file) if file else {}
    for key, value in flags.items():
        if isinstance(value, dict):
            given = {
                k: str(v) if isinstance(v, Path) else v for k, v in value.items() if v is not None
            }
            present = tables.get(key, {})
            if isinstance(present, dict) and (given or key in tables):
                tables[key] = {**present, **given}
        elif value is not None:
            tables[key] = value
    if not isinstance(tables.get("data", {}), dict):
        raise UsageError("data must be a table: [data]")
    if "data" in tables and "source" not in tables["data"]:
        root = tables["data"].pop("root", None)
        if root is not None:
            tables["data"]["source"] = root
        elif not tables["data"].keys() - {"fraction", "limit"}:
            del tables["data"]
    images = tables.get("data", {})
    for key in ("source", "root", *options.FILES):
        if isinstance(images.get(key), str):
            whole = options.file_path if key in options.FILES else options.absolute
            images[key] = whole(images[key])
    return config.build(tables, _default_name(file, flags["models"]))


def _default_name(file: Path | None, models: list[str] | None) -> str:
    chosen = file.stem if file else "-".join(models or [])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", chosen).strip("-.")[:60] or "sweep"


def _check_names(spec: SweepSpec) -> None:
    from kt_cli.complementarity.embedding import require_kind
    from kt_cli.data.views import find_augment
    from kt_cli.transfer import methods

    for method in spec.methods:
        methods.find(method)
    require_kind(spec.class_embedding)
    for augment in (spec.transfer.augment, *(entry.augment for entry in spec.zoo)):
        find_augment(augment)


def _resolve(spec: SweepSpec) -> list[Model]:
    from kt_cli.zoo import classes, names

    resolved = names.resolve(spec.models) if spec.models else []
    names.refuse_predictions(resolved, "kt sweep")
    if spec.data is None:
        classes.require_common(resolved)
    for entry in spec.zoo:
        names.require_architecture(entry.arch, entry.pretrained)
    if len(resolved) + len(spec.zoo) < 2:
        raise UsageError("a sweep needs at least two models")
    return resolved


def _pairs(text: str | None) -> int | str | None:
    if text is None or text in ("all", "auto"):
        return text
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--pairs takes a number or 'all', not {text!r}") from None


def _comma(values: list[str] | None) -> list[str] | None:
    return (
        None if values is None else [p.strip() for v in values for p in v.split(",") if p.strip()]
    )


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--seeds takes numbers separated by commas, not {text!r}") from None
