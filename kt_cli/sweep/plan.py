"""Names -> runs, minus what is done. Plans stage by stage and executes nothing.

pretrain (zoos that are trained here) -> predict (each model once) -> pairs (statistics of all
ordered pairs) -> transfer (drawn pairs × methods × seeds). A stage can be listed once the one
before it is done: training decides what a model is, predictions decide which pairs are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kt_cli.errors import DataError
from kt_cli.spec import DataSpec, Model, PairsSpec, PretrainSpec, Run, digest
from kt_cli.store import OK, OnSkip, Outcomes, read
from kt_cli.sweep.config import SweepSpec
from kt_cli.zoo import own
from kt_cli.zoo.baseline import random_twins

if TYPE_CHECKING:
    import pandas as pd

STAGES = ("pretrain", "predict", "pairs", "transfer")
MAX_ATTEMPTS = 3
BINS = 20


@dataclass(frozen=True)
class Stage:
    """One stage of a plan.

    total, done: runs in all, and finished ones (ordered pairs for "pairs").
    todo: the runs to do now; None where they depend on an earlier stage.
    given_up: runs that failed MAX_ATTEMPTS times.
    """

    name: str
    total: int
    done: int = 0
    todo: tuple[Run, ...] | None = None
    given_up: int = 0

    @property
    def finished(self) -> bool:
        return self.todo is not None and not self.todo


class Planner:
    """Lists the runs of a sweep against the results in `folder`.

    Args:
        models: the resolved models that exist already (the zoo's are found in `folder`).
        data_ids: fingerprints of the evaluation images, and of all that a transfer reads.
        zoo_ids: fingerprints of the training images of each model of the zoo.
        retry_failed: try again what failed MAX_ATTEMPTS times.
    """

    def __init__(
        self,
        spec: SweepSpec,
        folder: Path,
        models: Sequence[Model],
        data_ids: tuple[str, str],
        zoo_ids: Sequence[str] = (),
        retry_failed: bool = False,
        on_skip: OnSkip | None = None,
    ) -> None:
        assert spec.data is not None
        self.spec, self.folder, self._models = spec, folder, tuple(models)
        self._data: DataSpec = spec.data
        self._eval_id, self._transfer_id = data_ids
        self._zoo_ids, self._retry, self._on_skip = tuple(zoo_ids), retry_failed, on_skip
        self._how = spec.transfer.evaluation
        self._about_pairs = PairsSpec(
            self._how.size, self._how.amp, spec.class_embedding, spec.flips_by_class
        )

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
            Run("pretrain", starting_point(entry), data_id, entry, self._data,
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
        return [Run("predict", (m,), self._eval_id, self._how, self._data) for m in models]

    def _pairs(self) -> Stage:
        usable = self._usable()
        if usable is None:
            return Stage("pairs", self._pair_total())
        models = tuple(model for model, _ in usable)
        run = Run("pairs", models, self._eval_id, self._about_pairs, self._data)
        columns = ["run_id", "status", "attempt", "class_embedding", "by_class"]
        rows = read([self.folder], "complementarity", columns, self._on_skip)
        ids = run.row_ids()
        done = sum(map(set(rows["run_id"][self._as_wanted(rows)]).__contains__, ids))
        attempts = max([0, *rows["attempt"][rows["run_id"] == run.id].astype(int)])
        if done == len(ids):
            return Stage("pairs", len(ids), done, ())
        if attempts >= MAX_ATTEMPTS and not self._retry:
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
        total = self.spec.pair_count(len(self._models) + len(self.spec.zoo))
        repeats = len(self.spec.methods) * len(self.spec.seeds)
        if usable is None:
            return Stage("transfer", total * repeats)
        trained = [(m, a) for m, a in usable if not m.untrained]
        models, accuracies = [m for m, _ in trained], np.array([a for _, a in trained])
        count = self.spec.pair_count(len(models))
        drawn = draw_pairs(accuracies, [m.key for m in models], count, self.spec.pair_seed)
        runs = [self._transfer_run(models[t], models[s], method, seed)
                for t, s in drawn
                for method in self.spec.methods
                for seed in self.spec.seeds]  # fmt: skip
        outcomes = Outcomes(self.folder, "transfer", self._on_skip)
        return self._open("transfer", runs, {r.id for r in runs if outcomes.done(r.id)}, outcomes)

    def _transfer_run(self, teacher: Model, student: Model, method: str, seed: int) -> Run:
        settings = replace(self.spec.transfer, method=method, seed=seed)
        run = Run("transfer", (teacher, student), self._transfer_id, settings, self._data)
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
            if attempts >= MAX_ATTEMPTS and not self._retry:
                given_up += 1
            else:
                todo.append(replace(run, attempt=attempts + 1))
        return Stage(name, len(runs), len(done), tuple(todo), given_up)


def unmeasured(spec: SweepSpec, models: int) -> list[Stage]:
    """The stages of a sweep over `models` and its zoo, where no data is named yet."""
    count = models + len(spec.zoo)
    transfers = spec.pair_count(count) * len(spec.methods) * len(spec.seeds)
    totals = (len(spec.zoo), count, count * (count - 1), transfers)
    return [Stage(name, total) for name, total in zip(STAGES, totals, strict=True)]


def starting_point(spec: PretrainSpec) -> tuple[Model, ...]:
    """The model that a training starts from, as part of its identity; none from scratch."""
    if not spec.pretrained:
        return ()
    from kt_cli.zoo import names

    return (names.single(spec.arch),)


def draw_pairs(
    accuracies: NDArray[np.float64], keys: Sequence[str], count: int, seed: int
) -> list[tuple[int, int]]:
    """Ordered pairs (teacher, student), drawn evenly over the range of accuracy differences.

    The differences teacher − student are cut into equal-width bins, and the bins are emptied in
    turn, each in an order of its own, until `count` pairs are drawn. What is drawn depends on
    the models and the seed, not on the order in which they are named. Pairs come sorted by
    student, then teacher, so that what they share is computed once.

    Args:
        accuracies: (M,) in percent. keys: the M models' identities.
        count: at most M (M − 1).
    """
    teacher, student = np.nonzero(~np.eye(len(keys), dtype=bool))
    difference = accuracies[teacher] - accuracies[student]
    low, high = difference.min(initial=0), difference.max(initial=0)
    bins = np.minimum(BINS - 1, (BINS * (difference - low) / max(high - low, 1e-9)).astype(int))
    order = np.lexsort((_lots(keys, seed)[teacher, student], bins))
    turn = np.arange(len(bins)) - np.searchsorted(bins[order], bins[order])
    bin_lots = np.random.default_rng(seed).random(BINS)
    drawn = order[np.lexsort((bin_lots[bins[order]], turn))[:count]]
    return sorted(zip(teacher[drawn].tolist(), student[drawn].tolist(), strict=True),
                  key=lambda pair: (pair[1], pair[0]))  # fmt: skip


def _lots(keys: Sequence[str], seed: int) -> NDArray[np.uint64]:
    """A random number for each ordered pair [t, s], from the two models' keys and the seed."""
    one, other = (
        np.array([int(digest([role, seed, key])[:16], 16) for key in keys], np.uint64)
        for role in ("teacher", "student")
    )
    mixed = one[:, None] + other[None]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # SplitMix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def trained_by(folder: Path) -> str | None:
    """The id of the run that saved the model in `folder`; None where there is no such model."""
    try:
        return str(own.read_config(folder)["kt"]["run_id"])
    except (DataError, KeyError):
        return None
