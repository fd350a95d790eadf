"""Names -> runs, minus what is done. Plans stage by stage and executes nothing.

pretrain (zoos that are trained here) -> predict (each model once) -> pairs (statistics of all
ordered pairs) -> transfer (drawn pairs × methods × seeds). A stage can be listed once the one
before it is done: training decides what a model is, predictions decide which pairs are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kt_cli.errors import DataError, unknown
from kt_cli.progress import Progress, silent
from kt_cli.rows.store import OK, OnSkip, Outcomes, read
from kt_cli.runs.pairs import row_ids
from kt_cli.runs.target_plan import keep_targets
from kt_cli.settings import DataSpec, PairsSpec, PretrainSpec, SweepSpec, TransferSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps.config import team_transfers, transfer_count
from kt_cli.sweeps.draw import draw_pairs, draw_teams, ranked_pairs
from kt_cli.zoo import local_models
from kt_cli.zoo.names import random_twins

if TYPE_CHECKING:
    import pandas as pd

    from kt_cli.data.sources import Data

STAGES = ("pretrain", "predict", "pairs", "transfer")
MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class Stage:
    """One stage of a plan.

    total, done: runs in all, and finished ones (ordered pairs for "pairs").
    todo: the runs to do now; None where they depend on an earlier stage.
    given_up: runs that failed MAX_ATTEMPTS times.
    left_out: runs that do not fit into the GPU-hours there are.
    note: what was decided about the stage.
    """

    name: str
    total: int
    done: int = 0
    todo: tuple[Run, ...] | None = None
    given_up: int = 0
    left_out: int = 0
    note: str = ""

    @property
    def finished(self) -> bool:
        return self.todo is not None and not self.todo

    @property
    def label(self) -> str:
        """What it is called while it works."""
        return "train the zoo" if self.name == "pretrain" else self.name


@dataclass(frozen=True)
class Images:
    """What a planner knows of the images.

    Attributes:
        eval_id: fingerprint of the evaluation images.
        transfer_id, guarded_id: of all that a transfer reads, and of a guarded one.
        training, classes: how many training images and classes there are.
    """

    eval_id: str
    transfer_id: str = ""
    guarded_id: str = ""
    training: int = 0
    classes: int = 0

    @classmethod
    def of(
        cls, data: Data, transfers: Sequence[TransferSpec], progress: Progress = silent
    ) -> Images:
        """Of `data`; only what evaluation and `transfers` use is read."""
        guarded = {settings.guarded for settings in transfers}
        ids = {each: data.transfer_id(each, progress) for each in guarded}
        training = 0 if data.train is None else len(data.train)
        return cls(data.eval.identify(progress), ids.get(False, ""), ids.get(True, ""),
                   training, len(data.classes))  # fmt: skip


def other_images(folder: Path, data: Data, spec: DataSpec) -> list[str]:
    """What parts the images from those of earlier rows in `folder`, which were named alike."""
    same: dict[str, object] = {"data": spec.source, "limit": spec.limit}
    drawn = {"fraction": spec.fraction, "subset_seed": spec.seed, "guard_share": spec.guard}
    roles = {
        "evaluation": (data.eval, "models", "eval_data", same),
        "training": (data.train, "transfer", "train_data", {**same, **drawn}),
        "guard's": (data.guard, "transfer", "guard_data", {**same, **drawn}),
    }
    said = []
    for role, (images, table, column, named) in roles.items():
        rows = read([folder], table, [column, "status", *named])
        for name, value in named.items():
            rows = rows[rows[name].isna() if value is None else rows[name] == value]
        earlier = rows[column][rows["status"] == OK].dropna()
        if images is not None and len(earlier) and images.fingerprint not in set(earlier):
            difference = images.difference(earlier.iloc[-1])
            said.append(f"the {role} images are not those of earlier rows ({difference})")
    return said


class Planner:
    """Lists the runs of a sweep against the results in `folder`.

    Args:
        models: the resolved models that exist already (the zoo's are found in `folder`).
        images: of the sweep's data.
        zoo_ids: fingerprints of the training images of each model of the zoo.
        retry_failed: try again what failed MAX_ATTEMPTS times.
    """

    def __init__(
        self,
        spec: SweepSpec,
        folder: Path,
        models: Sequence[Model],
        images: Images,
        zoo_ids: Sequence[str] = (),
        retry_failed: bool = False,
        on_skip: OnSkip | None = None,
    ) -> None:
        assert spec.data is not None
        self.spec, self.folder, self._models = spec, folder, tuple(models)
        self._data: DataSpec = spec.data
        self._images = images
        self._require_students()
        self._zoo_ids, self.retry_failed, self._on_skip = tuple(zoo_ids), retry_failed, on_skip
        self._how = spec.transfer.evaluation
        self._about_pairs = PairsSpec(
            self._how.size, self._how.amp, spec.class_embedding, spec.flips_by_class
        )

    def _require_students(self) -> None:
        named = [model.name for model in self._models] + [entry.name for entry in self.spec.zoo]
        for glob in self.spec.students:
            if not any(fnmatchcase(name, glob) for name in named):
                raise unknown("student", glob, named)

    def stages(self) -> list[Stage]:
        return [self.stage(name) for name in STAGES]

    def stage(self, name: str) -> Stage:
        """The stage as it stands now, by the rows on disk."""
        return getattr(self, f"_{name}")()  # type: ignore[no-any-return]

    def models(self) -> list[Model] | None:
        """All models of the sweep, baselines last; None while the zoo is not trained.

        Models of the zoo whose training failed are left out.
        """
        models = self._trained_models()
        if models is None or self.spec.baseline == "none":
            return models
        return [*models, *random_twins(models)]

    def _trained_models(self) -> list[Model] | None:
        outcomes = Outcomes(self.folder, "pretrain", self._on_skip)
        runs = self._zoo_runs()
        trained = [run for run in runs if self._trained(run, outcomes)]
        if any(not outcomes.failed(run.id) for run in runs if run not in trained):
            return None
        if not trained:
            return list(self._models)
        from kt_cli.zoo import names

        folders = [f"local-dir:{self.folder / run.out}" for run in trained]
        # All at once, so that no two are called the same.
        return names.resolve([*(model.ref for model in self._models), *folders])

    def _zoo_runs(self) -> list[Run]:
        return [
            Run("pretrain", starting_point(entry), data_id, entry, labelled(self._data),
                out=f"zoo/{entry.name}")
            for entry, data_id in zip(self.spec.zoo, self._zoo_ids, strict=True)
        ]  # fmt: skip

    def _trained(self, run: Run, outcomes: Outcomes) -> bool:
        return outcomes.done(run.id) and trained_by(self.folder / run.out) == run.id

    def _pretrain(self) -> Stage:
        outcomes = Outcomes(self.folder, "pretrain", self._on_skip)
        runs = self._zoo_runs()
        done = [run for run in runs if self._trained(run, outcomes)]
        return self._open("pretrain", runs, {run.id for run in done}, outcomes)

    def _predict(self) -> Stage:
        models = self.models()
        if models is None:
            return Stage("predict", len(self._models) + len(self.spec.zoo))
        runs = self._predict_runs(models)
        outcomes = Outcomes(self.folder, "models", self._on_skip)
        return self._open("predict", runs, {r.id for r in runs if outcomes.done(r.id)}, outcomes)

    def _predict_runs(self, models: Sequence[Model]) -> list[Run]:
        return [Run("predict", (m,), self._images.eval_id, self._how, self._data) for m in models]

    def _pairs(self) -> Stage:
        usable = self._usable()
        if usable is None:
            return Stage("pairs", self._pair_total())
        models = tuple(model for model, _ in usable)
        run = Run("pairs", models, self._images.eval_id, self._about_pairs, self._data)
        columns = ["run_id", "status", "attempt", "class_embedding", "by_class"]
        rows = read([self.folder], "complementarity", columns, self._on_skip)
        ids = row_ids(run)
        done = sum(map(set(rows["run_id"][self._as_wanted(rows)]).__contains__, ids))
        attempts = max([0, *rows["attempt"][rows["run_id"] == run.id].astype(int)])
        if done == len(ids):
            return Stage("pairs", len(ids), done, ())
        if attempts >= MAX_ATTEMPTS and not self.retry_failed:
            return Stage("pairs", len(ids), done, (), given_up=1)
        return Stage("pairs", len(ids), done, (replace(run, attempt=attempts + 1),))

    def _as_wanted(self, rows: pd.DataFrame) -> pd.Series[bool]:
        """Finished rows with the similarity of classes and the flips by class asked for now."""
        wanted = self._about_pairs
        return (
            (rows["status"] == OK)
            & rows["class_embedding"].str.startswith(f"{wanted.embedding}:").eq(True)
            & (rows["by_class"].eq(True) | (not wanted.by_class))
        )

    def _transfer(self) -> Stage:
        usable = self._usable()
        if usable is None:
            total = transfer_count(self.spec, len(self._models) + len(self.spec.zoo))
            return Stage("transfer", total)
        trained = [(m, a) for m, a in usable if not m.untrained]
        models, accuracies = [m for m, _ in trained], np.array([a for _, a in trained])
        students = [i for i, m in enumerate(models) if self.spec.is_student(m.name)]
        drawn = draw_pairs(
            accuracies, [m.key for m in models], self.spec.pair_count(len(models), len(students)),
            self.spec.pair_seed, students,
        )  # fmt: skip
        teams: list[tuple[list[int], int]] = []
        if self.spec.teachers:
            teams = draw_teams(drawn, [m.key for m in models], self.spec.team, self.spec.pair_seed)
        groups = [*(([t], s, self.spec.transfers()) for t, s in drawn),
                  *((team, s, team_transfers(self.spec)) for team, s in teams)]  # fmt: skip
        asked = [self._transfer_run([*(models[t] for t in taught_by), models[s]], settings)
                 for taught_by, s, transfers in sorted(groups, key=lambda group: group[1])
                 for settings in transfers]  # fmt: skip
        runs, note = keep_targets(
            asked, self._images.training, self._images.classes, self.spec.target_budget
        )
        outcomes = Outcomes(self.folder, "transfer", self._on_skip)
        done = {r.id for r in runs if outcomes.done(r.id)}
        return replace(self._open("transfer", runs, done, outcomes), note=note)

    def ranks(self) -> dict[tuple[str, str], int]:
        """How early each pair (keys of teacher and student) is drawn; empty before predictions."""
        trained = [(m, a) for m, a in self._usable() or () if not m.untrained]
        keys = [m.key for m, _ in trained]
        students = [i for i, (m, _) in enumerate(trained) if self.spec.is_student(m.name)]
        accuracies = np.array([a for _, a in trained])
        ranked = ranked_pairs(accuracies, keys, self.spec.pair_seed, students)
        return {(keys[t], keys[s]): rank for rank, (t, s) in enumerate(ranked)}

    def _transfer_run(self, models: Sequence[Model], settings: TransferSpec) -> Run:
        images = self._images
        data_id = images.guarded_id if settings.guarded else images.transfer_id
        run = Run("transfer", tuple(models), data_id, settings, self._data)
        return replace(run, out=f"students/{run.id}") if self.spec.save_students else run

    def _usable(self) -> list[tuple[Model, float]] | None:
        """Models with their accuracies, once each has been predicted or has failed."""
        models = self.models()
        if models is None:
            return None
        columns = ["run_id", "status", "accuracy"]
        rows = read([self.folder], "models", columns).set_index("run_id")
        ids = [run.id for run in self._predict_runs(models)]
        if not set(ids) <= set(rows.index):
            return None
        ok = rows["accuracy"][rows["status"] == OK]
        return [(m, float(ok[i])) for m, i in zip(models, ids, strict=True) if i in ok.index]

    def _pair_total(self) -> int:
        count = len(self._models) + len(self.spec.zoo)
        return count * (count - 1)

    def _open(self, name: str, runs: Sequence[Run], done: set[str], outcomes: Outcomes) -> Stage:
        todo, given_up = [], 0
        for run in runs:
            if run.id in done:
                continue
            attempts = outcomes.attempts(run.id)
            if attempts >= MAX_ATTEMPTS and not self.retry_failed:
                given_up += 1
            else:
                todo.append(replace(run, attempt=attempts + 1))
        return Stage(name, len(runs), len(done), tuple(todo), given_up)


def unmeasured(spec: SweepSpec, models: int) -> list[Stage]:
    """The stages of a sweep over `models` and its zoo, where no data is named yet."""
    count = models + len(spec.zoo)
    totals = (len(spec.zoo), count, count * (count - 1), transfer_count(spec, count))
    return [Stage(name, total) for name, total in zip(STAGES, totals, strict=True)]


def labelled(data: DataSpec) -> DataSpec:
    """The images of a sweep as its zoo is trained on them."""
    return replace(data, unlabelled=None)


def starting_point(spec: PretrainSpec) -> tuple[Model, ...]:
    """The model that a training starts from, as part of its identity; none from scratch."""
    if not spec.pretrained:
        return ()
    from kt_cli.zoo import names

    return (names.single(spec.arch),)


def trained_by(folder: Path) -> str | None:
    """The id of the run that saved the model in `folder`; None where there is no such model."""
    try:
        return str(local_models.read_config(folder)["kt"]["run_id"])
    except (DataError, KeyError):
        return None
