"""`kt models` of the user's own checkpoints, predictions and untrained models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Kt = Callable[..., tuple[int, str, str]]


def rows(kt: Kt, *arguments: str) -> list[dict[str, Any]]:
    code, out, err = kt("models", *arguments, "--json")
    assert code == 0, err
    found: list[dict[str, Any]] = json.loads(out)
    return found


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    for name in ("epoch10.pth", "epoch9.pth"):
        (folder / name).write_bytes(name.encode())
    return folder


def test_checkpoints_with_arch(kt: Kt, runs: Path) -> None:
    found = rows(kt, str(runs), "--arch", "vit_s")
    assert [row["name"] for row in found] == ["epoch9.pth", "epoch10.pth"]
    assert {row["arch"] for row in found} == {"vit_small_patch16_224"}
    assert [row["input_size"] for row in found] == [224, 224]
    assert found[0]["path"] == str(runs / "epoch9.pth")
    (row,) = rows(kt, str(runs / "epoch9.pth"), "--arch", "test_vit")
    assert (row["name"], row["arch"], row["input_size"]) == ("epoch9", "test_vit", 160)
    assert [row["path"] for row in rows(kt, f"test_vit@{runs}")] == [
        str(runs / "epoch9.pth"), str(runs / "epoch10.pth"),
    ]  # fmt: skip


def test_models_of_torchvision(kt: Kt, runs: Path) -> None:
    found = rows(kt, "tv:swin_v2_?", f"tv:swin_t@{runs / 'epoch9.pth'}")
    assert [row["name"] for row in found] == [
        "tv:swin_v2_b", "tv:swin_v2_s", "tv:swin_v2_t", "epoch9",
    ]  # fmt: skip
    assert [row["num_classes"] for row in found] == [1000, 1000, 1000, None]
    assert found[-1]["arch"] == "swin_t"


def test_arch_is_for_checkpoints_among_others(kt: Kt, runs: Path) -> None:
    found = rows(kt, "random:test_resnet", str(runs / "epoch9.pth"), "--arch", "test_vit")
    assert [row["arch"] for row in found] == ["test_resnet", "test_vit"]


def test_checkpoints_without_arch(kt: Kt, runs: Path) -> None:
    for reference in (runs, runs / "epoch9.pth"):
        code, out, err = kt("models", str(reference))
        assert (code, out) == (2, "")
        assert "--arch" in err
    code, _, err = kt("models", str(runs), "--arch", "vit_nothing")
    assert code == 2
    assert "vit_nothing" in err


def test_untrained_and_predictions(kt: Kt, tmp_path: Path) -> None:
    (tmp_path / "said.csv").write_text("id,pred\na,1\n")
    code, out, err = kt("models", "random:test_vit#2", f"predictions:{tmp_path / 'said.csv'}")
    assert code == 0
    lines = [line.split() for line in out.splitlines()[1:]]
    assert lines == [["random:test_vit#2", "test_vit", "160"], ["said"]]
    assert "2 models" in err
    assert rows(kt, f"predictions:{tmp_path / 'said.csv'}")[0]["path"] == str(tmp_path / "said.csv")


def test_lists_of_models(kt: Kt, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("resnet18.a1_in1k\nrandom:resnet18\n")
    found = rows(kt, f"@{tmp_path / 'list.txt'}")
    assert [(row["name"], row["arch"]) for row in found] == [
        ("resnet18.a1_in1k", "resnet18"), ("random:resnet18", "resnet18"),
    ]  # fmt: skip
