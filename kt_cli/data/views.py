"""Training views: what a model sees of a training image, as a function of (seed, epoch, index).

A canonical centre crop is flipped and coloured, and only then resized and normalised for each
model: teacher and student see the same picture, and logits on a view can be reused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from kt_cli.data.augmentations import AUGMENTS, DRAWS, is_random, unit
from kt_cli.data.canonical import canonical
from kt_cli.data.remembered import remembered
from kt_cli.data.sources import open_data
from kt_cli.device import landing, pick_device, send
from kt_cli.settings import DataSpec
from kt_cli.settings.declared import digest

AT_ONCE = 2**28  # bytes of views that are made together for a GPU, or of its memory
AT_ONCE_SHARE = 1 / 128  # at most, since making them takes some times as much
KEPT = 2**29  # bytes of views


@remembered(2)
def views_of(data: DataSpec, crop: float, side: int, augment: str, seed: int) -> Views:
    """Views of the training images of `data`."""
    images = open_data(data, training=True).training()
    key = digest([images.fingerprint, crop, side])
    pixels = canonical(images, crop, side)
    return Views(pixels, images.labels, augment, seed, pick_device(), key)


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
        self._pixels, self._seed, self._augment = pixels, seed, AUGMENTS[augment]
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

        The first batch comes alone, for it is waited for. The thread queues its work on the stream
        that all use, so what it made may be used at once; while autograd goes backward, the
        interpreter is free for it.
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
        return unit(send(self._picked(indices), self.device))

    def here(self, indices: Tensor) -> Tensor:
        return send(indices, self.device)

    def _picked(self, indices: Tensor) -> Tensor:
        """(b, 3, S, S) uint8, where `send` takes them from at once."""
        shape = len(indices), *self._pixels.shape[1:]
        picked = landing(shape, self.device)
        # Picking by [] is slower, and copies twice; "clip" lets `take` write without a buffer.
        np.take(self._pixels, indices.numpy(), axis=0, out=picked.numpy(), mode="clip")
        return picked

    def _augmented(self, epoch: int, indices: Tensor, picked: Tensor) -> Tensor:
        if self._draws is None or self._draws[0] != epoch:
            generator = torch.Generator().manual_seed(seed_of("views", self._seed, epoch))
            # Row i belongs to sample i, whatever batch it comes in.
            self._draws = epoch, torch.rand(len(self), DRAWS, generator=generator)
        return self._augment(send(picked, self.device), self._draws[1][indices])


def _together(batches: Sequence[Tensor], limit: int) -> list[list[Tensor]]:
    """The first batch, then the others in groups of at most so many images, or of one batch."""
    groups: list[list[Tensor]] = []
    for batch in batches:
        if len(groups) < 2 or sum(map(len, groups[-1])) + len(batch) > limit:
            groups.append([])
        groups[-1].append(batch)
    return groups


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
