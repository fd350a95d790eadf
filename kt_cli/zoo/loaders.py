"""The module behind each kind of reference.

Weights are read with `weights_only` throughout: no file is ever unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from kt_cli.errors import DataError, UsageError, WeightsUnavailable
from kt_cli.spec import Model
from kt_cli.zoo import (
    checkpoints,
    local_models,
    prefetch,
    published,
    scheme,
    target,
    timm_registry,
    torchvision_models,
    transformers_models,
    zero_shot,
)

INDEX = "model.safetensors.index.json"
FROM_FILES = ("timm", "hf-hub", "local-dir", "checkpoint")
DRAWING = (Tensor.uniform_, Tensor.normal_, Tensor.erfinv_,  # of which all others are made
           init.uniform_, init.normal_, init.kaiming_uniform_)  # fmt: skip
# The model of a folder that kt saved, by its library.
AGAIN = {torchvision_models.LIBRARY: torchvision_models.again, zero_shot.LIBRARY: zero_shot.again}


def opened(model: Model, classes: Sequence[str] | None, drawn: bool = False) -> nn.Module:
    """The module that a model's reference names, with finite weights.

    Args:
        classes: of the data, where they are known; what is built from nothing, or from names, asks.
        drawn: draw also the first weights that those of a file replace.

    Raises:
        DataError: some are not finite; and whatever goes wrong in a library.
    """
    if scheme(model.ref) in FROM_FILES and not drawn:
        with suppress(RuntimeError), _Undrawn():
            module = _made(model, classes)
            if not _odd({**module.state_dict(keep_vars=True), **dict(module.named_buffers())}):
                return module
        # Not all of them are in the file, or how they are drawn computes with them.
    module = _made(model, classes)
    if layer := _odd(module.state_dict(keep_vars=True)):
        tip = "Its training diverged, or the file is damaged: take an earlier checkpoint."
        raise DataError(f"{model.name}: {layer} is not finite", tip)
    return module


def _made(model: Model, classes: Sequence[str] | None) -> nn.Module:
    where = target(model.ref)
    match scheme(model.ref):
        case "timm":
            import timm

            file = _cached(model)
            # Named as a file, cached weights load without asking the hub, which retries for long.
            overlay = {"file": str(file)} if file else None
            return timm.create_model(model.ref, pretrained=True, pretrained_cfg_overlay=overlay)
        case "hf-hub" | "hf":
            return _of_folder(_fetched(model).parent, model)
        case "local-dir":
            return _of_folder(Path(where), model)
        case "checkpoint":
            arch, path = model.ref.split("@", 1)
            return checkpoints.opened(arch, Path(path))
        case "tv":
            if published(model.ref):
                return torchvision_models.published(where, _fetched(model))
            name, _, path = where.partition("@")
            return torchvision_models.own(name, Path(path))
        case "clip":
            file = _fetched(model) if published(model.ref) else None
            return zero_shot.opened(where, classes, file)
        case "py":
            built = local_models.call(*local_models.parse_function(where))
            if not isinstance(built, nn.Module):
                said = f"{model.ref} returned {type(built).__name__}"
                raise UsageError(said, "It must return a torch.nn.Module.")
            return built
        case "random":
            import timm

            arch, _, seed = where.partition("#")
            more: Any = {"num_classes": len(classes)} if classes else {}
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(seed or 0))
                return timm.create_model(arch, pretrained=False, **more)
    raise UsageError(
        f"{model.ref} has no weights to load, only what a model said",
        "Name the model itself; predictions are for kt complementarity.",
    )


def _of_folder(folder: Path, model: Model) -> nn.Module:
    """The model in a folder that timm, transformers or kt saved; its config.json says who."""
    import timm

    config = local_models.read_config(folder)
    if (folder / INDEX).is_file():
        raise DataError(
            f"{folder} has its weights in several files",
            "Save them in one (of transformers: max_shard_size='100GB').",
        )
    file = local_models.weights_file(folder)
    checkpoints.require_weights(file)
    if "architecture" in config:
        return timm.create_model(f"local-dir:{folder}", pretrained=True)
    if "model_type" in config:
        return transformers_models.opened(folder, model.name)
    if config.get("library") in AGAIN:
        return AGAIN[config["library"]](config, load_file(file))
    raise DataError(
        f"{folder / local_models.CONFIG} names no architecture of timm or transformers",
        "Load its weights in a function of your own: py:module:function.",
    )


def _fetched(model: Model) -> Path:
    """The weights of a published model, in the cache; WeightsUnavailable, at once where offline."""
    if file := _cached(model):
        return file
    for _, reason in prefetch.fetch({model: None}, 1):
        said = f"weights of {model.name} could not be had: {reason}"
        raise WeightsUnavailable(said, timm_registry.HOW_TO_GET_WEIGHTS)
    file = timm_registry.cached(model.ref)
    assert file is not None, model
    return file


def _cached(model: Model) -> Path | None:
    """The weights of a published model; None where they are not here and the hub answers."""
    file = timm_registry.cached(model.ref)
    if file is None:
        timm_registry.require_weights([model])
    return file


class _Undrawn(TorchFunctionMode):
    """Leaves NaN where a module would draw its first weights, which takes longer than to read."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in DRAWING:
            return func(*args, **(kwargs or {}))
        weights = args[0] if args else kwargs["tensor"]
        weights.detach().fill_(math.nan)
        return weights


@torch.no_grad()
def _odd(state: Mapping[str, Tensor]) -> str:
    """The name of a parameter that is not finite, or of a buffer that is not a number; else ""."""
    for name, values in state.items():
        # The sum of what is not finite never is, and is far quicker.
        if not isinstance(values, Tensor) or values.sum().isfinite():
            continue
        # Buffers may well hold what is infinite, as masks do.
        odd = ~values.isfinite() if isinstance(values, nn.Parameter) else values.isnan()
        if odd.any():
            return name
    return ""
