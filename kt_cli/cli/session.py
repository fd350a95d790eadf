"""One call of `kt sweep`: shows the plan, works through the stages, shows the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from kt_cli.cli import options, planned, screen, weights
from kt_cli.cli.leading import Executor, Place, close, lead
from kt_cli.cli.live import WHAT
from kt_cli.errors import KtError, UsageError
from kt_cli.progress import Progress
from kt_cli.spec import HOW_TO_NAME_DATA

if TYPE_CHECKING:
    from kt_cli.data.sources import Data
    from kt_cli.spec import Model, Run
    from kt_cli.sweep.balance import Costs
    from kt_cli.sweep.config import SweepSpec
    from kt_cli.sweep.plan import Planner, Stage
    from kt_cli.sweep.slots import Slot

PAIR = 2  # models, without which there is nothing to compare


def places(gpus: int | None, processes: int | None) -> list[Slot]:
    """Where chunks run on this machine."""
    from kt_cli.sweep.slots import cuda_devices, slots

    return slots(gpus, processes, cuda_devices())


@dataclass
class Session:
    """A sweep, on this machine or on a cluster.

    Attributes:
        places: where chunks run on this machine.
        failures: runs without a result, in this call or given up before.
        finished: nothing is left to do but what was given up.
    """

    spec: SweepSpec
    folder: Path
    models: list[Model]
    places: list[Slot]
    retry_failed: bool = False
    place: Place = field(default_factory=lambda: Place(Executor.local))
    failures: int = 0
    finished: bool = True
    _planner: Planner | None = field(default=None, repr=False)
    _data: Data | None = field(default=None, repr=False)

    def show_plan(self, console: Console, asked_gpus: int | None) -> list[Stage]:
        """Print the plan; the stages as they stand."""
        from kt_cli.sweep.plan import unmeasured

        stages = self._stages() if self.spec.data else unmeasured(self.spec, len(self.models))
        planned.show(self, stages, console, asked_gpus)
        return stages

    def work(self, stages: Sequence[Stage]) -> None:
        """Do what is to do, stage by stage, where `stages` is the plan as it stands.

        Raises:
            UsageError: no data is named. KtError, WriteError: nothing can be done.
        """
        self.planner()
        if all(stage.finished for stage in stages):
            self._given_up()
            if self.place.facts:
                close(self)
            screen.note("Nothing to do: everything is done already.")
            return
        from kt_cli import schema, store
        from kt_cli.files import write_text
        from kt_cli.sweep.config import to_toml
        from kt_cli.sweep.tidy import remove_stale

        if not self.place.following:
            provide = weights.for_jobs if self.place.facts else weights.require
            provide(self.models, max(0, PAIR - len(self.spec.zoo)))
            write_text(self.folder / "sweep.toml", to_toml(self.spec))
        remove_stale(self.folder)
        if self.place.facts:
            self.finished = lead(self)
            if self.finished:
                self._given_up()
            return
        with screen.progress() as progress:
            for stage in stages:
                self._do(self._stage(stage.name), progress)
        for table in schema.TABLES:
            store.settle(self.folder, table)

    def _given_up(self) -> None:
        stages = self._stages()
        self.failures = sum(stage.given_up for stage in stages)
        self.finished = all(stage.finished for stage in stages)

    def _stages(self) -> list[Stage]:
        return [self._stage(name) for name in WHAT]

    def _stage(self, name: str) -> Stage:
        """A stage as it stands now; transfers cut to the GPU-hours there are."""
        stage, hours = self.planner().stage(name), self.spec.slurm.max_gpu_hours
        if name != "transfer" or hours is None or not stage.todo:
            return stage
        from kt_cli.sweep.budget import fitting, spent

        left = 3600 * hours - spent(self.folder)
        todo = fitting(stage.todo, self.costs().seconds, self.planner().ranks(), left)
        return replace(stage, todo=tuple(todo), left_out=len(stage.todo) - len(todo))

    def next_runs(self) -> tuple[str, Sequence[Run]] | None:
        """The first stage that is not finished, and its runs; None at the end."""
        for name in WHAT:
            runs = _startable(self._stage(name))
            if runs:
                return name, runs
        return None

    def costs(self) -> Costs:
        """Estimates of what runs take."""
        from kt_cli.sweep.balance import Costs

        return Costs(self.folder, self.training_images(), self.evaluation_images())

    def training_images(self) -> int:
        self.planner()
        assert self._data is not None
        return 0 if self._data.train is None else len(self._data.train)

    def evaluation_images(self) -> int:
        self.planner()
        assert self._data is not None
        return len(self._data.eval)

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
            from kt_cli.sweep.plan import Images, Planner, other_images

            if self.spec.data is None:
                raise UsageError(options.NO_DATA, HOW_TO_NAME_DATA)
            transfers = self.spec.pair_count(len(self.models) + len(self.spec.zoo)) > 0
            images = self.spec.data
            if transfers:
                images = leave_out_guards(images, self.models)
                self.spec = replace(self.spec, data=images)
            data = self._data = open_data(images, training=transfers or bool(self.spec.zoo))
            options.require_classes(self.models, data.eval, images.source)
            if transfers:
                self._require_possible(data)
            with screen.progress() as progress:
                settings = self.spec.transfers() if transfers else []
                known = Images.of(data, settings, progress)
                zoo_ids = self._zoo_ids(progress)
            for said in other_images(self.folder, data, images):
                screen.warn(f"{said}: what is about those stays, and is done again.")
            self._planner = Planner(
                self.spec, self.folder, self.models, known, zoo_ids, self.retry_failed,
                screen.skipped_part,
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

    def _zoo_ids(self, progress: Progress) -> list[str]:
        from kt_cli.data.sources import training_id
        from kt_cli.sweep.plan import labelled

        assert self.spec.data is not None
        images = labelled(self.spec.data)
        return [training_id(images.part(entry.fraction), progress) for entry in self.spec.zoo]

    def _do(self, stage: Stage, progress: Progress) -> None:
        from kt_cli.sweep.execute import LocalStage, run_inline
        from kt_cli.sweep.experiment import decode_training_images

        runs = _startable(stage)
        self.failures += stage.given_up
        if runs:
            if stage.note:
                screen.note(f"targets: {stage.note}")
            # Here, once, and not in every worker at the same time.
            decode_training_images(runs, progress)
            if self.place.executor is Executor.inline:
                self.failures += run_inline(self.folder, runs, self.places[0])
                return
            work = LocalStage(self.folder, runs, self.places, screen.warn)
            work.run(progress, WHAT[stage.name])
            self.failures += work.failures


def _startable(stage: Stage) -> Sequence[Run]:
    """What a stage has to do.

    Raises:
        KtError: it depends on a stage that is incomplete.
    """
    if stage.todo is None:
        raise KtError(f"stage {stage.name} cannot start: the stage before it is incomplete")
    return stage.todo
