"""Models of torchvision, transformers and open_clip in commands, offline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kt_cli.rows import store
from tests.conftest import Kt
from tests.zoo.other_libraries import saved_clip, saved_vit, torchvision_file

FEW = ("--data", "digits", "--limit", "30")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return [
        f"tv:squeezenet1_1@{torchvision_file(tmp_path, num_classes=10)}",
        f"hf:{saved_vit(tmp_path / 'vit', labels=10)}",
        f"clip:{saved_clip(tmp_path / 'tower')}",
    ]


def test_a_comparison(kt: Kt, models: list[str]) -> None:
    code, out, err = kt("complementarity", *models, *FEW, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [model["model"] for model in found["models"]] == ["mine", "vit", "tower"]
    again = kt("complementarity", *models, *FEW, "--json", "--cached-only")
    assert json.loads(again[1])["pairs"] == found["pairs"]


@pytest.mark.parametrize("student", [0, 1, 2], ids=["tv", "hf", "clip"])
def test_a_transfer(student: int, kt: Kt, models: list[str]) -> None:
    """Its student is what the screen says, also when it is loaded from its folder."""
    teacher = models[student - 1]
    code, out, err = kt(
        "transfer", teacher, models[student], *FEW, "--fraction", "0.04", "--epochs", "1",
        "--lr", "0.05", "-b", "16", "-o", "taught", "--json",
    )  # fmt: skip
    assert code == 0, err
    row = json.loads(out)
    code, out, err = kt("complementarity", "taught", teacher, *FEW, "--json")
    assert code == 0, err
    accuracy = json.loads(out)["models"][0]["accuracy"]
    np.testing.assert_allclose(accuracy, row["after_acc"], atol=1e-9)
    card = Path("taught/README.md").read_text()
    assert ("import timm" in card, "PATH/TO" in card) == (False, student > 0)


def test_a_sweep(kt: Kt, models: list[str], tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(
        f"""
        models = {json.dumps(models)}
        [data]
        source = "digits"
        fraction = 0.04
        limit = 30
        [transfer]
        methods = ["kl"]
        pairs = 3
        epochs = 1
        batch_size = 16
        """
    )
    code, _, err = kt("sweep", "s.toml", "--executor", "inline", "-o", "r")
    assert code == 0, err
    rows = store.read([Path("r/s")], "transfer")
    assert len(rows) == 3 and set(rows.status) == {"ok"}
    assert set(rows.teacher) | set(rows.student) == {"mine", "vit", "tower"}
    code, out, err = kt("sweep", "s.toml", "--executor", "inline", "-o", "r")
    assert code == 0 and "Nothing to do" in out + err
