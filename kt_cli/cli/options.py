"""Options that several commands share beside their settings, under timm's names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kt_cli.errors import UsageError, unknown
from kt_cli.settings.shared import AMP, TRAINING

Workers = Annotated[
    int | None,
    typer.Option(
        "-j", "--workers", min=0, hidden=True, help="Decoding processes; by default as they pay."
    ),
]
EvalBatch = Annotated[
    int | None,
    typer.Option("-b", "--batch-size", min=1, help="Images per forward pass; by default 128."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Amp = Annotated[bool, typer.Option("--amp", rich_help_panel=TRAINING, help="Mixed precision.")]
AmpType = Annotated[
    str | None,
    typer.Option(
        "--amp-dtype",
        rich_help_panel=TRAINING,
        hidden=True,
        help="float16 (default on a GPU) or bfloat16 (default on the CPU).",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a model that kt saved there before.")
]
Output = Annotated[
    Path, typer.Option("-o", "--output", help="Folder that receives one folder per model.")
]


def precision(amp: bool, dtype: str | None) -> str | None:
    """The type of mixed precision that --amp and --amp-dtype say; None for none.

    Raises:
        UsageError: --amp-dtype alone; UnknownName: no such type.
    """
    if not amp and dtype is not None:
        raise UsageError("--amp-dtype changes nothing without --amp", "Add --amp.")
    if not amp:
        return None
    from kt_cli.device import pick_device

    chosen = dtype or ("float16" if pick_device().type == "cuda" else "bfloat16")
    if chosen not in AMP[1:]:
        raise unknown("type of mixed precision", chosen, AMP[1:])
    return chosen
