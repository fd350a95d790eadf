"""What is left of a sweep in all: what its plan counted, less the rows on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kt_cli.rows.schema import TABLES
from kt_cli.rows.store import Outcomes
from kt_cli.runs.kinds import KINDS
from kt_cli.settings import SweepSpec
from kt_cli.sweeps.config import team_transfers
from kt_cli.sweeps.monitor import StageView

SLOWEST = 100.0  # times as slow as planned, at most; a first guess is of a GPU
T = TypeVar("T")
Rows = dict[str, dict[str, list[Any]]]
PLAN, MODELS = "plan.json", "models.json"  # beside sweep.toml
KEYS = {"models": ("model_key",), "complementarity": ("teacher_key", "student_key"),
        "transfer": ("student_key",)}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A stage: its runs, those with `ok`, failed and given up ones."""

    name: str
    total: int
    done: int
    failed: int
    given_up: int
    seconds: float  # about, of what is left


class _Planned(NamedTuple):
    """A stage as PLAN has it."""

    name: str
    total: int
    given_up: int
    seconds: float  # about, of a run that was left then
    at_once: int
    done: int
    took: float  # seconds of those that were done then, in all


def plan(
    at_once: int, stages: Mapping[str, tuple[int, float]], pairs: Sequence[tuple[str, str]],
    estimate: float, given_up: Mapping[str, int], rows: Rows,
    done: Mapping[str, tuple[int, float]],
) -> str:  # fmt: skip
    """The text of PLAN: how many runs each stage has, and about how many seconds one takes.

    Args:
        pairs: keys of teacher and student, where not all are transferred.
        estimate: seconds of all runs, as it was when there came to be so many.
        given_up: runs of each stage that only --retry-failed tries again.
        rows: as of `rows_of`. done: as of `done_so_far`.
    """
    said = {"at_once": at_once, "stages": stages, "pairs": pairs, "estimate": estimate,
            "given_up": given_up, "rows": rows, "done": done}  # fmt: skip
    return json.dumps(said, indent=1) + "\n"


def rows_of(spec: SweepSpec, evaluated: str, trained: str = "") -> Rows:
    """What rows of the planned runs have, by table and column, whichever models they are of.

    Args:
        evaluated, trained: fingerprints of the images; of those of transfers if there are any.
    """
    how = spec.transfer.evaluation
    images = {"eval_data": [evaluated], "eval_size": [how.size], "eval_amp": [how.amp]}
    transfers = {**_transfers(spec), **({"train_data": [trained]} if trained else {})}
    return {**dict.fromkeys(KEYS, images), "transfer": {**images, **transfers}}


def _transfers(spec: SweepSpec) -> dict[str, list[Any]]:
    transfers = [*spec.transfers(), *(team_transfers(spec) if spec.together else ())]
    said = {name: sorted({getattr(one, name) for one in transfers})
            for name in ("method", "seed", "settings")}  # fmt: skip
    if spec.transfer.retry_oom:  # a smaller micro-batch is another setting
        del said["settings"]
    return said


def done_so_far(
    folder: Path, stages: Iterable[str], rows: Rows, models: Sequence[str]
) -> dict[str, tuple[int, float]]:
    """Of each stage the planned runs that are done, and the seconds that they took.

    rows: as of `rows_of`. models: the keys of those that are planned.
    """
    found = {}
    for name in stages:
        if KINDS[name].many_rows:  # millions, and nobody asks how long they took
            continue
        table = KINDS[name].table
        its = Outcomes(folder, table, of=_planned(table, rows, models))
        found[name] = its.counts[0], its.took
    return found


def damaged(folder: Path) -> list[str]:
    """The files in a sweep's folder that say what it plans, and cannot be understood."""
    files = [folder / name for name in (PLAN, MODELS)]
    return [str(file) for file in files if file.exists() and _read(file, bool, None) is None]


def planned_rows(folder: Path) -> Rows:
    """By table, what rows of the runs that a sweep plans have; it may once have planned others."""
    keys = _read(folder / MODELS, list, list[str]())
    said = _read(folder / PLAN, lambda said: {t: dict(r) for t, r in said["rows"].items()}, Rows())
    return {table: _planned(table, said, keys) for table in KEYS}


def _planned(table: str, rows: Rows, models: Sequence[str]) -> dict[str, list[Any]]:
    keys = {name: [*models] for name in KEYS.get(table, ()) if models}
    known = rows.get(table, {}).items()
    return {**keys, **{name: values for name, values in known if name in TABLES[table]}}


def taken(outcomes: Callable[[str], Outcomes]) -> float:
    """Seconds of all runs that are done."""
    return sum(outcomes(kind.table).took for kind in KINDS.values() if not kind.many_rows)


def estimate(folder: Path, totals: Mapping[str, int] | None = None) -> float | None:
    """Seconds that all runs were estimated at; None where unknown, or for other `totals`."""

    def of(said: Any) -> float | None:
        known = {name: runs for name, (runs, _) in said["stages"].items()}
        return float(said["estimate"]) if totals in (None, known) else None

    return _read(folder / PLAN, of, None)


def parts(folder: Path, outcomes: Callable[[str], Outcomes]) -> list[Part]:
    """All stages that the sweep in `folder` plans; none where that was not written down.

    outcomes: gives what is known of the rows of a table.
    """

    def of(said: Any) -> list[_Planned]:
        at_once, given_up = int(said["at_once"]), dict(said.get("given_up", {}))
        done = said.get("done", {})
        return [_Planned(name, int(runs), int(given_up.get(name, 0)), float(seconds), at_once,
                         *done.get(name, (0, 0.0)))
                for name, (runs, seconds) in said["stages"].items()
                if runs and name in KINDS]  # fmt: skip

    planned = _read(folder / PLAN, of, list[_Planned]())
    rows = [outcomes(KINDS[stage.name].table) for stage in planned]
    slower = _slower(planned, rows)
    return [_part(stage, its, slower) for stage, its in zip(planned, rows, strict=True)]


def _slower(planned: Sequence[_Planned], rows: Sequence[Outcomes]) -> float:
    """How much longer than planned the stages took that were done since; 1 where none was.

    Whole ones: of a stage that is at work the dearest runs are done first.
    """
    took = thought = 0.0
    for stage, its in zip(planned, rows, strict=True):
        done = its.counts[0]
        since = done - stage.done
        if done >= stage.total and since > 0 and stage.seconds and its.took > stage.took:
            took += its.took - stage.took
            thought += stage.seconds * since
    return min(SLOWEST, max(1 / SLOWEST, took / thought)) if thought else 1.0


def _part(stage: _Planned, rows: Outcomes, slower: float) -> Part:
    ok, failed = rows.counts
    left = stage.total - min(stage.total, ok)
    lost = min(left, stage.given_up)
    seconds = (left - lost) * (rows.seconds or slower * stage.seconds) / stage.at_once
    return Part(stage.name, stage.total, stage.total - left, failed, lost, seconds)


def _read(file: Path, take: Callable[[Any], T], otherwise: T) -> T:
    """What `take` makes of a file's JSON; `otherwise` where it is not there, or of another kind."""
    try:
        return take(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return otherwise


def stages(submitted: Sequence[StageView], planned: Sequence[Part]) -> tuple[StageView, ...]:
    """Those that a cluster has or had, and those that are only planned."""
    names = {stage.name for stage in submitted}
    rest = (StageView(p.name, p.total, p.done, p.failed, 0, 0) for p in planned)
    return *submitted, *(stage for stage in rest if stage.name not in names)
