"""torchvision's classifiers, with the transforms of their weights: tv:NAME[@WEIGHTS | @FILE]."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from kt_cli.zoo import checkpoints
from kt_cli.zoo.imagenet_facts import NUM_CLASSES
from kt_cli.zoo.libraries import every_weights, torchvision_weights
from kt_cli.zoo.wrapped import Origin, Wrapped, last_layer

LIBRARY = "torchvision"
LOADING = """\
from safetensors.torch import load_file
from torchvision.models import get_model
model = get_model("{name}", num_classes={num_classes})
model.load_state_dict(load_file("model.safetensors"))
"""
# Constructors' arguments that follow from the weights, and modules keep under these names.
FOLLOWING = ("transform_input", "aux_logits", "image_size")
WITH_AUXILIARY = ("googlenet", "inception_v3")


def published(target: str, file: Path) -> nn.Module:
    """NAME@WEIGHTS, whose weights were fetched to `file`."""
    from torchvision.models import WeightsEnum, get_model

    name, _, tag = target.partition("@")
    state = torch.load(file, map_location="cpu", weights_only=True)
    # torchvision would fetch them itself, and unpickle what it gets.
    with mock.patch.object(WeightsEnum, "get_state_dict", lambda *_, **__: state):
        inner = get_model(name, weights=tag)
    return _wrapped(name, inner, NUM_CLASSES, _data_config(name, tag))


def own(name: str, file: Path) -> nn.Module:
    """A classifier of torchvision with the weights of a file; DataError where they do not fit."""
    head = last_layer(_built(name, NUM_CLASSES), NUM_CLASSES)
    assert head is not None, name
    weight = f"{head[0]}.weight"
    weights = checkpoints.of_classifier(f"tv:{name}", weight, file)
    count, arguments = len(weights[weight]), {}
    if name in WITH_AUXILIARY:
        arguments["aux_logits"] = any("aux" in key.lower() for key in weights)
    inner = _built(name, count, **arguments)
    checkpoints.fit(inner, weights, f"{file} does not fit tv:{name}")
    return _wrapped(name, inner, count, _data_config(name, torchvision_weights(name)))


def again(config: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> nn.Module:
    name, count = config["name"], config["num_classes"]
    inner = _built(name, count, **config["arguments"])
    inner.load_state_dict(state)
    return _wrapped(name, inner, count, config["pretrained_cfg"])


def _built(name: str, num_classes: int, **arguments: Any) -> nn.Module:
    from torchvision.models import get_model

    if name in WITH_AUXILIARY:
        arguments = {"transform_input": True, "init_weights": False, **arguments}
    built: nn.Module = get_model(name, weights=None, num_classes=num_classes, **arguments)
    return built


def _wrapped(name: str, inner: nn.Module, count: int, data_config: Mapping[str, Any]) -> Wrapped:
    arguments = {key: getattr(inner, key) for key in FOLLOWING if hasattr(inner, key)}
    config = {"library": LIBRARY, "name": name, "arguments": arguments}
    return Wrapped(
        inner, count, data_config, Origin(config, LOADING.format(name=name, num_classes=count))
    )


def _data_config(name: str, tag: str) -> dict[str, Any]:
    """timm's words for the transforms of weights: the shorter edge is scaled, the centre cut."""
    made = every_weights(name)[tag].transforms()
    (crop,), (edge,) = made.crop_size, made.resize_size
    return {
        "input_size": (3, crop, crop), "crop_pct": crop / edge, "crop_mode": "center",
        "interpolation": made.interpolation.value, "mean": tuple(made.mean),
        "std": tuple(made.std),
    }  # fmt: skip
