"""How a model sees an image: geometry on the PIL image, then normalisation on the device, as timm.

Models that share a geometry share decoded images, whatever their mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """Size and crop of a model's input. fill: colour of the border, where there is one."""

    input_size: tuple[int, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str
    fill: tuple[float, ...] | None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Geometry:
        """From a data config as timm's `resolve_model_data_config` gives it."""
        return cls(
            tuple(config["input_size"]),
            config["interpolation"],
            config["crop_pct"],
            config["crop_mode"],
            tuple(config["mean"]) if config["crop_mode"] == "border" else None,
        )

    def transform(self) -> Callable[[Image.Image], Tensor]:
        """timm's evaluation transform without normalisation: gives (c, h, w) uint8."""
        from timm.data.transforms_factory import create_transform
        from torchvision.transforms import Compose, Grayscale

        settings: dict[str, Any] = {**asdict(self), "use_prefetcher": True}
        fill = settings.pop("fill")
        if fill is not None:
            settings["mean"] = fill  # timm takes the border's colour from there
        evaluate = create_transform(**settings)
        grey = Compose([Grayscale(), evaluate]) if self.input_size[0] == 1 else evaluate
        return cast("Callable[[Image.Image], Tensor]", grey)


def normaliser(config: Mapping[str, Any], device: torch.device) -> Callable[[Tensor], Tensor]:
    """(b, c, h, w) uint8 -> float32 on the device, in timm's order of operations."""
    from timm.data import loader

    adapt: Any = loader.adapt_to_chs
    channels = config["input_size"][0]
    mean, std = (
        torch.tensor([255 * x for x in adapt(config[key], channels)], device=device).view(-1, 1, 1)
        for key in ("mean", "std")
    )

    def normalise(batch: Tensor) -> Tensor:
        pixels = batch.to(device, non_blocking=True).float()
        return pixels.sub_(mean).div_(std)

    return normalise
