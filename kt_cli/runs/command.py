"""The command that repeats a transfer."""

from __future__ import annotations

from kt_cli.errors import command
from kt_cli.settings import TransferSpec
from kt_cli.settings.declared import options, unusual
from kt_cli.spec import RunOf

# Said otherwise, or of how a run is done.
UNSAID = ("by_class", "eval_amp", "keep_targets", "target_topk")


def again(run: RunOf[TransferSpec]) -> str:
    """`kt transfer` with the models as they are referred to and all settings that are not usual."""
    said = unusual(run.data) | unusual(run.settings)
    for name in UNSAID:
        said.pop(name, None)
    if dtype := said.pop("amp", ""):
        said |= {"amp": True, "amp_dtype": dtype}
    return command("transfer", *(model.ref for model in run.models), *options(said))
