from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kt_cli.cli.app import main
from kt_cli.zoo import load

Kt = Callable[..., tuple[int, str, str]]
SaveTiny = Callable[..., str]


@pytest.fixture
def kt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kt:
    """Run a command in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kt", *arguments])
        try:
            main()
            code = 0
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else 0 if done.code is None else 1
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture
def save_tiny() -> SaveTiny:
    """Save an untrained model of 32 pixels, whose classes are called 0, 1 …; its reference."""

    def save(folder: Path, classes: int = 10, seed: int = 0, arch: str = "test_vit") -> str:
        torch.manual_seed(seed)
        module, config = load.build(arch, classes, 32)
        torch.nn.init.normal_(module.get_classifier().weight, std=0.5)  # type: ignore[operator]
        load.save(
            module, folder, data_config=config, num_classes=classes,
            label_names=[str(i) for i in range(classes)],
            card="", extra={"run_id": "x"},
        )  # fmt: skip
        return f"local-dir:{folder}"

    return save
