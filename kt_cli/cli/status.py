"""`kt status [SWEEP]`: how far a sweep is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kt_cli.cli import options, progress_view, screen
from kt_cli.errors import UsageError, command, counted, near, unknown

if TYPE_CHECKING:
    from kt_cli.sweeps.monitor import StageView, View, Watch
    from kt_cli.sweeps.remaining import Part


def status(
    name: Annotated[
        str | None, typer.Argument(metavar="SWEEP", help="Its name; by default all.")
    ] = None,
    output: options.Results = Path("results"),
    as_json: options.Json = False,
) -> None:
    """Show how far sweeps are: rows on disk, and the jobs of a cluster."""
    folders = [find(name, output)] if name else _sweeps(output)
    with screen.progress():
        import kt_cli.sweeps.monitor  # noqa: F401
    if as_json:
        screen.show_json([_described(folder) for folder in folders])
        return
    for folder in folders:
        _show(folder)
        _warn_of_damage(folder)


def _warn_of_damage(folder: Path) -> None:
    from kt_cli.sweeps import remaining

    for file in remaining.damaged(folder):
        screen.warn(f"{file} is damaged: what is left cannot be told. The sweep writes it again.")


def find(name: str, output: Path) -> Path:
    """The folder of a sweep, by its name or path.

    Raises:
        UnknownName: there is none.
    """
    for folder in (output / name, Path(name)):
        if (folder / "sweep.toml").exists():
            return folder.absolute()
    valid = [folder.name for folder in _sweeps(output)]
    raise unknown("sweep", name, valid, f"Looked in {output}.")


def _sweeps(output: Path) -> list[Path]:
    found = sorted(file.parent.absolute() for file in output.glob("*/sweep.toml"))
    if not found:
        tip = "-o names another folder."
        raise UsageError(f"no sweep has results in {output}", near(output, tip))
    return found


def _show(folder: Path) -> None:
    from kt_cli.sweeps import remaining
    from kt_cli.sweeps.monitor import Watch

    watch = Watch(folder, screen.skipped_part, remaining.planned_rows(folder))
    view, parts = watch.look(), remaining.parts(folder, watch.outcomes)
    screen.line((folder.name, "bold"), f": {folder}")
    if not view.stages and not parts:  # of an earlier version
        rows = [(name, *count.values()) for name, count in _rows(watch).items()]
        screen.out.print(screen.table(("table", "done", "failed"), rows))
        return
    stages = remaining.stages(view.stages, parts)
    screen.out.print(progress_view.render(replace(view, stages=stages)), soft_wrap=True)
    screen.line(_outlook(folder, view, stages, parts), whole=True)
    took = remaining.taken(watch.outcomes)
    if told := progress_view.outcome(remaining.estimate(folder), took):
        left = any(part.done + part.given_up < part.total for part in parts)
        screen.line(told + " so far" * left)


def _outlook(folder: Path, view: View, stages: Sequence[StageView], parts: Sequence[Part]) -> str:
    from kt_cli.sweeps import jobs

    lost = sum(part.given_up for part in parts)
    left = sum(stage.total - stage.done for stage in stages) - lost
    seconds = sum(part.seconds for part in parts)
    about = f", about {progress_view.duration(seconds)}" * bool(seconds)
    said = f"{counted(left, 'run')} left{about}"
    here = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    again = command("sweep", here / "sweep.toml", "-o", here.parent)
    if led := jobs.leader(folder):
        return f"{said}; at work: {led}"
    if view.active is None or view.going_on:
        return said
    if view.active:
        return f"{said}; no job will go on when these have ended: run {again} then"
    if left <= 0 and lost:
        return (
            f"{counted(lost, 'run')} given up, the others done; {again} --retry-failed tries again"
        )
    if left <= 0:
        return f"all is done; {again} shows the tables"
    why = f"the jobs {'were cancelled' if view.cancelled else 'have ended'}, " * bool(view.stages)
    return f"{why}{said}; {again} goes on"


def _rows(watch: Watch) -> dict[str, dict[str, int]]:
    """By table that has some: runs that are done, and runs that failed."""
    from kt_cli.rows import schema

    counts = {name: watch.outcomes(name).counts for name in schema.TABLES}
    return {n: {"done": ok, "failed": failed} for n, (ok, failed) in counts.items() if ok + failed}


def _described(folder: Path) -> dict[str, Any]:
    from kt_cli.sweeps import jobs, remaining
    from kt_cli.sweeps.monitor import Watch

    _warn_of_damage(folder)
    watch = Watch(folder, screen.skipped_part, remaining.planned_rows(folder))
    view, led = asdict(watch.look()), jobs.leader(folder)
    if led is not None:
        view["active"] = True
    told = {key: view[key] for key in ("stages", "active", "going_on", "cancelled", "error")}
    planned = [asdict(part) for part in remaining.parts(folder, watch.outcomes)]
    rows = _rows(watch)
    seconds = {"estimated": remaining.estimate(folder), "taken": remaining.taken(watch.outcomes)}
    return {"sweep": folder.name, "folder": str(folder), "rows": rows, "planned": planned,
            "seconds": seconds, "leader": led and led._asdict(), **told}  # fmt: skip
