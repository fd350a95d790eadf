"""The command that repeats a transfer."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from kt_cli.errors import command
from kt_cli.settings import DataSpec, TransferSpec
from kt_cli.settings.declared import declared
from kt_cli.spec import RunOf

# Said otherwise, or of how a run is done.
UNSAID = ("by_class", "eval_amp", "keep_targets", "target_topk")


def again(run: RunOf[TransferSpec]) -> str:
    """`kt transfer` with the models by name and all settings that are not usual.

    By name, not by place: the card that has it may travel.
    """
    words = [model.name for model in run.models]
    words += [*_options(run.data, DataSpec), *_options(run.settings, TransferSpec)]
    return command("transfer", *words)


def _options(settings: Any, kind: type) -> list[str]:
    known, found = declared(kind), list[str]()
    for one in fields(kind):
        value = getattr(settings, one.name)
        if one.name in UNSAID or value == one.default or value is None:
            continue
        flag = next(f for f in (*known[one.name].said.flags, f"--{one.name.replace('_', '-')}")
                    if f.startswith("--"))  # fmt: skip
        yes, _, no = flag.partition("/")
        if isinstance(value, bool):
            found.append(yes if value else no or f"--no-{yes[2:]}")
        elif one.name == "amp":
            found += ["--amp", "--amp-dtype", value]
        else:
            found += [yes, str(value)]
    return found
