"""Decoding images into batches, in worker processes where it pays."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kt_cli.cores import cores
from kt_cli.data.images import ImageSet
from kt_cli.device import share_of
from kt_cli.errors import DataError, first_line, warn

Transform = Callable[[Image], Tensor]
WORTH_SECONDS = 1.0
TRIED = 3
PREFETCHED = 2  # batches for each process
SHARED = "/dev/shm"  # noqa: S108 - where processes hand over batches
CPU = torch.device("cpu")


def batches(
    images: ImageSet,
    transforms: Sequence[Transform],
    batch_size: int,
    workers: int | None = None,
    device: torch.device = CPU,
) -> Iterator[list[Tensor]]:
    """Images in order, decoded once: for each batch what each transform makes of it, (b, …).

    On the CPU; pinned only for a GPU, since that makes a context there, which takes memory.
    `workers` are decoding processes; None for as many as pay, none where /dev/shm is too small.

    Raises:
        DataError: an image cannot be decoded, or is not the one of the fingerprint any more.
    """
    dataset = _Transformed(images, transforms)
    workers = _worth(dataset) if workers is None else workers
    workers = _with_room(dataset, workers, batch_size)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size,
        num_workers=workers,
        collate_fn=_stack,
        worker_init_fn=_quiet_worker,
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise images.broken(batch) from batch
        yield batch
    images.require_unchanged()


def _worth(dataset: _Transformed) -> int:
    """Worker processes, at most as many as threads: none where a first look says they cost more."""
    tried = range(0, len(dataset), max(1, len(dataset) // TRIED))[:TRIED]
    start = time.perf_counter()
    for i in tried:
        dataset[i]
    seconds = (time.perf_counter() - start) * len(dataset) / max(1, len(tried))
    return 0 if seconds < WORTH_SECONDS else min(8, torch.get_num_threads())


def _with_room(dataset: _Transformed, workers: int, batch_size: int) -> int:
    """Of so many decoding processes those whose batches shared memory has room for.

    This process has a share of it, as of the cores: others on the machine may need theirs.
    """
    free = _shared_free() * share_of(cores())
    most = workers
    while most and _shared_bytes(dataset, most, batch_size) > free:
        most -= 1
    if most < workers:
        _warn_of_shared(most)
    return most


def _shared_bytes(dataset: _Transformed, workers: int, batch_size: int) -> int:
    """What batches on their way take of shared memory, where one that does not fit hangs."""
    if not dataset.item_bytes and len(dataset):
        dataset[0]  # nothing was read yet
    return dataset.item_bytes * min(len(dataset), (PREFETCHED * workers + 1) * batch_size)


def _shared_free() -> float:
    try:
        return shutil.disk_usage(SHARED).free
    except OSError:  # another system
        return float("inf")


@cache
def _warn_of_shared(most: int) -> None:
    does = f"only {most} decode images" if most else "images are decoded in the process itself"
    warn(
        f"{SHARED} is too small for decoding processes: {does}, which is slower. Start a container "
        "with --shm-size=8g for each GPU (or --ipc=host)."
    )


class _Transformed(Dataset[Any]):
    """Errors travel as values: a worker that raises would bury the cause in its traceback."""

    def __init__(self, images: ImageSet, transforms: Sequence[Transform]) -> None:
        self.images, self.transforms = images, transforms
        self.item_bytes = 0  # of what was read last

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> list[Tensor] | DataError:
        try:
            image = self.images.read(i)
        except DataError as error:
            return error
        try:
            made = [transform(image) for transform in self.transforms]
        except Exception as error:  # of a shape that a transform does not know
            said = f"cannot transform {self.images.ids[i]} of {image.size}: {first_line(error)}"
            return DataError(said, "Repair it, or leave it out.")
        self.item_bytes = sum(tensor.nbytes for tensor in made)
        return made


def _stack(items: list[list[Tensor] | DataError]) -> list[Tensor] | DataError:
    error = next((item for item in items if isinstance(item, DataError)), None)
    if error is not None:
        return error
    return [torch.stack(same) for same in zip(*items, strict=True)]


def _quiet_worker(_: int) -> None:
    # An interrupt from the keyboard reaches the whole group; who decodes is ended by its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # submitit preempts with USR2; decoding workers inherit its handler and must not run it.
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    torch.set_num_threads(1)
