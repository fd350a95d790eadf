"""Small untrained models of ten classes, as folders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from kt_cli.spec import Model
from kt_cli.zoo import load
from kt_cli.zoo.names import resolve

DIGITS = tuple(str(i) for i in range(10))

MakeModel = Callable[..., Model]


def model_in(
    folder: Path, name: str, arch: str = "test_resnet", names: tuple[str, ...] = DIGITS
) -> Model:
    """A model of `arch` with random weights, saved as folder/name."""
    torch.manual_seed(sum(map(ord, name)))
    module, config = load.build(arch, len(names), 32)
    for parameter in module.parameters():  # untrained heads of timm are zero
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    load.save(
        module, folder / name, data_config=config, num_classes=len(names), label_names=names,
        card="", extra={},
    )  # fmt: skip
    (model,) = resolve([str(folder / name)])
    return model


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Saves a model as tmp_path/name; see `model_in`."""
    return partial(model_in, tmp_path)
