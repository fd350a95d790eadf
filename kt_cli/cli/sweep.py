"""`kt sweep [FILE]`: complementarity and transfer over many pairs, resumed where it stopped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kt_cli.cli import options, screen
from kt_cli.errors import KtError, UsageError

if TYPE_CHECKING:
    from kt_cli.spec import Model
    from kt_cli.sweep.config import SweepSpec
    from kt_cli.sweep.execute import Slot
    from kt_cli.sweep.plan import Planner, Stage

WHAT = {
    "pretrain": "train the zoo",
    "predict": "predict",
    "pairs": "pairs",
    "transfer": "transfer",
}


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
            help="How many ordered pairs to transfer: a number or all. [default: all up to 400, else 400]"
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "-m", "--methods", help="kl, xekl, kl-dp, kl-dp-u; comma list. [default: kl-dp]"
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Comma list of seeds. [default: 0]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each transfer.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate at batch 256.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("-b", "--batch-size", help="Samples per update.")
    ] = None,
    micro_batch: Annotated[int | None, typer.Option(help="Samples per forward pass.")] = None,
    augment: Annotated[str | None, typer.Option(help="none, flip, affine or paper.")] = None,
    fraction: options.Fraction = None,
    limit: options.Limit = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs to use at once. [default: all]")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes at once where there is no GPU. [default: one per core]"
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
) -> None:
    """Measure all ordered pairs of many models, and transfer between some of them.

    Every result is a row in Parquet files; running the same sweep again goes on where it stopped.
    """
    transfer = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "micro_batch": micro_batch, "augment": augment,
                "pairs": _pairs(pairs), "methods": _comma(methods), "seeds": _numbers(seeds), "save_students": save_students}  # fmt: skip
    images = {"source": data, "root": data_dir, "fraction": fraction, "limit": limit}
    spec = _spec(file, {"name": name, "models": models, "transfer": transfer, "data": images})
    _check_names(spec)
    resolved = _resolve(spec)
    session = _Session(spec, output / spec.name, resolved, retry_failed)
    session.show_plan(gpus, processes)
    if dry_run:
        return
    if session.work(gpus, processes):
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
            if given or key in tables:
                tables[key] = {**tables.get(key, {}), **given}
        elif value is not None:
            tables[key] = value
    if "data" in tables and "source" not in tables["data"]:
        root = tables["data"].pop("root", None)
        if root is not None:
            tables["data"]["source"] = root
        elif not tables["data"].keys() - {"fraction", "limit"}:
            del tables["data"]
    if isinstance(tables.get("data", {}).get("source"), str):
        tables["data"]["source"] = options.absolute(tables["data"]["source"])
    return config.build(tables, _default_name(file, flags["models"]))


def _default_name(file: Path | None, models: list[str] | None) -> str:
    import re

    chosen = file.stem if file else "-".join(models or [])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", chosen).strip("-.")[:60] or "sweep"


def _check_names(spec: SweepSpec) -> None:
    from kt_cli.data.views import AUGMENTS
    from kt_cli.errors import unknown
    from kt_cli.transfer import methods

    for method in spec.methods:
        methods.find(method)
    for augment in (spec.transfer.augment, *(entry.augment for entry in spec.zoo)):
        if augment not in AUGMENTS:
            raise unknown("augmentation", augment, AUGMENTS)


def _resolve(spec: SweepSpec) -> list[Model]:
    from kt_cli.zoo import load, names

    resolved = names.resolve(spec.models) if spec.models else []
    names.common_num_classes(resolved)
    for entry in spec.zoo:
        load.require_architecture(entry.arch, entry.pretrained)
    if len(resolved) + len(spec.zoo) < 2:
        raise UsageError("a sweep needs at least two models")
    return resolved


@dataclass
class _Session:
    """One call of `kt sweep`: shows the plan, works through the stages, shows the results."""

    spec: SweepSpec
    folder: Path
    models: list[Model]
    retry_failed: bool
    failures: int = 0
    _planner: Planner | None = None

    def planner(self) -> Planner:
        """Opens the images, so only where data is named."""
        if self._planner is None:
            from kt_cli.data.sources import open_data
            from kt_cli.sweep.plan import Planner
            from kt_cli.zoo import load

            if self.spec.data is None:
                raise UsageError(options.NO_DATA, options.HOW_TO_NAME_DATA)
            transfers = self.spec.pair_count(len(self.models) + len(self.spec.zoo)) > 0
            data = open_data(self.spec.data, training=transfers or bool(self.spec.zoo))
            load.require_classes(self.models, len(data.classes), self.spec.data.source)
            train_id = data.training().fingerprint if transfers else ""
            self._planner = Planner(
                self.spec, self.folder, self.models, (data.eval.fingerprint, train_id),
                [_zoo_id(self.spec, entry.fraction) for entry in self.spec.zoo],
                self.retry_failed, screen.skipped_part,
            )  # fmt: skip
        return self._planner

    def show_plan(self, gpus: int | None, processes: int | None) -> None:
        from kt_cli.sweep.plan import unmeasured

        spec, count = self.spec, len(self.models) + len(self.spec.zoo)
        stages = self.planner().stages() if spec.data else unmeasured(spec, len(self.models))
        screen.err.print(f"[bold]{spec.name}[/]: {count:,} models, {count * (count - 1):,} ordered pairs, "
                         f"{spec.pair_count(count):,} of them for transfer × {', '.join(spec.methods)} × "
                         f"{len(spec.seeds)} seed{'s' * (len(spec.seeds) > 1)}")  # fmt: skip
        parallel = _parallel(gpus, processes)
        where = spec.data.source if spec.data else f"not named yet. {options.HOW_TO_NAME_DATA}"
        screen.err.print(
            f"data: {where}\nresults: {self.folder}\nat once: {parallel.text}", soft_wrap=True
        )
        table = screen.simple_table()
        for header in ("stage", "runs", "done", "to do", "chunks"):
            table.add_column(header, justify="left" if header == "stage" else "right")
        for stage in stages:
            if stage.total:
                table.add_row(*_plan_row(stage, parallel.count))
        screen.out.print(table)

    def work(self, gpus: int | None, processes: int | None) -> bool:
        """Do what is to do, stage by stage; whether there is anything to show."""
        planner = self.planner()
        if all(stage.finished for stage in planner.stages()):
            given_up = sum(stage.given_up for stage in planner.stages())
            self.failures = given_up
            tried = (
                f" {given_up} runs failed three times; --retry-failed tries again."
                if given_up
                else ""
            )
            screen.note(f"Nothing to do: everything is done already.{tried}")
            return True
        from kt_cli.files import write_text
        from kt_cli.sweep.config import to_toml
        from kt_cli.sweep.plan import STAGES
        from kt_cli.zoo import load

        load.require_weights(self.models)
        write_text(self.folder / "sweep.toml", to_toml(self.spec))
        places = _places(gpus, processes)
        with screen.progress() as progress:
            for name in STAGES:
                self._stage(planner.stage(name), places, progress)
        self._settle()
        return True

    def _stage(self, stage: Stage, places: list[Slot], progress: Any) -> None:
        from kt_cli.sweep.execute import LocalStage

        if stage.todo is None:
            raise KtError(f"stage {stage.name} cannot start: the stage before it is incomplete")
        self.failures += stage.given_up
        if stage.todo:
            work = LocalStage(self.folder, stage.todo, places)
            work.run(progress, WHAT[stage.name])
            self.failures += work.failures

    def _settle(self) -> None:
        from kt_cli import store

        for table in store.TABLES:
            store.settle(self.folder, table)

    def show_results(self) -> None:
        from kt_cli.cli.report import show_tables
        from kt_cli.report.tables import sweep_tables

        tables = sweep_tables([self.folder])
        show_tables(tables)
        screen.note(
            f"Results: {self.folder}/   More: kt report {self.folder} --format latex|markdown|csv|json"
        )
        if self.failures:
            screen.warn(
                f"{self.failures} runs failed; their rows say why. Running the sweep again tries them again."
            )


@dataclass(frozen=True)
class _Parallel:
    count: int
    text: str


def _parallel(gpus: int | None, processes: int | None) -> _Parallel:
    """How much runs at once, as far as it can be told without looking for devices twice."""
    from kt_cli.sweep.slots import cuda_devices, slots

    found = slots(gpus, processes, cuda_devices())
    if found[0].gpu is not None:
        return _Parallel(len(found), f"{len(found)} GPU{'s' * (len(found) > 1)}")
    asked = f" (--gpus {gpus} asked for, but there is no GPU here)" if gpus else ""
    each = f"{found[0].threads} thread{'s' * (found[0].threads > 1)}"
    return _Parallel(len(found), f"{len(found)} processes on the CPU, {each} each{asked}")


def _places(gpus: int | None, processes: int | None) -> list[Slot]:
    from kt_cli.sweep.slots import cuda_devices, slots

    return slots(gpus, processes, cuda_devices())


def _plan_row(stage: Stage, parallel: int) -> list[str]:
    from kt_cli.sweep.slots import chunk_count

    todo = stage.total - stage.done - stage.given_up
    runs = 1 if stage.name == "pairs" else todo
    label = WHAT[stage.name] + (f" ({stage.given_up} given up)" if stage.given_up else "")
    chunks = chunk_count(runs, parallel) if todo else 0
    return [label, f"{stage.total:,}", f"{stage.done:,}", f"{todo:,}", f"{chunks:,}"]


def _zoo_id(spec: SweepSpec, fraction: float) -> str:
    from kt_cli.data.sources import open_data

    assert spec.data is not None
    part = replace(spec.data, fraction=spec.data.fraction * fraction)
    return open_data(part, training=True).training().fingerprint


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
