"""Options that several commands share beside their settings, under timm's names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kt_cli.errors import UsageError, unknown
from kt_cli.settings.shared import AMP, COMPUTATION, OUTPUT


def option(*flags: str, help: str, panel: str | None = None, **more: Any) -> Any:
    return typer.Option(*flags, help=help, rich_help_panel=panel, **more)


def flag(name: str, help: str, panel: str | None = None, hidden: bool = False) -> Any:
    """An option without a value."""
    return option(name, help=help, panel=panel, hidden=hidden)


def choice(name: str, choices: Sequence[str], help: str, **more: Any) -> Any:
    """An option that has one of a few values; another is refused with what is near."""

    def known(value: str | None) -> str | None:
        if value is not None and value not in choices:
            raise unknown(name, value, choices)
        return value

    return option(name, help=help, callback=known, **one_of(choices), **more)


def one_of(choices: Sequence[str]) -> dict[str, Any]:
    """How choices are shown in a help and completed by a shell."""
    return {"metavar": f"<{'|'.join(choices)}>", "autocompletion": lambda: list(choices)}


Workers = Annotated[
    int | None,
    option(
        "-j",
        "--workers",
        min=0,
        metavar="N",
        hidden=True,
        panel=COMPUTATION,
        help="Decoding processes; by default as they pay.",
    ),
]
EvalBatch = Annotated[
    int | None,
    option("-b", "--batch-size", min=1, metavar="N", panel=COMPUTATION,
           help="Images per forward pass; by default 128."),
]  # fmt: skip
Json = Annotated[bool, flag("--json", "Print JSON on stdout.", OUTPUT)]
Amp = Annotated[bool, flag("--amp", "Mixed precision.", COMPUTATION)]
AmpType = Annotated[
    str | None,
    option("--amp-dtype", panel=COMPUTATION, hidden=True, **one_of(AMP[1:]),
           help="float16 (default on a GPU) or bfloat16 (default on the CPU)."),
]  # fmt: skip
Overwrite = Annotated[
    bool, flag("--overwrite", "Replace a model that kt saved there before.", OUTPUT)
]
Results = Annotated[
    Path,
    option("-o", "--output", metavar="FOLDER", panel=OUTPUT,
           help="Where sweeps keep their results."),
]  # fmt: skip


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
