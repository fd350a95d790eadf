"""The command that does a transfer."""

from __future__ import annotations

from collections.abc import Sequence

from kt_cli.data.guard_images import leave_out_guards
from kt_cli.errors import command
from kt_cli.settings import DataSpec, TransferSpec
from kt_cli.settings.declared import options, unusual
from kt_cli.spec import Model, RunOf

# Said otherwise, or of how a run is done.
UNSAID = ("by_class", "eval_amp", "keep_targets", "target_topk")


def taught(models: Sequence[Model], data: DataSpec, settings: TransferSpec, **more: float) -> str:
    """`kt transfer` from the first models into the last, with all settings that are not usual.

    more: values by keyword that are said in any case.
    """
    given = {**unusual(data), **unusual(settings), **more}
    said = {name: value for name, value in given.items() if name not in UNSAID}
    if dtype := said.pop("amp", ""):
        said |= {"amp": True, "amp_dtype": dtype}
    return command("transfer", *(model.ref for model in models), *options(said))


def again(run: RunOf[TransferSpec]) -> str:
    """The command that repeats a transfer, with the same id."""
    more: dict[str, float] = {}
    # The models' own guard slices count unless another share is said, be it none.
    if leave_out_guards(run.data, run.models).guard > run.data.guard:
        more["guard_share"] = run.data.guard
    return taught(run.models, run.data, run.settings, **more)
