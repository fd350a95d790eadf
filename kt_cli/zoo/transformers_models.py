"""Image classifiers of transformers, with their image processors: folders of save_pretrained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from kt_cli.errors import DataError, UsageError, some_of
from kt_cli.zoo import local_models
from kt_cli.zoo.libraries import require_extra
from kt_cli.zoo.local_models import PROCESSOR
from kt_cli.zoo.wrapped import Origin, Wrapped, prepared_alike

INTERPOLATION = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # as PIL counts
LOADING = """\
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained("PATH/TO/THIS/FOLDER")
"""
OF_KT = ("num_classes", "pretrained_cfg", "label_names", "kt")  # what `save` adds
OF_LEVIT = 256 / 224  # what its processor scales an edge by, and does not say


def opened(folder: Path, name: str) -> nn.Module:
    """The classifier in a folder that `save_pretrained`, or kt, wrote.

    Raises:
        UsageError: transformers is missing, or it is no classifier of images that kt can use.
        DataError: weights are missing.
    """
    require_extra("hf")
    from transformers import AutoModelForImageClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    inner, info = AutoModelForImageClassification.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32,
        output_loading_info=True,
    )  # fmt: skip
    lacking = sorted([*info["missing_keys"], *(each[0] for each in info["mismatched_keys"])])
    if lacking:
        raise DataError(
            f"{name} has no weights of {some_of(lacking, 3)}",
            "Fine-tune it as a classifier of images first.",
        )
    if inner.main_input_name != "pixel_values":
        raise UsageError(
            f"{name} ({inner.config.model_type}) takes no images but {inner.main_input_name}",
            "Load it in a function of your own: py:module:function.",
        )
    config = local_models.read_config(folder)
    files = {}
    if (folder / PROCESSOR).is_file():
        files[PROCESSOR] = (folder / PROCESSOR).read_text(encoding="utf-8")
    data_config = config.get("pretrained_cfg") or _data_config(folder, name)
    said = json.loads(inner.config.to_json_string(use_diff=False))
    kept = {key: value for key, value in said.items() if key not in OF_KT}
    return Wrapped(inner, inner.config.num_labels, data_config, Origin(kept, LOADING, files))


def _data_config(folder: Path, name: str) -> dict[str, Any]:
    """What the image processor does, in timm's words."""
    from transformers import AutoImageProcessor

    if not (folder / PROCESSOR).is_file():
        raise DataError(
            f"{name} does not say how it is given images: it has no {PROCESSOR}",
            "Save its processor too: AutoImageProcessor.from_pretrained(NAME).save_pretrained.",
        )
    made = AutoImageProcessor.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    normal = getattr(made, "do_normalize", False)
    stated = {
        "mean": _three(made.image_mean if normal else 0.0),
        "std": _three(made.image_std if normal else 1.0),
        "interpolation": INTERPOLATION[int(getattr(made, "resample", None) or 0)],
    }

    def prepare(image: Image.Image) -> Tensor:
        pixels: Tensor = made(image, return_tensors="pt")["pixel_values"][0]
        return pixels

    return prepared_alike(_edges(made), stated, prepare, name)


def _edges(processor: Any) -> Iterator[float]:
    """Lengths that a processor may scale an image's edge to, which only its code knows."""
    size = dict(processor.size or {})
    for edge in filter(None, (size.get("shortest_edge"), size.get("height"))):
        yield edge
        if share := getattr(processor, "crop_pct", None):
            yield int(edge / share)
        yield int(edge * OF_LEVIT)


def _three(value: Any) -> tuple[float, ...]:
    return (float(value),) * 3 if isinstance(value, (int, float)) else tuple(map(float, value))
