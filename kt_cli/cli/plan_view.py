"""`kt sweep`: its plan on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from kt_cli.cli import screen
from kt_cli.cli.progress_view import duration
from kt_cli.errors import counted, size_text
from kt_cli.progress import label
from kt_cli.settings import HOW_TO_NAME_DATA

if TYPE_CHECKING:
    from kt_cli.sweeps.plan import Stage
    from kt_cli.sweeps.session import Session


def show(session: Session, stages: Sequence[Stage], console: Console) -> None:
    """Print what there is to do, where and at what price."""
    spec, count = session.spec, len(session.names)
    pairs = spec.pair_count(session.names)
    seeds = counted(len(spec.seeds), "seed")
    points = "".join(f" × {len(v)} {key}" for key, v in spec.grid.items())
    teams = f"; teams of {spec.team}: {', '.join(spec.together)}" * bool(spec.together)
    where = spec.data.source if spec.data else f"not named yet. {HOW_TO_NAME_DATA}"
    say = partial(screen.line, console=console)
    say(
        (spec.name, "bold"), f": {counted(count, 'model')}, "
        f"{counted(count * (count - 1), 'ordered pair')}; transfer for {counted(pairs, 'pair')} × "
        f"{', '.join(spec.methods)} × {seeds}{points}{teams}"
    )  # fmt: skip
    guard = spec.data.guard if spec.data else 0
    left_out = f" ({guard:.0%} of the training images are left out: the guard slice)" * bool(guard)
    say(f"data: {where}{left_out}")
    say(f"results: {session.folder}")
    say(f"at once: {_at_once(session)}")
    parts = ("jobs", "GPU-hours") if session.place.facts else ("time, about",)
    rows = [_plan_row(session, stage) for stage in stages if stage.total]
    console.print(screen.table(("stage", "runs", "done", "to do", *parts), rows))
    if spec.data:
        say(f"disk, about: {_disk(session)}")
    for stage in stages:
        if stage.note:
            say(f"targets: {stage.note}")
        if stage.missing:
            say(stage.without)
        if stage.left_out:
            hours = f"{spec.slurm.max_gpu_hours:g} GPU-hours"
            say(f"left out: {counted(stage.left_out, 'transfer')} beyond what fits into {hours}")


def _disk(session: Session) -> str:
    from kt_cli.sweeps.cost_model import bytes_needed
    from kt_cli.zoo.prefetch import plan
    from kt_cli.zoo.weights import JOBS

    parts = bytes_needed(
        session.spec, session.models, session.training_images, len(session.data.eval)
    )
    if session.place.facts:
        parts["weights to fetch"] = plan(session.models, JOBS).bytes
    return ", ".join(f"{what} {size_text(size)}" for what, size in parts.items() if size)


def _at_once(session: Session) -> str:
    if session.place.facts:
        slurm = session.spec.slurm
        cpus = slurm.cpus_per_gpu or session.place.facts.cpus_per_gpu
        gpu = "one GPU and " if session.place.facts.gpus else ""
        each = f"{gpu}{counted(cpus, 'CPU')}"
        return f"{counted(slurm.jobs, 'job')} of {slurm.minutes} min, {each} each"
    if session.place.executor == "inline":
        return "one run, in this process"
    count, first = len(session.slots), session.slots[0]
    if first.gpu is not None:
        return counted(count, "GPU")
    gpus = session.spec.slurm.gpus
    asked = f" (--gpus {gpus}: there is no GPU here)" if gpus else ""
    processes, threads = counted(count, "process", "processes"), counted(first.threads, "thread")
    return f"{processes} on the CPU, {threads} each{asked}"


def _plan_row(session: Session, stage: Stage) -> list[Any]:
    todo = stage.waiting
    runs = 1 if stage.name == "pairs" else todo
    shown = label(stage.name) + (f" ({stage.given_up} given up)" if stage.given_up else "")
    row = [shown, stage.total, stage.done, todo]
    if session.place.facts:
        from kt_cli.sweeps.slurm import tasks

        row.append(tasks(runs, session.spec.slurm, session.place.facts) if todo else 0)
    return [*row, _time(session, stage, runs)]


def _time(session: Session, stage: Stage, runs: int) -> str:
    """Estimated: on a cluster of one GPU, here of all that run at once."""
    if session.spec.data is None:
        return "–"
    seconds = session.seconds(stage)
    if session.place.facts is None:
        each = seconds / max(1, min(runs, session.at_once))
        return duration(max(1, each)) if seconds else "–"
    hours = seconds / 3600
    return "<0.1" if 0 < hours < 0.05 else f"{hours:,.1f}"
