"""A model of another library, as timm's are used, and the images as that library prepares them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from kt_cli.errors import UsageError
from kt_cli.zoo.preprocessing import Geometry, normaliser

SIZES = (480, 360), (200, 330)  # of pictures, width and height
CLOSE = 2.0  # grey levels on average: libraries round, and smooth, in ways of their own


@dataclass(frozen=True)
class Origin:
    """What a saved folder says, so that its model can be built again."""

    config: dict[str, Any]  # of config.json
    loading: str  # lines of Python that load it from there
    files: dict[str, str] = field(default_factory=dict)  # name -> text of others


class Wrapped(nn.Module):
    """Gives logits (n, C) where `inner` gives them, alone or with more."""

    def __init__(
        self, inner: nn.Module, num_classes: int, data_config: Mapping[str, Any], origin: Origin
    ) -> None:
        super().__init__()
        self.inner, self.num_classes, self.origin = inner, num_classes, origin
        self.pretrained_cfg = dict(data_config)
        self.weights_id = ""  # of zero-shot models: what their weights are before the classes

    def forward(self, images: Tensor) -> Tensor:
        said = self.inner(images)
        return said if isinstance(said, Tensor) else cast(Tensor, said.logits)

    def get_classifier(self) -> nn.Module | None:
        """The linear layer that the labels' logits come from, if there is one."""
        head = last_layer(self.inner, self.num_classes)
        return head[1] if head is not None and isinstance(head[1], nn.Linear) else None

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new last layer in place of the present one; UsageError where there is none."""
        head = last_layer(self.inner, self.num_classes)
        if head is None:
            raise UsageError("it has no classifier of a known kind that could be replaced")
        name, old = head
        width = old.weight.shape[1]
        new: nn.Module = nn.Linear(width, num_classes)
        if isinstance(old, nn.Conv2d):
            new = nn.Conv2d(width, num_classes, 1)
        parent, _, last = name.rpartition(".")
        setattr(self.inner.get_submodule(parent), last, new)
        self.num_classes = num_classes


def last_layer(module: nn.Module, num_classes: int) -> tuple[str, Any] | None:
    """The last linear layer, or convolution of one pixel, with so many outputs, and its name."""
    found = [
        (name, part)
        for name, part in module.named_modules()
        if (isinstance(part, nn.Linear) and part.out_features == num_classes)
        or (
            isinstance(part, nn.Conv2d)
            and part.out_channels == num_classes
            and part.kernel_size == (1, 1)
        )
    ]
    return found[-1] if found else None  # those before it are auxiliary


def prepared_alike(
    edges: Iterable[float],
    stated: Mapping[str, Any],
    prepare: Callable[[Image.Image], Tensor],
    name: str,
) -> dict[str, Any]:
    """The data configuration that prepares pictures as `prepare` of a library does.

    Args:
        edges: lengths that an image's shorter edge, or both, may be scaled to before the crop.
        stated: mean, std and interpolation.
        prepare: gives (3, h, w), normalised.

    Raises:
        UsageError: none does, so that the model would see other images here than there.
    """
    pictures = [_picture(size) for size in SIZES]
    theirs = [prepare(picture).float() for picture in pictures]
    sizes = {tuple(image.shape) for image in theirs}
    if len(sizes) == 1:
        (size,) = sizes
        for edge in edges:
            for mode in ("center", "squash"):
                share = min(size[1:]) / edge
                config = {**stated, "input_size": size, "crop_pct": share, "crop_mode": mode}
                ours = [_ours(picture, config) for picture in pictures]
                if all(_near(a, b, config["std"]) for a, b in zip(ours, theirs, strict=True)):
                    return config
    raise UsageError(
        f"{name} is given images that are prepared in a way that kt does not know",
        "Load it in a function of your own, with its data_config: py:module:function.",
    )


def _ours(picture: Image.Image, config: Mapping[str, Any]) -> Tensor:
    pixels = Geometry.of(config).transform()(picture)
    return normaliser(config, torch.device("cpu"))(torch.as_tensor(pixels)[None])[0]


def _near(ours: Tensor, theirs: Tensor, std: Iterable[float]) -> bool:
    """Equal but for rounding: of grey levels, and of where the crop is, by a pixel."""
    shifts = [(down, right) for down in (0, -1, 1) for right in (0, -1, 1)]
    levels = 255 * torch.tensor(list(std)).view(-1, 1, 1)
    apart = (levels * (ours.roll(by, (1, 2)) - theirs)[:, 1:-1, 1:-1] for by in shifts)
    return any(bool(difference.abs().mean() < CLOSE) for difference in apart)


def _picture(size: tuple[int, int]) -> Image.Image:
    """A smooth one, on which a shift of some pixels shows and details of a filter do not."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
