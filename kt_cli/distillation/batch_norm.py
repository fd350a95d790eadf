"""Running statistics of batch normalisation: updated, kept, or estimated anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kt_cli.data.views import Views, seed_of
from kt_cli.errors import UsageError

IMAGES = 4096  # at most, for an estimate
BATCH = 64


def layers(module: nn.Module) -> list[_BatchNorm]:
    """The layers of a module that keep running statistics."""
    found = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    return [layer for layer in found if layer.track_running_stats]


def statistics(module: nn.Module) -> set[str]:
    """Names in the module's state of all running statistics."""
    mine = {id(buffer) for layer in layers(module) for buffer in layer.buffers()}
    return {name for name, buffer in module.named_buffers() if id(buffer) in mine}


def set_training(module: nn.Module, bn: str) -> None:
    """Training mode; with bn = "eval" the normalisation layers use and keep their statistics."""
    module.train()
    if bn == "eval":
        for layer in layers(module):
            layer.eval()


@contextmanager
def lone_values_named() -> Iterator[None]:
    """Tell by its setting what torch says where a channel has a single value; also a decorator."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UsageError(
            "batch normalisation needs more than one value in each channel, and micro-batches of "
            "one image of this size have no more",
            "Raise --micro-batch, or the size of the images.",
        ) from error


@torch.no_grad()
def recompute(module: nn.Module, views: Views, prepare: Callable[[Tensor], Tensor]) -> None:
    """Estimate running statistics anew, as means over batches of views that nothing distorts.

    Of the training images at most IMAGES are seen, a fixed random choice. Leaves the module in
    evaluation mode.
    """
    normalising = layers(module)
    module.eval()
    if not normalising:
        return
    before = [layer.momentum for layer in normalising]
    for layer in normalising:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean
        layer.train()
    generator = torch.Generator().manual_seed(seed_of("statistics"))
    chosen = torch.randperm(len(views), generator=generator)[:IMAGES]
    for indices in chosen.tensor_split(max(1, round(len(chosen) / BATCH))):
        module(prepare(views.plain(indices)))
    for layer, momentum in zip(normalising, before, strict=True):
        layer.momentum = momentum
    module.eval()
