"""Options of `kt sweep` for a cluster, under Slurm's own names."""

from __future__ import annotations

from typing import Annotated

import typer

from kt_cli.cli.leading import Executor

PANEL = "On a cluster"
ExecutorOption = Annotated[
    Executor,
    typer.Option(
        "--executor", rich_help_panel=PANEL, envvar="KT_EXECUTOR",
        help="Who does the work; auto: Slurm where sbatch is, else processes of this machine.",
    ),
]  # fmt: skip
Detach = Annotated[
    bool,
    typer.Option("--detach", rich_help_panel=PANEL, help="Return when the jobs are submitted."),
]
Follow = Annotated[bool, typer.Option("--follow", hidden=True)]
Partition = Annotated[str | None, typer.Option(rich_help_panel=PANEL, help="Of the jobs.")]
Account = Annotated[str | None, typer.Option(rich_help_panel=PANEL, help="That pays for them.")]
Qos = Annotated[str | None, typer.Option(rich_help_panel=PANEL, help="Quality of service.")]
Constraint = Annotated[
    str | None, typer.Option(rich_help_panel=PANEL, help="Features that their nodes must have.")
]
Time = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=PANEL,
        help="Limit of a job, minutes or D-HH:MM:SS; one that is cut off goes on. By default 240.",
    ),
]
Mem = Annotated[str | None, typer.Option(rich_help_panel=PANEL, help="Memory of a job: 32G.")]
CpusPerGpu = Annotated[
    int | None,
    typer.Option(rich_help_panel=PANEL, help="CPUs of a job; by default a GPU's share of a node."),
]
Setup = Annotated[
    list[str] | None,
    typer.Option(rich_help_panel=PANEL, help="Shell command that a job runs first. May repeat."),
]
SrunArg = Annotated[
    list[str] | None,
    typer.Option("--srun-arg", rich_help_panel=PANEL, help="Argument of srun. May repeat."),
]
Wckey = Annotated[str | None, typer.Option(rich_help_panel=PANEL, help="Workload key.")]
MaxGpuHours = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=PANEL,
        help="GPU-hours of the whole sweep; transfers that do not fit are left out, best-spread "
        "pairs stay.",
    ),
]
