"""Whole sweeps: what breaks a device costs one model; a worker sees its GPU, the sweep none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from gpu.toys import only_on_cuda
from gpu.zoo import model
from kt_cli.rows import store

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
SECONDS = 130 if torch.cuda.is_available() else 230

MODELS = """
import json
import os
import sys

import torch
from torch import nn


class Net(nn.Module):
    num_classes = 10
    data_config = {"input_size": (3, 32, 32)}

    def __init__(self, seed, breaks=False):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(3 * 32 * 32, 10)
        self.breaks = breaks

    def get_classifier(self):
        return self.head

    def forward(self, x):
        if self.breaks:  # on a CUDA device an assert, which its context does not survive
            table = torch.zeros(10, 10, device=x.device)
            return table[torch.full((len(x),), 99, device=x.device)]
        return self.head(x.flatten(1))


def first():
    return Net(1)


def breaks():
    return Net(2, breaks=True)


def second():
    return Net(3)


def sees(seed=5):
    with open("seen.jsonl", "a") as file:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        count = torch.cuda.device_count()
        said = {"visible": visible, "count": count, "worker": "workers" in sys.argv[0]}
        file.write(json.dumps(said) + "\\n")
    return Net(seed)


def sees_too():
    return sees(6)


def sees_more():
    return sees(7)


def sees_last():
    return sees(8)
"""

# As `kt` does it; at the end, whether this process itself ever woke a device.
MAIN = """
import sys

from kt_cli.cli.app import main

try:
    main()
finally:
    import torch

    print("the sweep holds a context:", torch.cuda.is_initialized(), file=sys.stderr)
"""


def sweep(folder: Path, *arguments: str, code: int = 0, **environment: str) -> str:
    """Stderr of `kt sweep` in `folder`, on one GPU or one process."""
    (folder / "toy_models.py").write_text(MODELS)
    one = ("--gpus", "1") if torch.cuda.is_available() else ("--processes", "1")
    command = [sys.executable, "-c", MAIN, "sweep", "--name", "small", "--data", "digits", *one,
               *arguments]  # fmt: skip
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, cwd=folder, text=True, capture_output=True, timeout=SECONDS,
        env={**os.environ, "COLUMNS": "160", "PYTHONPATH": path, **environment},
    )  # fmt: skip
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}\n{logs(folder)}"
    return done.stderr


def logs(folder: Path) -> str:
    """The ends of the workers' logs."""
    found = sorted(folder.glob("results/small/logs/*.err"))
    return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-1500:]}" for p in found)


def rows(folder: Path, table: str) -> pd.DataFrame:
    return store.read([folder / "results" / "small"], table).set_index("model")


def test_a_device_side_assert_in_one_of_four_models_costs_that_one(tmp_path: Path) -> None:
    names = ("first", "breaks", "second", "sees")
    models = ",".join(f"py:toy_models:{name}" for name in names)
    err = sweep(tmp_path, "--models", models, "--pairs", "0", code=1)
    found = rows(tmp_path, "models")
    wanted = {name: store.FAILED if name == "breaks" else store.OK for name in names}
    assert found["status"].to_dict() == wanted, f"{found['error'].to_dict()}\n{logs(tmp_path)}"
    assert_its_gpu_only(tmp_path, err)


@only_on_cuda("without a GPU there is none to see, and the sweep above says so")
def test_a_worker_sees_its_gpu_only_and_the_sweep_holds_none(tmp_path: Path) -> None:
    """Through all that a sweep does: training images, predictions, pairs and a transfer."""
    other = model(tmp_path / "zoo", "test_vit")
    err = sweep(
        tmp_path, "--models", f"py:toy_models:sees,{other.ref.removeprefix('local-dir:')}",
        "--pairs", "1", "--methods", "kl", "--epochs", "1", "--lr", "0.01", "--augment", "none",
    )  # fmt: skip
    assert_its_gpu_only(tmp_path, err)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_each_of_two_gpus_has_a_worker_of_its_own(tmp_path: Path) -> None:
    names = ("sees", "sees_too", "sees_more", "sees_last")
    models = ",".join(f"py:toy_models:{name}" for name in names)
    err = sweep(tmp_path, "--models", models, "--pairs", "0", "--gpus", "2")
    assert seen(tmp_path) == {("0", 1), ("1", 1)}
    assert "the sweep holds a context: False" in err


@only_on_cuda("without a GPU there is none to name by its UUID")
def test_a_gpu_may_be_named_by_its_uuid(tmp_path: Path) -> None:
    uuid = f"GPU-{str(torch.cuda.get_device_properties(0).uuid).removeprefix('GPU-')}"
    sweep(tmp_path, "--models", "py:toy_models:sees,py:toy_models:first", "--pairs", "0",
          CUDA_VISIBLE_DEVICES=uuid)  # fmt: skip
    assert seen(tmp_path) == {(uuid, 1)}


def assert_its_gpu_only(folder: Path, err: str) -> None:
    """Workers saw one GPU, or none on the CPU; the sweep itself never woke one."""
    assert "the sweep holds a context: False" in err, err
    wanted = (visible(), 1) if torch.cuda.is_available() else ("", 0)
    assert seen(folder) == {wanted}


def visible() -> str:
    """The first GPU that this process may use, as its workers should name it."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"


def seen(folder: Path) -> set[tuple[Any, Any]]:
    """What workers found: CUDA_VISIBLE_DEVICES, and the number of devices."""
    lines = (folder / "seen.jsonl").read_text().splitlines()
    workers = [found for found in map(json.loads, lines) if found["worker"]]
    return {(found["visible"], found["count"]) for found in workers}
