"""`kt status [SWEEP]`: how far a sweep is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from kt_cli.cli import options, progress_view, screen
from kt_cli.errors import UsageError, command, near, unknown


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
    from kt_cli.sweeps.monitor import Watch

    view = Watch(folder, screen.skipped_part).look()
    screen.line((folder.name, "bold"), f": {folder}")
    if not view.stages:  # it was never on a cluster
        rows = [(name, *count.values()) for name, count in _rows(folder).items()]
        screen.out.print(screen.table(("table", "done", "failed"), rows))
        return
    screen.out.print(progress_view.render(view), soft_wrap=True)
    if view.active is False:
        again = command("sweep", folder / "sweep.toml", "-o", folder.parent)
        left = sum(stage.total - stage.done for stage in view.stages)
        why = "were cancelled" if view.cancelled else f"have ended, {left:,} runs are left"
        if left:
            screen.line(f"the jobs {why}; {again} goes on")
        else:
            screen.line(f"all is done that was submitted; {again} shows the tables, or goes on")
    elif view.active and not view.going_on:
        screen.line("no job will go on when these have ended: run kt sweep again then")


def _rows(folder: Path) -> dict[str, dict[str, int]]:
    """By table that has some: runs that are done, and runs that failed."""
    from kt_cli.rows import schema, store

    counts = {}
    for name in schema.TABLES:
        found = store.Outcomes(folder, name, screen.skipped_part).by_id
        done = sum(outcome.status == store.OK for outcome in found.values())
        if found:
            counts[name] = {"done": done, "failed": len(found) - done}
    return counts


def _described(folder: Path) -> dict[str, Any]:
    from kt_cli.sweeps.monitor import Watch

    view = asdict(Watch(folder, screen.skipped_part).look())
    told = {key: view[key] for key in ("stages", "active", "going_on", "cancelled", "error")}
    return {"sweep": folder.name, "folder": str(folder), "rows": _rows(folder), **told}
