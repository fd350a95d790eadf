"""A sweep at work: what there is to do as it stands, and doing it on this machine."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from kt_cli.data.guard_images import leave_out_guards, require_images
from kt_cli.data.sources import Data, open_data, training_id
from kt_cli.distillation import methods
from kt_cli.errors import KtError, UsageError, warn
from kt_cli.files import write_text
from kt_cli.progress import Listener, label
from kt_cli.rows import schema, store
from kt_cli.runs.kinds import KINDS, decode_training_images
from kt_cli.settings import HOW_TO_NAME_DATA, SweepSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps import remaining
from kt_cli.sweeps.config import model_names, team_transfers, to_toml
from kt_cli.sweeps.cost_model import CPU_MACS_PER_SECOND, MACS_PER_SECOND, Costs, fitting, spent
from kt_cli.sweeps.execute import LocalStage, run_inline
from kt_cli.sweeps.images import Images, other_images
from kt_cli.sweeps.place import INLINE, Place
from kt_cli.sweeps.plan import STAGES, Planner, Stage, of_zoo, unmeasured
from kt_cli.sweeps.slots import Slot
from kt_cli.sweeps.workers import Workers
from kt_cli.zoo import classes, timm_registry, weights

PAIR = 2  # models, without which there is nothing to compare
DAY_SECONDS = 24 * 3600


@dataclass
class Session:
    """A sweep, on this machine or on a cluster."""

    spec: SweepSpec
    folder: Path
    models: list[Model]
    place: Place
    slots: list[Slot]  # where chunks run on this machine
    retry_failed: bool = False
    tell: Listener = field(default_factory=Listener)
    said: set[str] = field(default_factory=set)  # notes of stages that need not be said again
    failures: int = 0  # runs without a result, in this call or given up before
    given_up: int = 0
    finished: bool = True  # nothing is left to do but what was given up

    @property
    def names(self) -> list[str]:
        return model_names(self.spec, self.models)

    def stages(self) -> list[Stage]:
        """The stages as they stand; without data only how many runs they will have."""
        if self.spec.data is None:
            return unmeasured(self.spec, self.names)
        return [self._stage(name) for name in STAGES]

    def _stage(self, name: str) -> Stage:
        """A stage as it stands now; transfers cut to the GPU-hours there are."""
        stage, hours = self.planner.stage(name), self.spec.slurm.max_gpu_hours
        if name != "transfer" or hours is None or not stage.todo:
            return stage
        left = 3600 * hours - spent(self.folder)
        costs = self.costs().seconds(stage.todo)
        todo = fitting(stage.todo, costs, self.planner.ranks(), left)
        return replace(stage, todo=tuple(todo), left_out=len(stage.todo) - len(todo))

    def next_runs(self) -> tuple[str, Sequence[Run]] | None:
        """The first stage that is not finished, and its runs; None at the end."""
        for name in STAGES:
            runs = _startable(self._stage(name))
            if runs:
                return name, runs
        return None

    def costs(self) -> Costs:
        slot = self.slots[0]
        on_cpu = slot.gpu is None and not self.place.facts
        speed = CPU_MACS_PER_SECOND * max(1, slot.threads) if on_cpu else MACS_PER_SECOND
        return Costs(self.folder, self.training_images, len(self.data.eval), speed)

    def seconds(self, stage: Stage, costs: Costs | None = None) -> float:
        """About what is to do of a stage takes, run after run."""
        costs = costs or self.costs()
        if stage.todo is not None:
            return sum(costs.seconds(stage.todo))
        images = [*map(costs.per_image, self.models)]
        images += [costs.per_image(Model(zoo.arch), zoo.img_size) for zoo in self.spec.zoo]
        named = list(zip(self.names, images, strict=True))
        roles = [[seconds for name, seconds in named if may(name)]
                 for may in (self.spec.is_teacher, self.spec.is_student)]  # fmt: skip
        epochs = self.spec.transfer.epochs
        seconds = stage.waiting * costs.typical(stage.name, images, roles, epochs)
        drifts = any(settings.subtract_drift for settings in self.spec.transfers())
        if drifts and stage.name == "transfer":
            drift = costs.typical(stage.name, images, [[0.0], roles[1]], epochs)
            seconds += min(stage.waiting, len(roles[1])) * drift
        return seconds

    @property
    def at_once(self) -> int:
        """Runs at a time, at most."""
        if self.place.facts:
            return self.spec.slurm.jobs
        return 1 if self.place.executor == INLINE else len(self.slots)

    @property
    def training_images(self) -> int:
        return 0 if self.data.train is None else len(self.data.train)

    @cached_property
    def data(self) -> Data:
        """The images, of models that go with them; UsageError where no data is named."""
        images = self.spec.data
        if images is None:
            raise UsageError("no data is named", HOW_TO_NAME_DATA)
        if self._transfers:
            images = leave_out_guards(images, self.models)
            self.spec = replace(self.spec, data=images)
        data = open_data(images, training=self._transfers or bool(self.spec.zoo))
        classes.require_classes(self.models, data.classes, images.source, data.eval.select)
        classes.warn_of_classes(self.models, data.classes, data.eval.select)
        # Refuse methods that cannot work on this data, before any work.
        alone = [(settings, 1) for settings in self.spec.transfers()]
        teams = [(settings, self.spec.team) for settings in team_transfers(self.spec)]
        for settings, teachers in [*alone, *teams] if self._transfers else ():
            methods.require_possible(settings, teachers, data.training().labelled)
            if settings.guarded:
                require_images(data.guard)
        return data

    @cached_property
    def planner(self) -> Planner:
        data, progress = self.data, self.tell.progress
        transfers = self.spec.transfers() if self._transfers else []
        images = Images.of(data, transfers, progress)
        assert self.spec.data is not None
        for said in other_images(self.folder, data, self.spec.data):
            warn(f"{said}: what is about those stays, and is done again.")
        zoo = of_zoo(self.spec.data)
        zoo_ids = [training_id(zoo.part(entry.fraction), progress) for entry in self.spec.zoo]
        return Planner(self.spec, self.folder, self.models, images, zoo_ids, self.retry_failed,
                       self.tell.skipped)  # fmt: skip

    @property
    def _transfers(self) -> bool:
        return self.spec.pair_count(self.names) > 0

    def begin(self, stages: Sequence[Stage]) -> None:
        """Have weights, and write down what the sweep is.

        Raises:
            KtError: too few models have weights. WriteError: the folder cannot be written.
        """
        needed = max(0, PAIR - len(self.spec.zoo))
        if self.place.facts:
            weights.for_jobs(self.models, needed, self.tell)
        else:
            timm_registry.require_weights(self.models, needed)
        self.record(stages)

    def record(self, stages: Sequence[Stage]) -> None:
        """Write down what is planned: the sweep, its models once all are known, how much it is."""
        keys = [model.key for model in self.planner.models() or ()]
        costs = self.costs()
        seconds = {stage.name: self.seconds(stage, costs) for stage in stages}
        totals = {stage.name: stage.total - stage.left_out for stage in stages}
        runs = {s.name: (totals[s.name], seconds[s.name] / max(1, s.waiting)) for s in stages}
        waiting = any(stage.waiting for stage in stages)
        estimate = remaining.estimate(self.folder, totals if waiting else None)
        if estimate is None:
            timed = [took for name, took in seconds.items() if not KINDS[name].many_rows]
            estimate = spent(self.folder) + sum(timed)
        every = self.spec.pairs == "all" and not (self.spec.teachers or self.spec.students)
        pairs = () if every else self.planner.drawn()
        given_up = {stage.name: stage.given_up for stage in stages if stage.given_up}
        self.given_up = sum(given_up.values())
        trained = self.data.training().fingerprint if self._transfers else ""
        rows = remaining.rows_of(self.spec, self.data.eval.fingerprint, trained)
        done = remaining.done_so_far(self.folder, totals, rows, keys)
        plan = remaining.plan(self.at_once, runs, pairs, estimate, given_up, rows, done)
        files = {"sweep.toml": to_toml(self.spec), remaining.MODELS: json.dumps(keys),
                 remaining.PLAN: plan}  # fmt: skip
        for name, text in files.items():
            file = self.folder / name
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                write_text(file, text)

    def work(self) -> None:
        """Do all stages on this machine, one after the other."""
        remove_stale(self.folder)
        with Workers(self.folder) as workers:
            for name in STAGES:
                self._do(name, workers)
        for table in schema.TABLES:
            store.settle(self.folder, table)
        self.record(self.stages())

    def _do(self, name: str, workers: Workers) -> None:
        """A stage; what failed is tried again before the next, so that of the last stage is not."""
        retry_failed = self.planner.retry_failed
        while runs := _startable(stage := self._stage(name)):
            failed = self._do_once(stage, runs, workers)
            if name == STAGES[-1]:
                self.failures += failed
                break
            # What failed three times is tried once more, not for ever.
            self.planner.retry_failed = False
        self.planner.retry_failed = retry_failed
        self.failures += stage.given_up
        if stage.missing:
            self.tell.note(stage.without)

    def _do_once(self, stage: Stage, runs: Sequence[Run], workers: Workers) -> int:
        """How many of the runs failed."""
        if stage.note not in {"", *self.said}:
            self.said.add(stage.note)
            self.tell.note(f"targets: {stage.note}")
        # Here, once, and not in every worker at the same time.
        decode_training_images(runs, self.tell.progress, self.spec.timeout_run)
        if self.place.executor == INLINE:
            return run_inline(self.folder, runs)
        costs = self.costs().seconds(runs)
        minutes = self.spec.timeout_run
        work = LocalStage(self.folder, runs, self.slots, workers, warn, minutes, costs)
        return work.run(self.tell.progress, label(stage.name))

    def end(self) -> None:
        """Count what was given up."""
        stages = self.stages()
        self.record(stages)
        self.failures = self.given_up
        self.finished = all(stage.finished for stage in stages)


def _startable(stage: Stage) -> Sequence[Run]:
    """What a stage has to do; KtError where it depends on one that is incomplete."""
    if stage.todo is None:
        raise KtError(f"stage {stage.name} cannot start: the stage before it is incomplete")
    return stage.todo


def remove_stale(folder: Path) -> None:
    """Remove what killed writers left; what is younger than a day may belong to one who lives."""
    # Beside what they become: no deeper, where a zoo may have thousands of folders.
    for path in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]:
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= DAY_SECONDS:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
