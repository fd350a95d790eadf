"""A GPU that is lost while models run on it: who is blamed, and what goes on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from kt_cli import store
from kt_cli.data.sources import open_data
from kt_cli.progress import silent
from kt_cli.spec import DataSpec, EvalSpec, Run
from kt_cli.sweep.execute import LocalStage
from kt_cli.sweep.slots import Slot
from kt_cli.zoo.names import resolve

# CUDA as it is when a kernel's assertion failed: the one who did it does not notice, whoever comes
# next does, and from then on nothing computes.
MODELS = """
import torch
from torch import nn

lost = []

def synchronize(device=None):
    if lost:
        raise getattr(torch, "AcceleratorError", RuntimeError)("device-side assert triggered")

torch.cuda.is_initialized = lambda: True
torch.cuda.synchronize = synchronize

class Net(nn.Module):
    data_config = {"input_size": (3, 8, 8)}
    num_classes = 10

    def __init__(self, asserts=False):
        super().__init__()
        self.asserts = asserts
        self.fc = nn.Linear(3 * 8 * 8, 10)

    def forward(self, images):
        synchronize()
        if self.asserts:
            lost.append(True)
        return self.fc(images.flatten(1))

def first():
    return Net()

def second():
    return Net()

def culprit():
    return Net(asserts=True)

def last():
    return Net()
"""
DATA = DataSpec("digits", limit=300)
NAMES = ("first", "culprit", "second", "last")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    (tmp_path / "assertion.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    found = resolve([f"py:assertion:{name}" for name in NAMES])
    images = open_data(DATA).eval
    return [Run("predict", (m,), images.fingerprint, EvalSpec(), DATA) for m in found]


def rows(folder: Path) -> pd.DataFrame:
    return store.read([folder], "models").set_index("model")


def test_of_models_that_run_together_only_the_culprit_fails(
    runs: list[Run], tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    LocalStage(folder, runs, [Slot(None, 1)]).run(silent, "evaluate")
    found = rows(folder)
    assert found["status"].to_dict() == dict.fromkeys(NAMES, "ok") | {"culprit": "failed"}
    assert (found["attempt"] == 1).all() and len(found) == len(NAMES)
    assert "device-side assert triggered" in found.loc["culprit", "error"]
