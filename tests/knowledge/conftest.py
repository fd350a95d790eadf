"""Small untrained models of ten classes, as folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from kt_cli.spec import Model
from kt_cli.zoo import load
from kt_cli.zoo.names import resolve

DIGITS = tuple(str(i) for i in range(10))

MakeModel = Callable[..., Model]


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Saves a model of `arch` with random weights as tmp_path/name."""

    def make(name: str, arch: str = "test_resnet", names: tuple[str, ...] = DIGITS) -> Model:
        torch.manual_seed(sum(map(ord, name)))
        module, config = load.build(arch, len(names), 32)
        for parameter in module.parameters():  # untrained heads of timm are zero
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.2)
        load.save(
            module, tmp_path / name, data_config=config, num_classes=len(names),
            label_names=names, card="", extra={},
        )  # fmt: skip
        (model,) = resolve([str(tmp_path / name)])
        return model

    return make
