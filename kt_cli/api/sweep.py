"""Measure all ordered pairs of many models, and transfer between some of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kt_cli.api.results import RESULTS, Results, results
from kt_cli.errors import UsageError, counted
from kt_cli.progress import Listener
from kt_cli.settings import SweepSpec
from kt_cli.settings.values import plain, texts

if TYPE_CHECKING:
    from kt_cli.spec import Model
    from kt_cli.sweeps.plan import Stage
    from kt_cli.sweeps.session import Session


@dataclass(frozen=True)
class Swept:
    """A sweep as it stands.

    Attributes:
        folder: of its results.
        failures: runs without a result.
        given_up: those of them that failed three times, or are about a model that did.
        finished: whether nothing is left to do.
    """

    folder: Path
    failures: int
    given_up: int
    finished: bool

    @property
    def results(self) -> Results:
        """Its rows and tables, as data frames."""
        return results(self.folder)

    @property
    def seconds(self) -> tuple[float | None, float]:
        """Of all its runs, as first planned (None where unknown), and of those that are done."""
        from kt_cli.rows.store import Outcomes
        from kt_cli.sweeps import remaining

        planned = remaining.planned_rows(self.folder)
        took = remaining.taken(lambda name: Outcomes(self.folder, name, of=planned.get(name, {})))
        return remaining.estimate(self.folder), took


def sweep(
    file: Path | str | Mapping[str, Any] | None = None,
    *,
    output: Path | str = RESULTS,
    processes: int | None = None,
    executor: str = "local",
    detach: bool = False,
    follow: bool = False,
    retry_failed: bool = False,
    dry_run: bool = False,
    tell: Listener = Listener(),
    **settings: Any,
) -> Swept:
    """Do a sweep; what is finished is a row in Parquet files, and the same call goes on.

    Args:
        file: a sweep file (TOML), or its tables; `settings` win over it.
        output: where sweeps keep their results.
        processes: at once where there is no GPU.
        executor: "local" processes, "inline" in this one, "slurm", or "auto" as it is there.
        detach: return when the jobs of a cluster are submitted.
        retry_failed: also try again what failed three times.
        dry_run: do nothing; `tell.plan` hears what there is to do.
        settings: as the options of `kt sweep` (docs/settings.md): models=[…], data=…, lr=…

    Raises:
        UsageError: a setting that cannot be. KtError: nothing can be done.
    """
    spec = _asked(file, settings)
    models = _resolved(spec)
    from kt_cli.data.remembered import forget
    from kt_cli.sweeps.place import INLINE, choose
    from kt_cli.sweeps.session import Session
    from kt_cli.sweeps.slots import cuda_devices, slots

    forget()
    place = choose(executor, spec.slurm.partition, processes, detach, follow, dry_run)
    if place.executor == INLINE and spec.timeout_run is not None:
        raise UsageError(
            "--timeout-run needs processes, which can be ended: --executor inline has none",
            "Leave one of them out.",
        )
    folder = Path(output) / spec.name
    place.require_logs(folder)
    most = (1, 1) if place.executor == INLINE else (spec.slurm.gpus, processes)
    session = Session(
        spec, folder.absolute() if place.facts else folder, models, place,
        slots(*most, [] if place.facts else cuda_devices()), retry_failed, tell,
    )  # fmt: skip
    _work(session, dry_run)
    done = session.finished and not dry_run
    return Swept(session.folder, session.failures, session.given_up, done)


def _say_unkept(session: Session, stages: Sequence[Stage]) -> None:
    if not session.spec.save_students:
        return
    kept = sum(1 for _ in (session.folder / "students").glob("*"))
    finished = sum(stage.done for stage in stages if stage.name == "transfer")
    if finished > kept:
        many = counted(finished - kept, "finished transfer")
        session.tell.note(f"{many} kept no student, and are not done again; -o takes a new place.")


def _work(session: Session, dry_run: bool) -> None:
    stages = session.stages()
    session.tell.plan(session, stages)
    session.said = {stage.note for stage in stages}
    _say_unkept(session, stages)
    if dry_run:
        return
    _ = session.planner  # which needs data
    from kt_cli.sweeps import cluster_loop, jobs

    if all(stage.finished for stage in stages):
        session.end()
        if session.place.facts:
            cluster_loop.close(session)
        session.tell.note("Nothing to do: everything is done already.")
        return
    if session.place.facts is None:
        with jobs.claim(session.folder, jobs.LOCAL) as mine:
            if not mine:
                jobs.refuse(session.folder)
            cluster_loop.require_ended(session.folder)
            session.begin(stages)
            session.work()
        return
    if not session.place.following:
        jobs.refuse(session.folder, jobs.LOCAL)
        session.begin(stages)
    session.finished = cluster_loop.coordinate(session)
    if session.finished:
        session.end()


def _asked(file: Path | str | Mapping[str, Any] | None, settings: Mapping[str, Any]) -> SweepSpec:
    from kt_cli.sweeps import config

    tables = plain(file or {}) if isinstance(file, Mapping | None) else config.read_file(Path(file))
    named = texts(settings.get("models"))
    name = Path(file).stem if isinstance(file, (str, Path)) else "-".join(named)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "sweep"
    return config.build(config.with_settings(tables, {**settings, "models": named or None}), name)


def _resolved(spec: SweepSpec) -> list[Model]:
    from kt_cli.zoo import classes, names

    needed = max(0, 2 - len(spec.zoo))
    resolved = names.resolve(spec.models, needed=needed) if spec.models else []
    names.refuse_predictions(resolved, "kt sweep")
    from kt_cli.distillation import methods
    from kt_cli.sweeps import config

    for method in spec.methods:
        methods.find(method)
    if spec.data is None:
        classes.require_common(resolved)
    for entry in spec.zoo:
        names.require_architecture(entry.arch, entry.pretrained)
    if len(resolved) + len(spec.zoo) < 2:
        raise UsageError("a sweep needs at least two models")
    config.require_roles(spec, config.model_names(spec, resolved))
    return resolved
