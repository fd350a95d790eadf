"""Decoding images into batches, in worker processes where it pays."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kt_cli.data.images import ImageSet
from kt_cli.errors import KtError

Transform = Callable[[Image], Tensor]
SMALL = 5_000


def default_workers(n: int) -> int:
    """Worker processes for n images: none where starting them costs more than they save.

    A process's threads are its share of the machine, so its workers are not more.
    """
    return 0 if n < SMALL else min(8, torch.get_num_threads())


def batches(
    images: ImageSet, transform: Transform, batch_size: int, workers: int | None = None
) -> Iterator[Tensor]:
    """Transformed images in order, stacked into (b, …) batches.

    Raises:
        DataError: an image cannot be decoded; the message names it.
    """
    count = default_workers(len(images)) if workers is None else workers
    loader: DataLoader[Any] = DataLoader(
        _Transformed(images, transform),
        batch_size=batch_size,
        num_workers=count,
        collate_fn=_stack,
        worker_init_fn=_quiet_worker,
        pin_memory=torch.cuda.is_available(),
    )
    for batch in loader:
        if isinstance(batch, KtError):
            raise batch
        yield batch


class _Transformed(Dataset[Any]):
    """Errors travel as values: a worker that raises would bury the cause in its traceback."""

    def __init__(self, images: ImageSet, transform: Transform) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor | KtError:
        try:
            return self.transform(self.images.read(i))
        except KtError as error:
            return error


def _stack(items: list[Tensor | KtError]) -> Tensor | KtError:
    error = next((item for item in items if isinstance(item, KtError)), None)
    return error or torch.stack([item for item in items if isinstance(item, Tensor)])


def _quiet_worker(_: int) -> None:
    # submitit preempts with USR2; decoding workers inherit its handler and must not run it.
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    torch.set_num_threads(1)
