"""Saved models and real digits, for the tests beside it that go through whole runs."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kt_cli.data.images import ImageSet
from kt_cli.data.sources import open_data
from kt_cli.runs.pretrain import pretrain_run
from kt_cli.runs.transfer import transfer_run
from kt_cli.settings import DataSpec, PretrainSpec, TransferSpec
from kt_cli.spec import Model, Run
from kt_cli.zoo import load
from kt_cli.zoo.names import resolve

ARCHS = ("test_resnet", "test_vit", "test_convnext")
DIGITS = tuple(str(i) for i in range(10))
SIDE = 32
DATA = DataSpec("digits", guard=0.2, fraction=0.2, limit=200)


@lru_cache(maxsize=4)
def images(count: int) -> ImageSet:
    return open_data(DataSpec("digits", limit=count)).eval


def model(folder: Path, arch: str, name: str = "", seed: int = 0) -> Model:
    """A model with random weights, saved as timm saves it, unless it is there."""
    home = folder / (name or arch)
    if not home.exists():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module, config = load.build(arch, len(DIGITS), SIDE)
            for parameter in module.parameters():  # untrained heads of timm are zero
                if parameter.ndim > 1:
                    nn.init.normal_(parameter, std=0.1)
        load.save(module, home, data_config=config, num_classes=len(DIGITS), label_names=DIGITS,
                  card="", extra={})  # fmt: skip
    return named(home)


def named(reference: Any) -> Model:
    (found,) = resolve([str(reference)])
    return found


def trained(folder: Path, arch: str = "test_resnet", epochs: int = 4) -> Model:
    """A model that knows digits, and never saw the guard's."""
    spec = PretrainSpec(f"good-{arch}", arch, epochs=epochs, lr=3e-3, img_size=SIDE, side=SIDE)
    data = replace(DATA, fraction=1.0, limit=None)
    run = Run("pretrain", (), open_data(data, training=True).training().fingerprint, spec, data,
              spec.name)  # fmt: skip
    pretrain_run(run, folder)
    return named(folder / spec.name)


def run_of(spec: TransferSpec, *models: Model, data: DataSpec = DATA, out: str = "") -> Run:
    data_id = open_data(data, training=True).transfer_id(spec.guarded)
    return Run("transfer", models, data_id, replace(spec, side=SIDE, crop=1.0), data, out)


def transfer(folder: Path, spec: TransferSpec, teacher: str, student: str) -> dict[str, Any]:
    """The row of a transfer between untrained models of two architectures."""
    models = [model(folder, teacher, "teacher", 1), model(folder, student, "student", 2)]
    (row,) = transfer_run(run_of(spec, *models), folder)
    return row


def functions(folder: Path, name: str, source: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of model functions in `folder`, which becomes the current one."""
    (folder / f"{name}.py").write_text(source)
    monkeypatch.chdir(folder)
    sys.modules.pop(name, None)
    return folder
