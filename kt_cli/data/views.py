"""Training views: what a model sees of a training image, as a function of (seed, epoch, index).

A canonical centre crop is flipped and coloured, and only then resized and normalised for each
model: teacher and student see the same picture, and logits on a view can be reused.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from kt_cli.device import send
from kt_cli.errors import unknown
from kt_cli.settings.declared import digest

GREY = (0.299, 0.587, 0.114)
AT_ONCE = 2**28  # bytes of views that are made together for a GPU, or of its memory
AT_ONCE_SHARE = 1 / 128  # at most, since making them takes some times as much
KEPT = 2**29  # bytes of views
DRAWS = 16  # random numbers per view; more than any augmentation uses, so that adding one is free
CONTRAST, SATURATION = 1, 2  # of 0 to 3: brightness is the first operation, hue the last
NEVER = -1  # turn
# Sixths of the circle: cyan, magenta and yellow have the least red, green and blue.
LEAST = torch.tensor([3.0, 5.0, 1.0])
Augment = Callable[[Tensor, Tensor], Tensor]


class Views:
    """Views of n training images, from canonical crops (n, 3, S, S) and labels (n,).

    `key` is the identity of images and crop, for caches of what models say about the views.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        augment: str,
        seed: int,
        device: torch.device,
        key: str = "",
    ) -> None:
        self.labels = torch.from_numpy(labels).to(device)
        self.device = device
        self._pixels, self._seed, self._augment = pixels, seed, find_augment(augment)
        self.deterministic = not is_random(augment)
        self.key = digest([key, augment, None if self.deterministic else seed])
        self._draws: tuple[int, Tensor] | None = None
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._pixels)

    def epoch_key(self, epoch: int) -> str:
        """Identity of the views of an epoch; the same for all where nothing is random."""
        return f"{self.key}/{0 if self.deterministic else epoch}"

    def batch(self, epoch: int, indices: Tensor) -> Tensor:
        """Views `indices` (b,), on the CPU, of an epoch: (b, 3, S, S) in [0, 1] on the device."""
        return self._augmented(epoch, indices, self._picked(indices))

    def stream(
        self,
        epoch: int,
        batches: Sequence[Tensor],
        waited: Callable[[float], object] = lambda seconds: None,
    ) -> Iterator[Tensor]:
        """`batch` of one batch after the other; for a GPU the next is read and queued meanwhile.

        `waited` is told how many seconds each batch's pixels took, or for a GPU its views.
        """
        kept = self._kept.get(epoch)
        if kept is not None:
            yield from (kept[indices] for indices in batches)
            return
        if self.device.type == "cuda":
            yield from self._stream_to_gpu(epoch, batches, waited)
            return
        for indices in batches:
            start = time.perf_counter()
            picked = self._picked(indices)
            waited(time.perf_counter() - start)
            yield self._augmented(epoch, indices, picked)

    def _stream_to_gpu(
        self, epoch: int, batches: Sequence[Tensor], waited: Callable[[float], object]
    ) -> Iterator[Tensor]:
        """Some batches at once, since kernels are the fewer, by a thread of its own.

        It queues its work on the stream that all use, so what it made may be used at once; while
        autograd goes backward, the interpreter is free for it.
        """
        groups = _together(batches, self._at_once)
        with ThreadPoolExecutor(1) as maker:
            coming = [maker.submit(self.batch, epoch, torch.cat(group)) for group in groups[:1]]
            for i, group in enumerate(groups, 1):
                start = time.perf_counter()
                views = coming.pop().result()
                waited(time.perf_counter() - start)
                coming += [maker.submit(self.batch, epoch, torch.cat(g)) for g in groups[i : i + 1]]
                yield from torch.split(views, [len(indices) for indices in group])

    @cached_property
    def _at_once(self) -> int:
        """Images whose views a GPU makes together."""
        memory = torch.cuda.get_device_properties(self.device).total_memory
        size = 4 * int(np.prod(self._pixels.shape[1:]))
        return max(1, int(min(AT_ONCE, AT_ONCE_SHARE * memory)) // size)

    def keep(self, epoch: int) -> None:
        """Make the views of an epoch once for all who ask for them, where a CPU's memory has room.

        Runs go through the same epochs in the same order, so it is the newest that makes room.
        """
        size = 4 * self._pixels.size
        if epoch in self._kept or self.deterministic or self.device.type != "cpu" or size > KEPT:
            return
        if size * (1 + len(self._kept)) > KEPT:
            self._kept.popitem()
        kept = torch.empty(self._pixels.shape)
        for indices in torch.split(torch.arange(len(self)), 64):
            kept[indices[0] : indices[-1] + 1] = self.batch(epoch, indices)
        self._kept[epoch] = kept

    def plain(self, indices: Tensor) -> Tensor:
        """As `batch`, with nothing random done to the images."""
        return _unit(send(self._picked(indices), self.device))

    def here(self, indices: Tensor) -> Tensor:
        """Indices on the device."""
        return send(indices, self.device)

    def _picked(self, indices: Tensor) -> Tensor:
        """(b, 3, S, S) uint8, where `send` takes them from at once."""
        picked = torch.from_numpy(self._pixels[indices.numpy()])
        return picked.pin_memory() if self.device.type == "cuda" else picked

    def _augmented(self, epoch: int, indices: Tensor, picked: Tensor) -> Tensor:
        if self._draws is None or self._draws[0] != epoch:
            generator = torch.Generator().manual_seed(seed_of("views", self._seed, epoch))
            # Row i belongs to sample i, whatever batch it comes in.
            self._draws = epoch, torch.rand(len(self), DRAWS, generator=generator)
        return self._augment(send(picked, self.device), self._draws[1][indices])


def _together(batches: Sequence[Tensor], limit: int) -> list[list[Tensor]]:
    """Successive batches in groups of at most so many images, or of one batch."""
    groups: list[list[Tensor]] = []
    for batch in batches:
        if not groups or sum(map(len, groups[-1])) + len(batch) > limit:
            groups.append([])
        groups[-1].append(batch)
    return groups


def is_random(augment: str) -> bool:
    """Whether each epoch has views of its own."""
    return augment != "none"


def seed_of(*parts: str | int) -> int:
    """A 63-bit seed for a random stream, from what it is for."""
    return int(digest(list(parts))[:16], 16) >> 1


def preprocess(data_config: Mapping[str, Any], device: torch.device) -> Callable[[Tensor], Tensor]:
    """Resize and normalise views (b, 3, S, S) in [0, 1] for a model: gives (b, 3, H, W)."""
    size = tuple(data_config["input_size"][-2:])
    mean, std = (
        torch.tensor(data_config[k], device=device).view(1, 3, 1, 1) for k in ("mean", "std")
    )

    def prepare(images: Tensor) -> Tensor:
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp_(0, 1)
        return (images - mean).div_(std)

    return prepare


# Augmentations: (b, 3, S, S) uint8, and (b, DRAWS) uniform draws on the CPU, so that
# which images an operation is for is known without asking the device.


def _unit(pixels: Tensor) -> Tensor:
    return pixels.float().div_(255)


def _flip(pixels: Tensor, draws: Tensor) -> Tensor:
    which = torch.arange(len(pixels)) + len(pixels) * (draws[:, 0] < 0.5)
    return torch.cat([pixels, pixels.flip(-1)]).index_select(0, send(which, pixels.device))


def _paper(pixels: Tensor, draws: Tensor) -> Tensor:
    """The paper's views: flip (p 0.5), colour distortion (p 0.8, strength 1), grey (p 0.2)."""
    pixels = _flip(pixels, draws)
    images = torch.empty(pixels.shape, device=pixels.device)
    turn_of_hue = draws[:, 6:10].argsort(dim=1).argmax(dim=1).where(draws[:, 1] < 0.8, NEVER)
    _change(images, turn_of_hue == NEVER, lambda some, _: _unit(some), pixels, draws)
    for turn in range(4):
        _change(images, turn_of_hue == turn, partial(_distort, turn), pixels, draws[:, 2:10])
    return _change(images, draws[:, 10] < 0.2, lambda some, _: _grey(some), images, draws)


def _affine(pixels: Tensor, draws: Tensor) -> Tensor:
    """Small rotation (±15°), scaling (±10%) and shift (±10%); for images that must not flip."""
    images = _unit(pixels)
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
    images = _unit(pixels)
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
    "none": lambda pixels, _: _unit(pixels),
    "flip": lambda pixels, draws: _unit(_flip(pixels, draws)),
    "paper": _paper,
    "affine": _affine,
}


def find_augment(name: str) -> Augment:
    """The augmentation called `name`, or UnknownName with the nearest ones."""
    if name not in AUGMENTS:
        raise unknown("augmentation", name, AUGMENTS)
    return AUGMENTS[name]
