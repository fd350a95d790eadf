"""Exhausted memory costs what it must, and nothing stays that is not needed any more.

On a CUDA device memory is really exhausted. A CPU has no such limit: the hungry models refuse by
themselves there, as a device would.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gpu.toys import allocated, leave, spec_of
from gpu.zoo import functions, images, model, named, run_of
from kt_cli.errors import KtError
from kt_cli.knowledge.predict import REFRESH, How, predict_all
from kt_cli.knowledge.predictions import Predictions
from kt_cli.runs.transfer import transfer_run
from kt_cli.settings import EvalSpec

pytestmark = pytest.mark.gpu
MB = 2**20
TWENTY = 20

HUNGRY = '''
import torch
from torch import nn

MB = 2**20


class Net(nn.Module):
    """Takes some MB for each image, while it trains or is evaluated, that nobody reads."""

    num_classes = 10
    data_config = {"input_size": (3, 32, 32)}

    def __init__(self, placed=0, trained=0, evaluated=0, fits=16):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.head = nn.Linear(3 * 32 * 32, 10)
        ballast = torch.zeros(placed * MB, dtype=torch.uint8)
        self.register_buffer("ballast", ballast, persistent=False)
        self.trained, self.evaluated, self.fits = trained, evaluated, fits

    def forward(self, x):
        size = self.trained if self.training else self.evaluated
        if size and x.device.type == "cpu" and len(x) > self.fits:
            raise torch.cuda.OutOfMemoryError("as a device would")
        if size and x.device.type == "cuda":
            torch.empty(len(x) * size * MB, dtype=torch.uint8, device=x.device)
        return self.head(x.flatten(1))

    def to(self, *arguments, **named):
        if len(self.ballast) and not torch.cuda.is_available():
            raise torch.cuda.OutOfMemoryError("as a device would")
        return super().to(*arguments, **named)


def placed():
    return Net(placed=1200 if torch.cuda.is_available() else 1)


def evaluated():
    return Net(evaluated=32)


def never():
    return Net(evaluated=2000, fits=0)


def trained():
    return Net(trained=32)


def modest():
    return Net()
'''


@pytest.fixture
def hungry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return functions(tmp_path, "hungry_models", HUNGRY, monkeypatch)


def how(device: torch.device, batch_size: int = 128) -> How:
    return How(EvalSpec(), device, False, REFRESH, batch_size, workers=0)


def test_a_model_that_does_not_fit_costs_itself(hungry: Path, device: torch.device) -> None:
    """It neither stops those beside it nor stays in memory with them."""
    order = ("modest", "placed", "evaluated", "never")
    models = [named(f"py:hungry_models:{name}") for name in order]
    wanted = predict_all(models[:1], images(60), how(device))
    before = allocated(device)
    leave(device, 700 * MB)
    found = dict(zip(order, predict_all(models, images(60), how(device)), strict=True))
    assert isinstance(found["placed"], Exception) and isinstance(found["never"], Exception)
    assert "memory" in str(found["never"])
    for name in ("modest", "evaluated"):
        said = found[name]
        assert isinstance(said, Predictions), said
        np.testing.assert_array_equal(said.pred, wanted[0].pred)  # type: ignore[union-attr]
    # The exceptions are still here, their tracebacks too: they must not hold what they met.
    assert allocated(device) <= before + MB


def test_a_batch_that_does_not_fit_is_halved(hungry: Path, device: torch.device) -> None:
    """32 MB an image: 128 take 4 GB."""
    (evaluated,) = (named("py:hungry_models:evaluated"),)
    leave(device, 700 * MB)
    (said,) = predict_all([evaluated], images(150), how(device))
    assert isinstance(said, Predictions), said
    assert int(said.about["batch_size"]) == 16


def test_a_micro_batch_that_does_not_fit_is_halved_and_the_row_says_so(
    hungry: Path, device: torch.device
) -> None:
    teacher, student = (named(f"py:hungry_models:{name}") for name in ("modest", "trained"))
    spec = spec_of(method="kl", epochs=1, batch_size=64, micro_batch=64, lr=0.01)
    transfer_run(run_of(spec, teacher, teacher), hungry)  # what only the first time takes
    leave(device, 700 * MB)
    with pytest.raises(KtError, match="micro-batches of 64 exhaust"):
        transfer_run(run_of(spec, teacher, student), hungry)
    spec = spec_of(method="kl", epochs=1, batch_size=64, micro_batch=64, lr=0.01, retry_oom=True)
    (row,) = transfer_run(run_of(spec, teacher, student), hungry)
    assert row["micro_batch"] == 16


def test_memory_is_flat_over_twenty_transfers(
    tmp_path: Path, device: torch.device, record_property: object
) -> None:
    """Round after round of methods, students and precisions, each round like the one before."""
    archs = ("test_resnet", "test_vit")
    models = [model(tmp_path, arch) for arch in archs]
    methods = ("kl-dp", "crd", "kl-mcl", "cd")
    rounds = TWENTY // len(methods) if device.type == "cuda" else 2
    after = []
    for _ in range(rounds):
        for i, method in enumerate(methods):
            amp = ("", "bfloat16")[i % 2]
            spec = spec_of(method=method, epochs=1, lr=0.01, amp=amp, batch_size=32)
            teacher, student = models[i % 2], models[1 - i % 2]
            transfer_run(run_of(spec, teacher, student), tmp_path)
        after.append(allocated(device))
    # The first round leaves what the process keeps: images, libraries' work space.
    assert max(after[1:]) <= after[0] + MB // 2, [f"{size / MB:.1f} MB" for size in after]


def test_a_failing_model_is_forgotten(
    tmp_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exception is kept; the models that were evaluated beside it are not."""
    functions(tmp_path, "failing_models", FAILING, monkeypatch)
    models = [model(tmp_path, "test_resnet"), named("py:failing_models:fails"),
              model(tmp_path, "test_vit")]  # fmt: skip
    predict_all(models[:1], images(60), how(device))
    before = allocated(device)
    found = predict_all(models, images(60), how(device))
    assert [isinstance(said, Exception) for said in found] == [False, True, False]
    assert allocated(device) <= before + MB // 10


FAILING = """
import torch


class Net(torch.nn.Module):
    num_classes = 10
    data_config = {"input_size": (3, 32, 32)}

    def __init__(self):
        super().__init__()
        self.ballast = torch.nn.Parameter(torch.zeros(2_000_000))

    def forward(self, x):
        raise ValueError("cannot")


def fails():
    return Net()
"""
