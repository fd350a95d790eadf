"""What is left of a sweep in all: what its plan counted, less the rows on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kt_cli.rows import store
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


def plan(at_once: int, stages: Mapping[str, tuple[int, float]]) -> str:
    """The text of PLAN: how many runs each stage has, and about how many seconds one takes."""
    return json.dumps({"at_once": at_once, "stages": stages}, indent=1) + "\n"


def parts(folder: Path, on_skip: store.OnSkip | None = None) -> list[Part]:
    """All stages that the sweep in `folder` plans; none where that was not written down."""
    try:
        said = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        stages = {n: (int(r), float(s)) for n, (r, s) in said["stages"].items() if r and n in KINDS}
        at_once = int(said["at_once"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []
    return [_part(folder, n, r, s / at_once, at_once, on_skip) for n, (r, s) in stages.items()]


def _part(
    folder: Path, name: str, total: int, seconds: float, at_once: int, on_skip: store.OnSkip | None
) -> Part:
    """seconds: as planned, where no row says what a run takes."""
    rows = store.read([folder], KINDS[name].table, ["status", "seconds"], on_skip)
    ok = rows["status"] == store.OK
    done, took = min(total, int(ok.sum())), rows["seconds"][ok & (rows["seconds"] > 0)]
    each = float(took.mean()) / at_once if len(took) else seconds
    return Part(name, total, done, int((~ok).sum()), (total - done) * each)


def stages(submitted: Sequence[StageView], planned: Sequence[Part]) -> tuple[StageView, ...]:
    """Those that a cluster has or had, and those that are only planned."""
    names = {stage.name for stage in submitted}
    rest = (StageView(p.name, p.total, p.done, p.failed, 0, 0) for p in planned)
    return *submitted, *(stage for stage in rest if stage.name not in names)
