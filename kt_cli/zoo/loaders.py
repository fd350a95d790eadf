"""The module behind each kind of reference: the table OPENERS, one small function per kind.

Weights are read with `weights_only` throughout: no file is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kt_cli.errors import DataError, UsageError
from kt_cli.spec import Model
from kt_cli.zoo import checkpoints, local_models, target, timm_registry


def _open_timm(model: Model, num_classes: int | None) -> nn.Module:
    import timm

    file = _cached(model)
    # Named as a file, cached weights load without asking the hub, which retries for long offline.
    overlay = {"file": str(file)} if file else None
    return timm.create_model(model.ref, pretrained=True, pretrained_cfg_overlay=overlay)


def _open_hub(model: Model, num_classes: int | None) -> nn.Module:
    import timm

    file = _cached(model)
    return timm.create_model(f"local-dir:{file.parent}" if file else model.ref, pretrained=True)


def _cached(model: Model) -> Path | None:
    """The weights of a published model; None where they are not here and the hub answers."""
    file = timm_registry.cached(model.ref)
    if file is None:
        timm_registry.require_weights([model])
    return file


def _open_folder(model: Model, num_classes: int | None) -> nn.Module:
    import timm

    folder = Path(target(model.ref))
    if "architecture" not in local_models.read_config(folder):
        raise DataError(
            f"{folder / local_models.CONFIG} names no timm architecture",
            "Load its weights in a function of your own: py:module:function.",
        )
    checkpoints.require_weights(local_models.weights_file(folder))
    return timm.create_model(model.ref, pretrained=True)


def _open_checkpoint(model: Model, num_classes: int | None) -> nn.Module:
    arch, file = model.ref.split("@", 1)
    return checkpoints.opened(arch, Path(file))


def _open_function(model: Model, num_classes: int | None) -> nn.Module:
    built = local_models.call(*local_models.parse_function(target(model.ref)))
    if not isinstance(built, nn.Module):
        kind = type(built).__name__
        raise UsageError(f"{model.ref} returned {kind}", "It must return a torch.nn.Module.")
    return built


def _open_random(model: Model, num_classes: int | None) -> nn.Module:
    import timm

    arch, _, seed = target(model.ref).partition("#")
    more: Any = {} if num_classes is None else {"num_classes": num_classes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed or 0))
        return timm.create_model(arch, pretrained=False, **more)


def _open_predictions(model: Model, num_classes: int | None) -> nn.Module:
    raise UsageError(
        f"{model.ref} has no weights to load, only what a model said",
        "Name the model itself; predictions are for kt complementarity.",
    )


# num_classes: of the data, where it is known; only what is built from nothing asks for it.
OPENERS: dict[str, Callable[[Model, int | None], nn.Module]] = {
    "timm": _open_timm,
    "hf-hub": _open_hub,
    "local-dir": _open_folder,
    "checkpoint": _open_checkpoint,
    "py": _open_function,
    "random": _open_random,
    "predictions": _open_predictions,
}
