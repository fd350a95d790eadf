"""How far a sweep is: rows on disk, and one question to the cluster."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kt_cli.rows.store import OnSkip, Outcomes
from kt_cli.runs.kinds import KINDS, kind_of
from kt_cli.spec import Run
from kt_cli.sweeps import cluster, jobs
from kt_cli.sweeps.jobs import CANCELLED, OPEN, Submitted, log_of
from kt_cli.sweeps.schedule import read_manifest
from kt_cli.sweeps.worker_log import last_line


@dataclass(frozen=True)
class StageView:
    """One stage that was submitted. queued, running: jobs; done, failed: rows of `total` runs."""

    name: str
    total: int
    done: int
    failed: int
    queued: int
    running: int


@dataclass(frozen=True)
class View:
    """A sweep as it stands."""

    stages: tuple[StageView, ...]  # those that were submitted, in their order
    active: bool | None  # jobs are queued or running; None where the cluster does not say
    going_on: bool  # the job that goes on after the array is among them
    cancelled: bool  # the jobs submitted last were cancelled
    rate: float  # runs a second of the last stage since it was first seen
    left: float | None  # seconds to its end; None where unknown
    cut_off: Mapping[str, int]  # tasks of these jobs that did not end by themselves, by how
    error: str  # the last error that a row or a log tells


class Watch:
    """Looks at the sweep in `folder` again and again; each look reads only what is new."""

    def __init__(
        self, folder: Path, on_skip: OnSkip | None = None,
        of: Mapping[str, Mapping[str, Sequence[Any]]] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        """of: by table what rows that are counted have, as `Outcomes` takes it."""
        self._folder, self._on_skip, self._of = folder, on_skip, of
        self._rows: dict[str, Outcomes] = {}
        self._ids: dict[str, list[str]] = {}
        self._first = ("", 0.0, 0)

    def look(self) -> View:
        """The sweep now, at the price of one call of squeue (else sacct)."""
        listed = jobs.listed(self._folder)
        waiting = [submitted for submitted in listed if submitted.state == OPEN]
        known = [job for submitted in waiting for job in submitted.jobs]
        states = cluster.active(known, {s.user for s in waiting}) if known else {}
        for rows in self._rows.values():
            rows.refresh()
        stages = tuple(
            self._stage(name, [s for s in listed if s.stage == name], states or {})
            for name in dict.fromkeys(submitted.stage for submitted in listed)
        )
        rate, left = self._pace(stages[-1]) if stages else (0.0, None)
        return View(
            stages, None if states is None else bool(states),
            going_on=any(s.continuation in (states or {}) for s in waiting),
            cancelled=bool(listed) and listed[-1].state == CANCELLED,
            rate=rate, left=left, error=self._last_error(listed),
            cut_off=self._cut_off(listed[-1]) if listed and states == {} else {},
        )  # fmt: skip

    def outcomes(self, table: str) -> Outcomes:
        """The rows of a table as of the last look."""
        if table not in self._rows:
            of = self._of.get(table, {})
            self._rows[table] = Outcomes(self._folder, table, self._on_skip, of=of)
        return self._rows[table]

    def _stage(self, name: str, listed: Sequence[Submitted], states: cluster.States) -> StageView:
        rows = self.outcomes(listed[0].table)
        ids = {i for submitted in listed for i in self._row_ids(submitted)}
        failed = {run for submitted in listed for run in self._failed(submitted)}
        tasks = [state for s in listed for state in states.get(s.job, {}).values()]
        running = sum(state in cluster.RUNNING for state in tasks)
        done = sum(map(rows.done, ids))
        return StageView(name, len(ids), done, len(failed), len(tasks) - running, running)

    def _row_ids(self, submitted: Submitted) -> list[str]:
        if submitted.manifest not in self._ids:
            runs = self._read(submitted)
            self._ids[submitted.manifest] = [i for run in runs for i in kind_of(run).row_ids(run)]
        return self._ids[submitted.manifest]

    def _failed(self, submitted: Submitted) -> list[str]:
        rows, ids = self.outcomes(submitted.table), self._row_ids(submitted)
        if KINDS[submitted.stage].many_rows:
            ids = [run.id for run in self._read(submitted)] if rows.by_id else []
        return [i for i in ids if rows.failed(i)]

    def _read(self, submitted: Submitted) -> list[Run]:
        try:
            return read_manifest(self._folder / submitted.manifest)
        except OSError:
            return []

    def _pace(self, stage: StageView) -> tuple[float, float | None]:
        """Of the stage that was submitted last: others have runs of another size."""
        now, ended = time.monotonic(), stage.done + stage.failed
        if self._first[0] != stage.name:
            self._first = stage.name, now, ended
        _, since, before = self._first
        rate = (ended - before) / (now - since) if now > since else 0.0
        return rate, (stage.total - ended) / rate if rate > 0 else None

    def _cut_off(self, last: Submitted) -> Mapping[str, int]:
        logs = (log_of(self._folder, last, task, "err") for task in range(last.tasks))
        found = Counter(cluster.cut_off(last_line(log)) for log in logs)
        del found[""]
        return found

    def _last_error(self, listed: Sequence[Submitted]) -> str:
        """Of the stage submitted last: what the last of its failed runs says."""
        for submitted in reversed(listed):
            failed = self._failed(submitted)
            if failed:
                return self.outcomes(submitted.table).by_id[failed[-1]].error or ""
        return ""
