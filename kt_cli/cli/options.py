"""Options that several commands share beside their settings, under timm's names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kt_cli.cli import screen
from kt_cli.errors import UsageError, unknown
from kt_cli.precision import asked_device
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

    return option(name, help=help, callback=known, **{**one_of(choices), **more})


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
Gallery = Annotated[
    Path | None,
    option(panel=OUTPUT, metavar="FILE", help="Draw such images: PNG, PDF, SVG or HTML."),
]
Json = Annotated[bool, flag("--json", "Print JSON on stdout.", OUTPUT)]
Amp = Annotated[bool | None, option("--amp/--no-amp", panel=COMPUTATION, help="Mixed precision.")]
AmpType = Annotated[
    str | None,
    option("--amp-dtype", panel=COMPUTATION, hidden=True, **one_of(AMP[1:]),
           help="float16 or bfloat16, the default but on GPUs that lack it."),
]  # fmt: skip
Overwrite = Annotated[
    bool, flag("--overwrite", "Replace a model that kt saved there before.", OUTPUT)
]
Results = Annotated[
    Path,
    option("-o", "--output", metavar="FOLDER", panel=OUTPUT,
           help="Where sweeps keep their results."),
]  # fmt: skip


def _use(device: str | None) -> str | None:
    """By what every process from here on sees of the GPUs, before torch looks for them."""
    screen.few_cores()
    if device is None:
        return None
    os.environ["KT_DEVICE"] = device
    kind, index = asked_device()
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if kind == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif index is not None:
        named = seen.split(",") if seen is not None else [str(index)] * (index + 1)
        os.environ["CUDA_VISIBLE_DEVICES"] = "".join(named[index : index + 1])
    os.environ["KT_DEVICE"] = kind  # what is seen has no other number any more
    return device


CachedOnly = Annotated[
    bool, flag("--cached-only", "Predict nothing: take what the cache has.", COMPUTATION, True)
]
Device = Annotated[
    str | None,
    option("--device", envvar="KT_DEVICE", metavar="<cpu|cuda|cuda:N>", panel=COMPUTATION,
           callback=_use, expose_value=False, show_default="a GPU where there is one",
           help="Where to compute: on the CPU, on GPUs, or on the GPU of a number."),
]  # fmt: skip


def _round(tf32: bool | None) -> None:
    """By what every process from here on lets a GPU do."""
    if tf32 is not None:
        os.environ["KT_TF32"] = str(int(tf32))


Tf32 = Annotated[
    bool | None,
    option("--tf32/--no-tf32", panel=COMPUTATION, hidden=True, callback=_round,
           expose_value=False, show_default="--tf32",
           help="Let a GPU round the factors of float32 to TF32, in training and evaluation."),
]  # fmt: skip


def precision(
    amp: bool | None, dtype: str | None, on_gpus: bool = False, apart: bool = False
) -> str | None:
    """The type of mixed precision that --amp and --amp-dtype say: "" for none, None if unsaid.

    Without --amp-dtype bfloat16, but float16 on a GPU here that has no bfloat16.
    on_gpus: it is for GPUs that need not be here. apart: this process is to have none of them.

    Raises:
        UsageError: --amp-dtype alone; UnknownName: no such type.
    """
    if not amp and dtype is not None:
        raise UsageError("--amp-dtype changes nothing without --amp", "Add --amp.")
    if not amp:
        return None if amp is None else ""
    from kt_cli.device import lacks_bfloat16

    chosen = dtype or ("float16" if not on_gpus and lacks_bfloat16(apart) else "bfloat16")
    if chosen not in AMP[1:]:
        raise unknown("type of mixed precision", chosen, AMP[1:])
    return chosen
