"""--device and --amp are the same in all commands that compute."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kt_cli.cli.options import _use, precision
from kt_cli.device import pick_device
from kt_cli.errors import UsageError
from kt_cli.sweeps import slots
from kt_cli.sweeps.slots import cuda_devices

Kt = Callable[..., tuple[int, str, str]]
SaveTiny = Callable[..., str]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KT_DEVICE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "command", ["complementarity", "transfer", "pretrain", "sweep", "doctor"]
)  # fmt: skip
def test_all_commands_that_compute_have_them(kt: Kt, command: str) -> None:
    page = kt(command, "--help-all")[1]
    assert "      --device <cpu|cuda|cuda:N>\n" in page
    for flag in ("--amp, --no-amp ", "--amp-dtype <float16|bfloat16>"):
        assert (f"      {flag}" in page) == (command != "doctor")


@pytest.mark.parametrize(
    ("seen", "device", "left"),
    [
        (None, "cpu", ""),
        (None, "cuda", None),
        (None, "cuda:2", "2"),
        ("4,7", "cuda:1", "7"),
        ("GPU-a,GPU-b", "cuda:0", "GPU-a"),
        ("4", "cuda:1", ""),
        ("", "cuda:0", ""),
    ],
)
def test_a_device_is_what_is_seen_of_the_gpus(
    monkeypatch: pytest.MonkeyPatch, seen: str | None, device: str, left: str | None
) -> None:
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    _use(device)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == left
    monkeypatch.setattr(torch.cuda, "is_available", lambda: left != "")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(left != ""))
    if device.startswith("cuda") and left == "":
        for ask in (pick_device, cuda_devices):
            with pytest.raises(UsageError, match="torch sees no such GPU"):
                ask()
    else:
        assert pick_device().type == device.partition(":")[0]


@pytest.mark.parametrize(
    ("asked", "visible", "found"),
    [
        ("cpu", None, []),
        ("cpu", "4,7", []),
        ("cuda:1", None, ["1"]),
        ("cuda:1", "4,7", ["7"]),
        ("cuda", "4,7", ["4", "7"]),
        ("", None, ["0", "1"]),
    ],
)
def test_what_python_asks_for_is_what_an_option_does(
    monkeypatch: pytest.MonkeyPatch, asked: str, visible: str | None, found: list[str]
) -> None:
    """There nothing narrows what is seen."""
    monkeypatch.setenv("KT_DEVICE", asked)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(slots, "DRIVER", Path("/"))
    assert cuda_devices() == found
    assert (slots.given_gpu() is None) == (visible is None or asked == "cpu")
    assert pick_device().type == ("cpu" if asked == "cpu" else "cuda")
    assert chosen == ([1] if asked == "cuda:1" else [])


@pytest.mark.parametrize("asked", ["gpu", "cuda:x", "cuda:", "cpu:0", "mps"])
def test_python_too_hears_of_a_device_that_is_none(
    monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setenv("KT_DEVICE", asked)
    with pytest.raises(UsageError, match=f"unknown device '{asked}'"):
        pick_device()


def test_a_gpu_beyond_the_last_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KT_DEVICE", "cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for ask in (pick_device, cuda_devices):
        with pytest.raises(UsageError, match="cuda:2: torch sees no such GPU"):
            ask()


def test_a_gpu_that_is_not_there_is_refused(
    kt: Kt, save_tiny: SaveTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    models = [save_tiny(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    images = ("--data", "digits", "--limit", "20")
    for named, said in (("cuda", "torch sees no such GPU"), ("gpu", "unknown device 'gpu'")):
        code, _, err = kt("complementarity", *models, *images, "--device", named)
        assert code == 2 and said in err
    assert kt("complementarity", *models, *images, "--device", "cpu")[0] == 0


def test_precision_is_said_in_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision(None, None) is None and precision(False, None) == ""
    assert precision(True, None) == "bfloat16" and precision(True, "float16") == "float16"
    assert precision(True, None, on_gpus=True) == "bfloat16"
    with pytest.raises(UsageError, match="without --amp"):
        precision(None, "float16")


def test_a_sweep_takes_it_as_the_other_commands_do(
    kt: Kt, save_tiny: SaveTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models = ",".join(save_tiny(tmp_path / "zoo" / name, seed=i) for i, name in enumerate("ab"))
    sweep = ("sweep", "--models", models, "--data", "digits", "--limit", "20", "--name", "s",
             "--pairs", "0", "--executor", "inline", "--device", "cpu")  # fmt: skip
    assert kt(*sweep, "--amp", "--amp-dtype", "bfloat16")[0] == 0
    assert 'amp = "bfloat16"' in (tmp_path / "results" / "s" / "sweep.toml").read_text()
