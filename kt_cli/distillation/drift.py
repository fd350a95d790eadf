"""Drift: what as many updates towards itself change in a student, whoever teaches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from kt_cli.data.views import Views
from kt_cli.distillation.weight_averaging import copied, load
from kt_cli.files import cache_folder, cached, keep_tensors, read_tensors
from kt_cli.precision import arithmetic
from kt_cli.settings import TransferSpec
from kt_cli.settings.declared import digest, signature
from kt_cli.spec import RunOf

FORMAT = 1  # of what is kept; raise it when how it is computed changes


def towards_itself(spec: TransferSpec) -> TransferSpec:
    """The same training of a student that teaches itself; one for all teachers and methods."""
    return replace(
        spec.with_defaults, method="self", together="single", margin=0.0, kd_lambda=None,
        distil_on=None, label_smoothing=0.0, subtract_drift=False, reference_compat=False,
    )  # fmt: skip


def run_of(run: RunOf[TransferSpec]) -> RunOf[TransferSpec] | None:
    """That training as a run, one for all that take its drift off; None for others."""
    if not run.settings.subtract_drift:
        return None
    return replace(run, models=run.models[-1:], settings=towards_itself(run.settings))


def of(
    module: nn.Module, key: str, spec: TransferSpec, views: Views, train: Callable[[], object]
) -> dict[str, Tensor]:
    """θ_self − θ₀ of the student, by name of its floating-point tensors; θ₀ is in the module again.

    Args:
        key: identity of the student, its preprocessing and its outputs.
        spec: as `towards_itself` gives it. train: does that training, in place.
    """
    how = arithmetic(views.device.type)
    said = digest([FORMAT, key, views.key, how, len(views), signature(spec)])
    path = cache_folder("drift") / f"{said[:24]}.safetensors"
    names = {name for name, v in module.state_dict().items() if v.is_floating_point()}
    kept = cached(path, read_tensors)
    if kept is not None and kept.keys() == names:
        return kept
    start = copied(module)
    train()
    moved = {
        name: value.detach() - start[name]
        for name, value in module.state_dict().items()
        if name in names
    }
    load(module, start)
    keep_tensors(path, moved)
    return moved
