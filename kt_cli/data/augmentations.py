"""Augmentations of training views, for whole batches and on any device.

(b, 3, S, S) uint8, and (b, DRAWS) uniform draws on the CPU, so that which images an operation is
for is known without asking the device: gives (b, 3, S, S) in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from kt_cli.device import send

GREY = (0.299, 0.587, 0.114)
DRAWS = 16  # random numbers per view; more than any augmentation uses, so that adding one is free
CONTRAST, SATURATION = 1, 2  # of 0 to 3: brightness is the first operation, hue the last
NEVER = -1  # turn
# Sixths of the circle: cyan, magenta and yellow have the least red, green and blue.
LEAST = torch.tensor([3.0, 5.0, 1.0])
Augment = Callable[[Tensor, Tensor], Tensor]


def is_random(augment: str) -> bool:
    """Whether each epoch has views of its own."""
    return augment != "none"


def unit(pixels: Tensor) -> Tensor:
    """As they are, in [0, 1]."""
    return pixels.float().div_(255)


def _flip(pixels: Tensor, draws: Tensor) -> Tensor:
    which = torch.arange(len(pixels)) + len(pixels) * (draws[:, 0] < 0.5)
    return torch.cat([pixels, pixels.flip(-1)]).index_select(0, send(which, pixels.device))


def _paper(pixels: Tensor, draws: Tensor) -> Tensor:
    """The paper's views: flip (p 0.5), colour distortion (p 0.8, strength 1), grey (p 0.2)."""
    pixels = _flip(pixels, draws)
    images = torch.empty(pixels.shape, device=pixels.device)
    turn_of_hue = draws[:, 6:10].argsort(dim=1).argmax(dim=1).where(draws[:, 1] < 0.8, NEVER)
    _change(images, turn_of_hue == NEVER, lambda some, _: unit(some), pixels, draws)
    for turn in range(4):
        _change(images, turn_of_hue == turn, partial(_distort, turn), pixels, draws[:, 2:10])
    return _change(images, draws[:, 10] < 0.2, lambda some, _: _grey(some), images, draws)


def _affine(pixels: Tensor, draws: Tensor) -> Tensor:
    """Small rotation (±15°), scaling (±10%) and shift (±10%); for images that must not flip."""
    images = unit(pixels)
    angle = (draws[:, 11] * 2 - 1) * math.radians(15)
    scale = 1 + (draws[:, 12] * 2 - 1) * 0.1
    shift = (draws[:, 13:15] * 2 - 1) * 0.2  # in units of half the side
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(send(rows, images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _distort(turn_of_hue: int, pixels: Tensor, draws: Tensor) -> Tensor:
    """SimCLR's colour distortion at strength 1, in an order of its own (draws 4 to 7) for each.

    Of images whose hue has the same turn, so that all of them are blended in the others.
    """
    order = draws[:, 4:8].argsort(dim=1)
    factor = F.pad(0.2 + 1.6 * draws[:, :3], (0, 1)).gather(1, order)  # 1 ± 0.8; hues have none
    weights = [factor, *((1 - factor) * (order == other) for other in (CONTRAST, SATURATION))]
    images = unit(pixels)
    for turn, blend in enumerate(_each(torch.stack(weights).movedim(2, 0)[..., None], images)):
        if turn == turn_of_hue:
            images = _hue(images, (draws[:, 3] * 2 - 1) * 0.2)
        else:
            images = _blend(images, *blend)
    return images


def _change(
    images: Tensor, which: Tensor, adjust: Augment, source: Tensor, draws: Tensor
) -> Tensor:
    """Those images that `which` (b,) tells are the adjusted ones of `source`; in place."""
    chosen = which.nonzero()[:, 0]
    if len(chosen):
        here = send(chosen, images.device)
        images[here] = adjust(source.index_select(0, here), draws[chosen]).expand(-1, 3, -1, -1)
    return images


def _blend(images: Tensor, factor: Tensor, of_mean: Tensor, of_grey: Tensor) -> Tensor:
    """Brightness, contrast and saturation; in place.

    An image times its factor (b, 1, 1, 1), and as much of its mean grey and of its grey.
    """
    grey = _grey(images)
    # By rows, since threads would share a lone image, and add in another order.
    mean = grey.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
    return images.mul_(factor).add_(grey.mul_(of_grey).add_(mean.mul_(of_mean))).clamp_(0, 1)


def _hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by `turn` (in full circles), as through HSV; in place.

    Hues are in sixths of the circle and times chroma, so that nothing is divided. From red (0) by
    green to cyan (3) the hue is 1 + (green + blue - red - least) / chroma, and where there is more
    blue than green as much below 0.
    """
    red, green, blue = images.unbind(1)
    most = torch.maximum(torch.maximum(red, green), blue)
    least = torch.minimum(torch.minimum(red, green), blue)
    chroma = most - least
    hue = (green + blue).sub_(red).add_(chroma).sub_(least).copysign_(green - blue)
    # 3 - |3 - |hue + shift|| is how far it is from where a channel is least.
    shift = _each((6 * turn[:, None] - LEAST + 3) % 6 - 3, images)
    most, least, chroma, hue = (plane[:, None] for plane in (most, least, chroma, hue))
    near = torch.addcmul(hue, chroma, shift, out=images).abs_().sub_(chroma, alpha=3).abs_()
    return torch.clamp(torch.sub(most + chroma, near, out=near), least, most, out=near)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    return (GREY[0] * red).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])[:, None]


def _each(values: Tensor, images: Tensor) -> Tensor:
    return send(values, images.device)[..., None, None]


AUGMENTS: dict[str, Augment] = {
    "none": lambda pixels, _: unit(pixels),
    "flip": lambda pixels, draws: unit(_flip(pixels, draws)),
    "paper": _paper,
    "affine": _affine,
}
