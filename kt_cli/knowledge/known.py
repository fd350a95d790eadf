"""What can be told of models without loading them: from the cache, and from files of others.

Nothing here needs torch, so that a second question costs no more than reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kt_cli import precision
from kt_cli.data.images import ImageSet
from kt_cli.errors import DataError, KtError
from kt_cli.files import cached
from kt_cli.knowledge import external
from kt_cli.knowledge.predictions import BATCH, COLUMNS, Predictions, entry
from kt_cli.rows import arrays
from kt_cli.settings import EvalSpec
from kt_cli.spec import Model
from kt_cli.zoo import identity, published, scheme, target

if TYPE_CHECKING:
    import torch

REUSE, REFRESH, CACHED_ONLY = "reuse", "refresh", "cached-only"
READERS = 8  # threads: Arrow reads and decompresses while others run
Found = Predictions | Exception


@dataclass(frozen=True)
class How:
    """How models are evaluated, and what the cache is asked."""

    spec: EvalSpec
    # None for the usual one, which takes torch to find, where there may be a GPU.
    asked_device: torch.device | None = None
    logits: bool = False  # keep them too
    top5: bool = True  # read those that are kept, most of what is read of a model
    # "reuse" what the cache has of the models as they are, "refresh" it, or be content with it
    # ("cached-only"); then published weights need not be there.
    mode: str = REUSE
    batch_size: int = BATCH  # images per forward pass, halved where memory is exhausted
    workers: int | None = None  # decoding processes; None for as many as pay

    @cached_property
    def device(self) -> torch.device:
        if self.asked_device is not None:
            return self.asked_device
        from kt_cli.device import pick_device

        return pick_device()

    @cached_property
    def arithmetic(self) -> str:
        """Of the device; without torch where it can only be the CPU."""
        if self.asked_device is None and precision.only_cpu():
            return precision.arithmetic("cpu")
        return precision.arithmetic(self.device.type)


def known(models: Sequence[Model], images: ImageSet, how: How) -> dict[str, Found]:
    """What can be told of models without loading them, by their keys."""
    with ThreadPoolExecutor(READERS) as pool:
        read = list(pool.map(lambda model: _read(model, images, how), models))
    # Not in threads, since the first may import timm: modules that import each other would wait.
    told = (_as_it_is(m, found, images, how) for m, found in zip(models, read, strict=True))
    return {m.key: found for m, found in zip(models, told, strict=True) if found is not None}


def _read(model: Model, images: ImageSet, how: How) -> Found | None:
    if scheme(model.ref) == "predictions":
        try:
            file = external.read_external(Path(target(model.ref)))
            return external.predictions(file, images, model.key)
        except KtError as error:
            return error
    return kept(model, images, how)


def _as_it_is(model: Model, found: Found | None, images: ImageSet, how: How) -> Found | None:
    """What was read of a model, if it is still what it was."""
    if isinstance(found, Exception) or scheme(model.ref) == "predictions":
        return found
    if found is None:
        return not_cached(model, images) if how.mode == CACHED_ONLY else None
    source = identity.source(model)
    gone = not source and published(model.ref) and how.mode == CACHED_ONLY
    return found if gone or (source and found.about.get("source") == source) else None


def kept(model: Model, images: ImageSet, how: How) -> Predictions | None:
    """What the cache has of a model, as it is now or was.

    None where there is nothing whole, no logits that are asked for, or it is not to be asked.
    """
    if how.mode == REFRESH:
        return None
    path = entry(model, images, how.spec, how.arithmetic)
    wanted = [name for name in COLUMNS if how.top5 or name != "top5"]
    found = cached(path, lambda path: arrays.read(path, wanted))
    if found is None:
        return None
    columns, about = found
    if how.logits and "logits" not in arrays.info(path).columns:
        return None
    if {*wanted} - {*columns} or len(columns["pred"]) != len(images):
        return None
    return Predictions(images, **{"top5": None, **columns}, about=about, path=path)


def not_cached(model: Model, images: ImageSet, changed: Sequence[str] = ()) -> DataError:
    """What to raise where predictions are not kept, or only of what the model was: `changed`."""
    since = f" as it is: {'; '.join(changed)}" if changed else ""
    return DataError(
        f"the cache has no predictions of {model.name}{since} on {images.name}",
        "Without --cached-only they are computed.",
    )
