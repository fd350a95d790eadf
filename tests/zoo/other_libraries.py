"""Small models of other libraries, with random weights, saved as these libraries do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import get_model

TOWERS = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def torchvision_file(folder: Path, name: str = "squeezenet1_1", **arguments: Any) -> Path:
    torch.manual_seed(0)
    file = folder / "mine.pth"
    torch.save(get_model(name, weights=None, **arguments).state_dict(), file)
    return file


def saved_vit(folder: Path, labels: int = 5, **processor: Any) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8, num_labels=labels, initializer_range=0.5,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.ViTImageProcessor(**{"size": size, **processor}).save_pretrained(folder)
    return folder


def saved_clip(folder: Path) -> Path:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    folder.mkdir()
    torch.save(open_clip.CLIP(**TOWERS).state_dict(), folder / "open_clip_pytorch_model.bin")
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"}
    config = {"model_cfg": TOWERS, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder
