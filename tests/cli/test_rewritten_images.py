"""Images that are rewritten in place between two commands: every number is of the new ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

Kt = Callable[..., tuple[int, str, str]]
SaveTiny = Callable[..., str]
Transfer = Callable[[str, str], dict[str, Any]]
MEASURED = ("teacher_acc", "student_acc", "after_acc", "pos_flips", "neg_flips", "final_loss")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Bitmaps, whose size tells nothing; more than a sample of a few hundred would see."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 150)):
        for name in "01":
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (2, 2, 3), np.uint8)
                image = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)
                image.save(folder / f"{i}.bmp")
    return tmp_path / "data"


@pytest.fixture
def moving_nothing(
    kt: Kt, save_tiny: SaveTiny, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Transfer:
    """The row of a transfer with a learning rate of nearly nothing, all in one process."""
    monkeypatch.chdir(tmp_path)
    models = [
        save_tiny(tmp_path / arch, 2, seed, f"test_{arch}")
        for seed, arch in enumerate(("mambaout", "vit"))
    ]

    def transfer(method: str, output: str) -> dict[str, Any]:
        code, out, err = kt(
            "transfer", *models, "--data", str(root), "-m", method, "--lr", "1e-9", "--epochs", "1",
            "-b", "16", "--micro-batch", "16", "--augment", "none", "--crop", "1", "--side", "32",
            "-o", output, "--json",
        )  # fmt: skip
        assert code == 0, err
        row: dict[str, Any] = json.loads(out)
        return row

    return transfer


def invert(path: Path) -> None:
    """In place, with the same size, and the time of change put back."""
    before = path.stat()
    ImageOps.invert(Image.open(path)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize(("split", "method"), [("val", "self"), ("train", "kl")])
def test_a_transfer_that_moves_nothing_has_no_delta(
    moving_nothing: Transfer,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    split: str,
    method: str,
) -> None:
    first = moving_nothing(method, "first")
    for path in (root / split).rglob("*.bmp"):
        if int(path.stem) % 2:  # a sample may miss them
            invert(path)
    warm = moving_nothing(method, "warm")
    monkeypatch.setenv("KT_CACHE", str(tmp_path / "cold"))
    cold = moving_nothing(method, "cold")
    for row in (first, warm, cold):
        assert row["delta"] == row["gain"] == row["loss"] == 0
    assert {name: warm[name] for name in MEASURED} == {name: cold[name] for name in MEASURED}
    changed = ("teacher_acc", "student_acc") if split == "val" else ("final_loss",)
    assert all(warm[name] != first[name] for name in changed)
    data = "eval_data" if split == "val" else "train_data"
    assert warm[data] == cold[data] != first[data]
