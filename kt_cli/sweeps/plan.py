"""Names -> runs, minus what is done: pretrain -> predict -> pairs -> transfer. Executes nothing.

A stage can be listed once the one before it is done or given up: training decides what a model is,
predictions decide which pairs are drawn. They are drawn from all models that were asked for: the
pairs of one that was given up are left out, and none are drawn in their place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kt_cli.errors import some_of
from kt_cli.rows.store import OK, OnSkip, Outcomes, read
from kt_cli.runs.pairs import row_ids
from kt_cli.runs.target_plan import keep_targets
from kt_cli.settings import DataSpec, PairsSpec, PretrainSpec, SweepSpec, TransferSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps.config import model_names, team_transfers, transfer_count
from kt_cli.sweeps.draw import draw_teams, ranked_pairs, those
from kt_cli.sweeps.images import Images
from kt_cli.zoo import local_models
from kt_cli.zoo.names import random_twins

STAGES = ("pretrain", "predict", "pairs", "transfer")
MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class Stage:
    """One stage of a plan; for "pairs" ordered pairs count as runs."""

    name: str
    total: int
    done: int = 0
    todo: tuple[Run, ...] | None = None  # to do now; None where they depend on an earlier stage
    given_up: int = 0  # which failed MAX_ATTEMPTS times, or are about a model that did
    missing: tuple[str, ...] = ()  # names of these models
    left_out: int = 0  # which do not fit into the GPU-hours there are
    note: str = ""  # what was decided about the stage

    @property
    def finished(self) -> bool:
        return self.todo is not None and not self.todo

    @property
    def waiting(self) -> int:
        """Runs that are to be done, now or after an earlier stage."""
        return self.total - self.done - self.given_up - self.left_out

    @property
    def without(self) -> str:
        """Which models are missing, for people."""
        return f"{self.name}: the runs of {some_of(self.missing, 5)} are left out, which failed"


@dataclass(frozen=True)
class Asked:
    """The models that a sweep asked for, when each has been predicted or given up."""

    usable: tuple[Model, ...]  # those that were predicted, baselines last
    models: list[Model]  # all between which transfers may be, in their order
    # As pairs are drawn. Of a model that was once given up, whatever came of it later, nothing is
    # known then: a stand-in for what it is, and NaN.
    keys: list[str]
    accuracies: NDArray[np.float64]


@dataclass
class Planner:
    """Lists the runs of a sweep against the results in `folder`."""

    spec: SweepSpec
    folder: Path
    named: Sequence[Model]  # that exist already; the zoo's are found in `folder`
    images: Images
    zoo_ids: Sequence[str] = ()  # fingerprints of the training images of each model of the zoo
    retry_failed: bool = False  # try again what failed MAX_ATTEMPTS times
    on_skip: OnSkip | None = None

    def __post_init__(self) -> None:
        assert self.spec.data is not None
        self._data: DataSpec = self.spec.data
        self._how = self.spec.transfer.evaluation
        # As long as not all of them are there.
        later = unmeasured(self.spec, model_names(self.spec, self.named))
        self._later = {stage.name: stage for stage in later}

    def stage(self, name: str) -> Stage:
        """The stage as it stands now, by the rows on disk."""
        if name == "pretrain":
            return self._open(name, "pretrain", self._zoo_runs(), self._trained)
        if name == "predict":
            models = self.models()
            if models is None:
                return self._later[name]
            return self._open(name, "models", self._predict_runs(models))
        asked = self._asked()
        if asked is None:
            return self._later[name]
        return self._pairs(asked.usable) if name == "pairs" else self._transfer(asked)

    def models(self) -> list[Model] | None:
        """All models of the sweep, baselines last; None while the zoo is not trained.

        Models of the zoo whose training was given up are left out.
        """
        outcomes = Outcomes(self.folder, "pretrain", self.on_skip)
        runs = self._zoo_runs()
        trained = [run for run in runs if self._trained(run, outcomes)]
        left = [run.id for run in runs if run not in trained]
        if any(not outcomes.failed(i) or outcomes.attempts(i) < MAX_ATTEMPTS for i in left):
            return None
        models = list(self.named)
        if trained:
            from kt_cli.zoo import names

            folders = [f"local-dir:{self.folder / run.out}" for run in trained]
            # All at once, so that no two are called the same.
            models = names.resolve([*(model.ref for model in models), *folders], needed=0)
        return models if self.spec.baseline == "none" else [*models, *random_twins(models)]

    def _zoo_runs(self) -> list[Run]:
        return [
            Run("pretrain", starting_point(entry), data_id, entry, of_zoo(self._data),
                out=f"zoo/{entry.name}")
            for entry, data_id in zip(self.spec.zoo, self.zoo_ids, strict=True)
        ]  # fmt: skip

    def _trained(self, run: Run, outcomes: Outcomes) -> bool:
        return outcomes.done(run.id) and trained_by(self.folder / run.out) == run.id

    def _predict_runs(self, models: Sequence[Model]) -> list[Run]:
        return [Run("predict", (m,), self.images.eval_id, self._how, self._data) for m in models]

    def _asked(self) -> Asked | None:
        models = self.models()
        if models is None:
            return None
        rows = read([self.folder], "models", ["run_id", "status", "attempt", "accuracy"])
        rows = rows.set_index("run_id").reindex([run.id for run in self._predict_runs(models)])
        ok, attempts = rows["status"] == OK, rows["attempt"].fillna(0)
        if (~ok & (attempts < MAX_ATTEMPTS)).any():
            return None
        in_time = rows["accuracy"].where(ok & (attempts <= MAX_ATTEMPTS))
        accuracy = dict(zip(models, in_time, strict=True))
        zoo, trainings = self._zoo_runs(), Outcomes(self.folder, "pretrain")
        lost = [Model(r.id, name=r.settings.name) for r in zoo if not trainings.done(r.id)]
        late = {local_models.folder_key(self.folder / r.out): r.id for r in zoo
                if trainings.done(r.id) and trainings.attempts(r.id) > MAX_ATTEMPTS}  # fmt: skip
        between = [*(model for model in models if not model.untrained), *lost]
        known = [np.nan if m.key in late else accuracy.get(m, np.nan) for m in between]
        return Asked(
            usable=tuple(itertools.compress(models, ok)),
            models=between,
            keys=[late.get(model.key, model.key) for model in between],
            accuracies=np.array(known),
        )

    def _pairs(self, usable: tuple[Model, ...]) -> Stage:
        wanted = PairsSpec(
            self._how.size, self._how.amp, self.spec.class_embedding, self.spec.flips_by_class
        )
        run = Run("pairs", usable, self.images.eval_id, wanted, self._data)
        columns = ["run_id", "status", "attempt", "class_embedding", "by_class"]
        rows = read([self.folder], "complementarity", columns, self.on_skip)
        # With the similarity of classes and the flips by class that are asked for now.
        as_wanted = (
            (rows["status"] == OK)
            & rows["class_embedding"].str.startswith(f"{wanted.embedding}:").eq(True)
            & (rows["by_class"].eq(True) | (not wanted.by_class))
        )
        ids = row_ids(run)
        done = len({*ids} & {*rows["run_id"][as_wanted]})
        attempts = max([0, *rows["attempt"][rows["run_id"] == run.id].astype(int)])
        stage = Stage("pairs", len(ids), done, ())
        if done == len(ids):
            return stage
        if attempts >= MAX_ATTEMPTS and not self.retry_failed:
            return replace(stage, given_up=1)
        return replace(stage, todo=(replace(run, attempt=attempts + 1),))

    def _transfer(self, asked: Asked) -> Stage:
        spec, models, drawn = self.spec, asked.models, self._drawn(asked)
        teams: list[tuple[list[int], int]] = []
        if spec.together:
            teachers = those(spec.is_teacher, models)
            teams = draw_teams(drawn, asked.keys, spec.team, spec.pair_seed, teachers)
        groups = [*(([t], s, spec.transfers()) for t, s in sorted(drawn)),
                  *((team, s, team_transfers(spec)) for team, s in teams)]  # fmt: skip
        # Neighbours share their student, so that what they share is computed once.
        wanted = [self._transfer_run([*(models[t] for t in taught_by), models[s]], settings)
                  for taught_by, s, transfers in sorted(groups, key=lambda group: group[1])
                  for settings in transfers]  # fmt: skip
        images = self.images
        runs, note = keep_targets(wanted, images.training, images.classes, spec.target_budget)
        usable = set(asked.usable)
        stage = self._open("transfer", "transfer", [r for r in runs if usable.issuperset(r.models)])
        missing = dict.fromkeys(m.name for r in runs for m in r.models if m not in usable)
        given_up = stage.given_up + len(runs) - stage.total
        return replace(
            stage, total=len(runs), given_up=given_up, missing=tuple(missing), note=note
        )  # fmt: skip

    def _ranked(self, asked: Asked) -> list[tuple[int, int]]:
        """Pairs of indices of the models, as they are drawn."""
        spec, models = self.spec, asked.models
        roles = those(spec.is_teacher, models), those(spec.is_student, models)
        return ranked_pairs(asked.accuracies, asked.keys, spec.pair_seed, *roles)

    def _drawn(self, asked: Asked) -> list[tuple[int, int]]:
        return self._ranked(asked)[: self.spec.pair_count([m.name for m in asked.models])]

    def drawn(self) -> list[tuple[str, str]]:
        """Keys of teacher and student of the pairs to transfer; none before predictions."""
        if (asked := self._asked()) is None:
            return []
        return [(asked.models[t].key, asked.models[s].key) for t, s in self._drawn(asked)]

    def ranks(self) -> dict[tuple[str, ...], int]:
        """How early each pair (keys of teacher and student) is drawn; empty before predictions."""
        if (asked := self._asked()) is None:
            return {}
        keys = [model.key for model in asked.models]
        return {(keys[t], keys[s]): rank for rank, (t, s) in enumerate(self._ranked(asked))}

    def _transfer_run(self, models: Sequence[Model], settings: TransferSpec) -> Run:
        data_id = self.images.guarded_id if settings.guarded else self.images.transfer_id
        run = Run("transfer", tuple(models), data_id, settings, self._data)
        return replace(run, out=f"students/{run.id}") if self.spec.save_students else run

    def _open(
        self, name: str, table: str, runs: Sequence[Run],
        is_done: Callable[[Run, Outcomes], bool] = lambda run, outcomes: outcomes.done(run.id),
    ) -> Stage:  # fmt: skip
        outcomes = Outcomes(self.folder, table, self.on_skip)
        left = [run for run in runs if not is_done(run, outcomes)]
        tried = [(run, outcomes.attempts(run.id)) for run in left]
        todo = tuple(replace(run, attempt=attempts + 1) for run, attempts in tried
                     if attempts < MAX_ATTEMPTS or self.retry_failed)  # fmt: skip
        return Stage(name, len(runs), len(runs) - len(left), todo, len(left) - len(todo))


def unmeasured(spec: SweepSpec, names: Sequence[str]) -> list[Stage]:
    """The stages of a sweep over models of these names, where no run is known yet."""
    count = len(names)
    totals = (len(spec.zoo), count, count * (count - 1), transfer_count(spec, names))
    return [Stage(name, total) for name, total in zip(STAGES, totals, strict=True)]


def of_zoo(data: DataSpec) -> DataSpec:
    """The images of a sweep as its zoo is trained on them: all, whatever transfers use of them."""
    return replace(data, unlabelled=None, fraction=1.0)


def starting_point(spec: PretrainSpec) -> tuple[Model, ...]:
    """The model that a training starts from, as part of its identity; none from scratch."""
    if not spec.pretrained:
        return ()
    from kt_cli.zoo import names

    return (names.single(spec.arch),)


def trained_by(folder: Path) -> str | None:
    """The id of the run that saved the model in `folder`; None where there is no such model."""
    return (local_models.card_extra(Model("", f"local-dir:{folder}")) or {}).get("run_id")
