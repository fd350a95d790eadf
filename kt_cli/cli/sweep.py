"""`kt sweep [FILE]`: complementarity and transfer over many pairs, resumed where it stopped."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kt_cli.cli import plan_view, progress_view, screen, table_view
from kt_cli.cli.setting_options import Fields, Given, with_settings
from kt_cli.settings import DataSpec, SlurmSpec, SweepSpec, TransferSpec
from kt_cli.settings.shared import CLUSTER

if TYPE_CHECKING:
    from kt_cli.api.sweep import Swept


class Executor(str, Enum):
    auto = "auto"
    slurm = "slurm"
    local = "local"
    inline = "inline"


@with_settings
def sweep(
    what: Annotated[
        Given,
        Fields(
            SweepSpec, ("name", "models", "pairs", "methods", "seeds", "students"), negatable=True
        ),
    ],
    images: Annotated[Given, Fields(DataSpec, ("source", "fraction"), without=("seed", "guard"))],
    how: Annotated[
        Given,
        Fields(
            TransferSpec, ("epochs", "lr"), without=("method", "seed", "teachers"), negatable=True
        ),
    ],
    slurm: Annotated[Given, Fields(SlurmSpec, ("gpus",))],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A sweep file (TOML); flags win over it."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            hidden=True,
            help="Processes at once where there is no GPU; by default one per core.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where sweeps keep their results.")
    ] = Path("results"),
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also try again what failed three times.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    executor: Annotated[
        Executor,
        typer.Option(
            "--executor",
            rich_help_panel=CLUSTER,
            envvar="KT_EXECUTOR",
            help="Who does the work; auto: Slurm where sbatch is, else processes of this machine.",
        ),
    ] = Executor.auto,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach",
            rich_help_panel=CLUSTER,
            hidden=True,
            help="Return when the jobs are submitted.",
        ),
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", hidden=True)] = False,
) -> None:
    """Measure all ordered pairs of many models, and transfer between some of them.

    Every result is a row in Parquet files; running the same sweep again goes on where it stopped.
    """  # fmt: skip
    from kt_cli.api.sweep import sweep as swept

    def show_plan(session: Any, stages: Any) -> None:
        plan_view.show(session, stages, screen.out if dry_run else screen.err, slurm.get("gpus"))

    with progress_view.listener(show_plan) as tell:
        found = swept(
            file, output=output, processes=processes, executor=executor.value, detach=detach,
            follow=follow, retry_failed=retry_failed, dry_run=dry_run, tell=tell,
            **what, **images, **how, **slurm,
        )  # fmt: skip
    if found.finished:
        _show_results(found)
    if found.failures:
        raise typer.Exit(1)


def _show_results(found: Swept) -> None:
    table_view.show_tables(found.results.tables())
    screen.note(f"Results: {found.folder}   (kt report {found.folder} --format latex, for one)")
    if found.failures:
        runs = f"{found.failures} run{'s' * (found.failures > 1)}"
        screen.warn(
            f"{runs} failed; the rows say why. The same command tries again, up to three "
            "times; then --retry-failed does."
        )
