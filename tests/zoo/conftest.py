from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

SaveModel = Callable[..., Path]


@pytest.fixture
def save_model(tmp_path: Path) -> SaveModel:
    """Write a small untrained model with random weights everywhere, and return its folder."""
    from kt_cli.zoo import load

    def save(name: str, arch: str = "test_vit", classes: int = 10, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        module, config = load.build(arch, classes, 32)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        load.save(
            module,
            tmp_path / name,
            data_config=config,
            num_classes=classes,
            label_names=[f"class {i}" for i in range(classes)],
            card="# card\n",
            extra={"run_id": name},
        )
        return tmp_path / name

    return save
