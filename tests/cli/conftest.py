from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kt_cli.zoo import load

SaveTiny = Callable[..., str]


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
