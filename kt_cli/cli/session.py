"""One call of `kt sweep`: shows the plan, works through the stages, shows the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from kt_cli.cli import options, screen
from kt_cli.errors import KtError, UsageError
from kt_cli.progress import Progress
from kt_cli.spec import HOW_TO_NAME_DATA

if TYPE_CHECKING:
    from kt_cli.data.sources import Data
    from kt_cli.spec import Model
    from kt_cli.sweep.config import SweepSpec
    from kt_cli.sweep.plan import Planner, Stage
    from kt_cli.sweep.slots import Slot

WHAT = {
    "pretrain": "train the zoo",
    "predict": "predict",
    "pairs": "pairs",
    "transfer": "transfer",
}


def places(gpus: int | None, processes: int | None) -> list[Slot]:
    """Where chunks run on this machine."""
    from kt_cli.sweep.slots import cuda_devices, slots

    return slots(gpus, processes, cuda_devices())


@dataclass
class Session:
    """A sweep on this machine. failures: runs without a result, in this call or given up before."""

    spec: SweepSpec
    folder: Path
    models: list[Model]
    places: list[Slot]
    retry_failed: bool = False
    failures: int = 0
    _planner: Planner | None = field(default=None, repr=False)
    _told: set[str] = field(default_factory=set, repr=False)  # stages whose note was shown

    def show_plan(self, console: Console, asked_gpus: int | None) -> list[Stage]:
        """Print the plan; the stages as they stand."""
        from kt_cli.sweep.plan import unmeasured

        spec, count = self.spec, len(self.models) + len(self.spec.zoo)
        stages = self.planner().stages() if spec.data else unmeasured(spec, len(self.models))
        seeds = f"{len(spec.seeds)} seed{'s' * (len(spec.seeds) > 1)}"
        points = "".join(f" × {len(v)} {key}" for key, v in spec.grid.items())
        teams = f"; teams of {spec.team}: {', '.join(spec.teachers)}" * bool(spec.teachers)
        where = spec.data.source if spec.data else f"not named yet. {HOW_TO_NAME_DATA}"
        for line in (
            f"[bold]{spec.name}[/]: {count:,} models, {count * (count - 1):,} ordered pairs; "
            f"transfer for {spec.pair_count(count):,} pairs × {', '.join(spec.methods)} × {seeds}"
            f"{points}{teams}",
            f"data: {where}{self._left_out()}",
            f"results: {self.folder}",
            f"at once: {self._at_once(asked_gpus)}",
        ):
            console.print(line, soft_wrap=True)
        table = screen.simple_table()
        for header in ("stage", "runs", "done", "to do", "chunks"):
            table.add_column(header, justify="left" if header == "stage" else "right")
        for stage in stages:
            if stage.total:
                table.add_row(*_plan_row(stage, len(self.places)))
        console.print(table)
        for stage in stages:
            if stage.note:
                self._told.add(stage.name)
                console.print(f"targets: {stage.note}", soft_wrap=True)
        return stages

    def work(self, stages: Sequence[Stage]) -> None:
        """Do what is to do, stage by stage, where `stages` is the plan as it stands.

        Raises:
            UsageError: no data is named. WeightsUnavailable, WriteError: nothing can be done.
        """
        planner = self.planner()
        if all(stage.finished for stage in stages):
            self.failures = sum(stage.given_up for stage in stages)
            screen.note("Nothing to do: everything is done already.")
            return
        from kt_cli import schema, store
        from kt_cli.files import write_text
        from kt_cli.sweep.config import to_toml
        from kt_cli.zoo import load

        load.require_weights(self.models)
        write_text(self.folder / "sweep.toml", to_toml(self.spec))
        with screen.progress() as progress:
            for stage in stages:
                self._do(planner.stage(stage.name), progress)
        for table in schema.TABLES:
            store.settle(self.folder, table)

    def show_results(self) -> None:
        from kt_cli.cli.report import show_tables
        from kt_cli.report.tables import sweep_tables

        show_tables(sweep_tables([self.folder]))
        screen.note(f"Results: {self.folder}   (kt report {self.folder} --format latex, for one)")
        if self.failures:
            runs = f"{self.failures} run{'s' * (self.failures > 1)}"
            screen.warn(
                f"{runs} failed; the rows say why. The same command tries again, up to three "
                "times; then --retry-failed does."
            )

    def planner(self) -> Planner:
        """Opens the images, so only where data is named."""
        if self._planner is None:
            from kt_cli.data.guard import leave_out_guards
            from kt_cli.data.sources import open_data
            from kt_cli.sweep.plan import Images, Planner
            from kt_cli.zoo import classes

            if self.spec.data is None:
                raise UsageError(options.NO_DATA, HOW_TO_NAME_DATA)
            transfers = self.spec.pair_count(len(self.models) + len(self.spec.zoo)) > 0
            images = self.spec.data
            if transfers:
                images = leave_out_guards(images, self.models)
                self.spec = replace(self.spec, data=images)
            data = open_data(images, training=transfers or bool(self.spec.zoo))
            classes.require_classes(self.models, data.classes, images.source, data.eval.select)
            if transfers:
                self._require_possible(data)
            self._planner = Planner(
                self.spec, self.folder, self.models, Images.of(data), self._zoo_ids(),
                self.retry_failed, screen.skipped_part,
            )  # fmt: skip
        return self._planner

    def _require_possible(self, data: Data) -> None:
        """Refuse methods that cannot work on this data, before any work."""
        from kt_cli.data.guard import require_images
        from kt_cli.transfer import methods

        for settings in self.spec.transfers():
            methods.require_possible(settings, 1, data.training().labelled)
            if settings.guarded:
                require_images(data.guard)

    def _zoo_ids(self) -> list[str]:
        from kt_cli.data.sources import training_id
        from kt_cli.sweep.plan import labelled

        assert self.spec.data is not None
        images = labelled(self.spec.data)
        return [training_id(images.part(entry.fraction)) for entry in self.spec.zoo]

    def _do(self, stage: Stage, progress: Progress) -> None:
        from kt_cli.sweep.execute import LocalStage
        from kt_cli.sweep.experiment import decode_training_images

        if stage.todo is None:
            raise KtError(f"stage {stage.name} cannot start: the stage before it is incomplete")
        self.failures += stage.given_up
        if stage.todo:
            if stage.note and stage.name not in self._told:
                screen.note(f"targets: {stage.note}")
            # Here, once, and not in every worker at the same time.
            decode_training_images(stage.todo, progress)
            work = LocalStage(self.folder, stage.todo, self.places)
            work.run(progress, WHAT[stage.name])
            self.failures += work.failures

    def _left_out(self) -> str:
        guard = self.spec.data.guard if self.spec.data else 0
        return f" ({guard:.0%} of the training images are left out: the guard slice)" * bool(guard)

    def _at_once(self, asked_gpus: int | None) -> str:
        count, first = len(self.places), self.places[0]
        if first.gpu is not None:
            return f"{count} GPU{'s' * (count > 1)}"
        asked = f" (--gpus {asked_gpus}: there is no GPU here)" if asked_gpus else ""
        threads = f"{first.threads} thread{'s' * (first.threads > 1)}"
        return f"{count} process{'es' * (count > 1)} on the CPU, {threads} each{asked}"


def _plan_row(stage: Stage, parallel: int) -> list[str]:
    from kt_cli.sweep.slots import chunk_count

    todo = stage.total - stage.done - stage.given_up
    runs = 1 if stage.name == "pairs" else todo
    label = WHAT[stage.name] + (f" ({stage.given_up} given up)" if stage.given_up else "")
    chunks = chunk_count(runs, parallel) if todo else 0
    return [label, f"{stage.total:,}", f"{stage.done:,}", f"{todo:,}", f"{chunks:,}"]
