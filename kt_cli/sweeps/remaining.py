"""What is left of a sweep in all: what its plan counted, less the rows on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kt_cli.rows.schema import TABLES
from kt_cli.rows.store import Outcomes
from kt_cli.runs.kinds import KINDS
from kt_cli.settings import SweepSpec
from kt_cli.sweeps.config import team_transfers
from kt_cli.sweeps.monitor import StageView

PLAN = "plan.json"  # beside sweep.toml


@dataclass(frozen=True)
class Part:
    """A stage: its runs, those with `ok`, failed and given up ones.

    seconds: about, of what is left.
    """

    name: str
    total: int
    done: int
    failed: int
    given_up: int
    seconds: float


def plan(
    at_once: int, stages: Mapping[str, tuple[int, float]], pairs: Sequence[tuple[str, str]],
    estimate: float, given_up: Mapping[str, int], rows: Mapping[str, Mapping[str, Sequence[Any]]],
) -> str:  # fmt: skip
    """The text of PLAN: how many runs each stage has, and about how many seconds one takes.

    Args:
        pairs: keys of teacher and student, where not all are transferred.
        estimate: seconds of all runs, as it was when there came to be so many.
        given_up: runs of each stage that only --retry-failed tries again.
        rows: by table, what rows of the planned runs have in some columns.
    """
    said = {"at_once": at_once, "stages": stages, "pairs": pairs, "estimate": estimate,
            "given_up": given_up, "rows": rows}  # fmt: skip
    return json.dumps(said, indent=1) + "\n"


def taken(outcomes: Callable[[str], Outcomes]) -> float:
    """Seconds of all runs that are done."""
    return sum(outcomes(kind.table).took for kind in KINDS.values() if not kind.many_rows)


def estimate(folder: Path, totals: Mapping[str, int] | None = None) -> float | None:
    """Seconds that all runs were estimated at; None where unknown, or for other `totals`."""
    try:
        said = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        known = {name: runs for name, (runs, _) in said["stages"].items()}
        return float(said["estimate"]) if totals in (None, known) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def planned_rows(spec: SweepSpec, keys: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """By table, what rows of the planned runs have; keys: of all models, none while unknown."""
    transfers = [*spec.transfers(), *(team_transfers(spec) if spec.together else ())]
    said = {name: sorted({getattr(one, name) for one in transfers})
            for name in ("method", "seed", "settings")}  # fmt: skip
    if spec.transfer.retry_oom:  # a smaller micro-batch is another setting
        del said["settings"]
    about = {"models": ["model_key"], "complementarity": ["teacher_key", "student_key"],
             "transfer": ["student_key"]}  # fmt: skip
    known = {table: {name: list(keys) for name in names if keys} for table, names in about.items()}
    return {**known, "transfer": {**known["transfer"], **said}}


def rows_of(folder: Path, table: str) -> dict[str, list[Any]]:
    """What rows of the runs that a sweep plans have, by column; of others it once had more."""
    try:
        found = json.loads((folder / PLAN).read_text(encoding="utf-8"))["rows"].get(table, {})
        return {name: list(values) for name, values in found.items() if name in TABLES[table]}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def parts(folder: Path, outcomes: Callable[[str], Outcomes]) -> list[Part]:
    """All stages that the sweep in `folder` plans; none where that was not written down.

    outcomes: gives what is known of the rows of a table.
    """
    try:
        said = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        stages = {n: (int(r), float(s)) for n, (r, s) in said["stages"].items() if r and n in KINDS}
        at_once, given_up = int(said["at_once"]), dict(said.get("given_up", {}))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []
    found = []
    for name, (total, planned) in stages.items():
        rows = outcomes(KINDS[name].table)
        ok, failed = rows.counts
        left = total - min(total, ok)
        lost = min(left, int(given_up.get(name, 0)))
        seconds = (left - lost) * (rows.seconds or planned) / at_once
        found.append(Part(name, total, total - left, failed, lost, seconds))
    return found


def stages(submitted: Sequence[StageView], planned: Sequence[Part]) -> tuple[StageView, ...]:
    """Those that a cluster has or had, and those that are only planned."""
    names = {stage.name for stage in submitted}
    rest = (StageView(p.name, p.total, p.done, p.failed, 0, 0) for p in planned)
    return *submitted, *(stage for stage in rest if stage.name not in names)
