"""`kt sweep [FILE]`: complementarity and transfer over many pairs, resumed where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kt_cli.cli import options, plan_view, progress_view, screen, table_view
from kt_cli.cli.options import choice, flag, option
from kt_cli.cli.setting_options import Fields, Given, with_settings
from kt_cli.errors import command, counted
from kt_cli.settings import DataSpec, SlurmSpec, SweepSpec, TransferSpec
from kt_cli.settings.shared import CLUSTER, COMPUTATION, OUTPUT

if TYPE_CHECKING:
    from kt_cli.api.sweep import Swept

EXECUTORS = ("auto", "slurm", "local", "inline")
FIRST = ("name", "models", "pairs", "methods", "seeds", "students", "teachers")
REPLACED = ("method", "seed", "together")  # in each transfer, by what the sweep says


@with_settings
def sweep(
    what: Annotated[Given, Fields(SweepSpec, FIRST, negatable=True)],
    images: Annotated[Given, Fields(DataSpec, ("source", "fraction"), without=("seed", "guard"))],
    how: Annotated[
        Given, Fields(TransferSpec, ("epochs", "lr"), without=REPLACED, negatable=True)
    ],
    slurm: Annotated[Given, Fields(SlurmSpec, ("gpus",))],
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A sweep file (TOML); flags win over it.")
    ] = None,
    amp: options.Amp = None,
    amp_dtype: options.AmpType = None,
    device: options.Device = None,
    tf32: options.Tf32 = None,
    processes: Annotated[
        int | None,
        option(min=1, metavar="N", hidden=True, panel=COMPUTATION,
               help="Processes at once where there is no GPU; by default one per core."),
    ] = None,
    output: options.Results = Path("results"),
    retry_failed: Annotated[
        bool, flag("--retry-failed", "Also try again what failed three times.", OUTPUT)
    ] = False,
    dry_run: Annotated[bool, flag("--dry-run", "Print the plan and stop.", OUTPUT)] = False,
    executor: Annotated[
        str,
        choice("--executor", EXECUTORS, panel=CLUSTER, envvar="KT_EXECUTOR",
               help="Who does the work; auto: Slurm where sbatch is, else processes of this "
               "machine."),
    ] = EXECUTORS[0],
    detach: Annotated[
        bool, flag("--detach", "Return when the jobs are submitted.", CLUSTER, hidden=True)
    ] = False,
    follow: Annotated[bool, flag("--follow", "", hidden=True)] = False,
) -> None:  # fmt: skip
    """Measure all ordered pairs of many models, and transfer between some of them.

    Every result is a row in Parquet files; running the same sweep again goes on where it stopped.
    """
    from kt_cli.api.sweep import sweep as swept
    from kt_cli.sweeps import place

    elsewhere = place.chosen(executor, processes) == place.SLURM
    how["amp"] = options.precision(amp, amp_dtype, elsewhere, apart=True)

    def show_plan(session: Any, stages: Any) -> None:
        plan_view.show(session, stages, screen.out if dry_run else screen.err)

    with progress_view.listener(show_plan) as tell:
        found = swept(
            file, output=output, processes=processes, executor=executor, detach=detach,
            follow=follow, retry_failed=retry_failed, dry_run=dry_run, tell=tell,
            **what, **images, **how, **slurm,
        )  # fmt: skip
    if found.finished:
        _show_results(found)
    if found.failures:
        raise typer.Exit(1)


def _show_results(found: Swept) -> None:
    table_view.draw(found.results.tables())
    again = command("report", found.folder, "--format", "latex")
    if told := progress_view.outcome(*found.seconds):
        screen.note(f"{told[0].upper()}{told[1:]}.")
    screen.note(f"Results: {found.folder}   ({again}, for one)")
    if found.failures:
        runs = counted(found.failures, "run")
        again = "The same command tries again, up to three times; then --retry-failed does."
        if found.given_up == found.failures:
            again = "Given up after three attempts: --retry-failed tries again."
        screen.warn(f"{runs} failed; the rows say why. {again}")
