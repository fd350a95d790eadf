"""What is left of a sweep in all: what its plan counted, less the rows on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kt_cli.rows.store import Outcomes
from kt_cli.runs.kinds import KINDS
from kt_cli.sweeps.monitor import StageView

PLAN = "plan.json"  # beside sweep.toml


@dataclass(frozen=True)
class Part:
    """A stage: its runs, those with `ok` and failed ones; seconds: about, of what is left."""

    name: str
    total: int
    done: int
    failed: int
    seconds: float


def plan(
    at_once: int, stages: Mapping[str, tuple[int, float]], pairs: Sequence[tuple[str, str]],
    estimate: float,
) -> str:  # fmt: skip
    """The text of PLAN: how many runs each stage has, and about how many seconds one takes.

    Args:
        pairs: keys of teacher and student, where not all are transferred.
        estimate: seconds of all runs, as it was when there came to be so many.
    """
    said = {"at_once": at_once, "stages": stages, "pairs": pairs, "estimate": estimate}
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


def parts(folder: Path, outcomes: Callable[[str], Outcomes]) -> list[Part]:
    """All stages that the sweep in `folder` plans; none where that was not written down.

    outcomes: gives what is known of the rows of a table.
    """
    try:
        said = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        stages = {n: (int(r), float(s)) for n, (r, s) in said["stages"].items() if r and n in KINDS}
        at_once = int(said["at_once"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []
    return [_part(n, r, s, at_once, outcomes(KINDS[n].table)) for n, (r, s) in stages.items()]


def _part(name: str, total: int, seconds: float, at_once: int, rows: Outcomes) -> Part:
    """seconds: as planned, where no row says what a run takes."""
    ok, failed = rows.counts
    done = min(total, ok)
    return Part(name, total, done, failed, (total - done) * (rows.seconds or seconds) / at_once)


def stages(submitted: Sequence[StageView], planned: Sequence[Part]) -> tuple[StageView, ...]:
    """Those that a cluster has or had, and those that are only planned."""
    names = {stage.name for stage in submitted}
    rest = (StageView(p.name, p.total, p.done, p.failed, 0, 0) for p in planned)
    return *submitted, *(stage for stage in rest if stage.name not in names)
