"""Running models over images, as timm's validate.py would: many models on one stream of images.

Images are decoded once for all; models that share a geometry share the transformed image too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kt_cli.data.canonical import evaluated
from kt_cli.data.images import ImageSet
from kt_cli.data.loading import batches
from kt_cli.device import context_lost, landing, out_of_memory, place
from kt_cli.errors import KtError, without_frames
from kt_cli.knowledge.predictions import BATCH, Columns, Predictions, joined
from kt_cli.zoo.preprocessing import Geometry, normaliser

_Arrived = Callable[[], Columns]  # waits for what is on its way
Item = TypeVar("Item")


class OutputsNotFinite(KtError):
    """A model says what is no number."""


class Evaluator:
    """One model's forward passes; leaves it in evaluation mode on the device.

    The batch size is halved when the device's memory is exhausted, and stays so.

    Args:
        data_config: preprocessing as `kt_cli.zoo.load.Loaded.data_config`.
        amp: type of mixed precision, "float16" or "bfloat16"; "" for full precision.
    """

    def __init__(
        self,
        module: nn.Module,
        data_config: Mapping[str, Any],
        device: torch.device,
        amp: str = "",
        batch_size: int = BATCH,
    ) -> None:
        self.batch_size = batch_size
        self.geometry = Geometry.of(data_config)
        self._normalise = normaliser(data_config, device)
        self.device, self.amp = device, getattr(torch, amp) if amp else None
        self.module = place(module, device, amp).eval()

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits (b, C) in float32 of (b, c, h, w) uint8 images."""
        while True:
            try:
                parts = torch.split(images, self.batch_size)
                return torch.cat([self._forward(part) for part in parts])
            except Exception as error:
                if not out_of_memory(error):
                    raise
                if self.batch_size == 1:
                    raise KtError("one image alone exhausts the device's memory") from error
            self.batch_size //= 2
            torch.cuda.empty_cache()

    def _forward(self, images: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.amp, enabled=self.amp is not None):
            logits: Tensor = self.module(self._normalise(images))
        return logits.float()


def evaluate_all(
    evaluators: Sequence[Evaluator],
    images: ImageSet,
    *,
    keep_logits: bool = False,
    batch_size: int = BATCH,
    workers: int | None = None,
    keep: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[slice, list[Columns | Exception]]]:
    """Batch after batch: its place among the images, and what each model says about it.

    A model that fails gives its exception in place of values, once; then empty columns. A batch is
    read when the next one is on its way, so that a GPU need not wait for whoever decodes and reads.
    keep: the images as they are seen, for evaluations to come, where the cache has room.

    Raises:
        DataError: an image cannot be decoded.
    """
    device = evaluators[0].device
    geometries = list(dict.fromkeys(e.geometry for e in evaluators))
    decoded = _seen(images, geometries, batch_size, workers, keep, device)
    labels = torch.from_numpy(images.labels).to(device)
    failed: set[Evaluator] = set()

    def asked() -> Iterator[tuple[slice, list[_Arrived | Exception]]]:
        start = 0
        for seen in decoded:
            inputs = dict(zip(geometries, seen, strict=True))
            here = slice(start, start + len(seen[0]))
            yield here, [
                dict if e in failed
                else _tried(partial(_ask, e, inputs[e.geometry], labels[here], keep_logits))
                for e in evaluators
            ]  # fmt: skip
            start = here.stop

    for here, answers in _one_behind(asked()):
        tried = [a if isinstance(a, Exception) else _tried(a) for a in answers]
        pairs = list(zip(evaluators, tried, strict=True))
        found: list[Columns | Exception] = [{} if e in failed else said for e, said in pairs]
        failed |= {e for e, said in pairs if isinstance(said, Exception)}
        yield here, found
        progress(here.stop, len(images))


def evaluate(
    module: nn.Module,
    data_config: Mapping[str, Any],
    images: ImageSet,
    device: torch.device,
    *,
    amp: str = "",
    workers: int | None = None,
    keep: bool = False,
) -> Predictions:
    """Run `module` on all images as timm's validate.py would; its answers are not kept.

    keep: the images as it sees them are, for evaluations to come.
    """
    evaluators = [Evaluator(module, data_config, device, amp)]
    parts: list[Columns] = []
    for _, (said,) in evaluate_all(evaluators, images, workers=workers, keep=keep):
        if isinstance(said, Exception):
            raise said
        parts.append(said)
    return joined(parts, images, {})


def _seen(
    images: ImageSet, geometries: Sequence[Geometry], batch_size: int, workers: int | None,
    keep: bool, device: torch.device,
) -> Iterator[list[Tensor]]:  # fmt: skip
    """Batches of images as each geometry shows them."""
    transforms = [geometry.transform() for geometry in geometries]
    if keep:
        kept = [evaluated(images, geometry, transform, geometry.input_size)
                for geometry, transform in zip(geometries, transforms, strict=True)]  # fmt: skip
        there = [pixels for pixels in kept if pixels is not None]
        if len(there) == len(kept):
            return _slices(images, there, batch_size, device)
    return batches(images, transforms, batch_size, workers, device)


def _slices(
    images: ImageSet, kept: Sequence[NDArray[np.uint8]], batch_size: int, device: torch.device
) -> Iterator[list[Tensor]]:
    for start in range(0, len(images), batch_size):
        yield [_read(pixels[start : start + batch_size], device) for pixels in kept]
    images.require_unchanged()


def _read(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    found = landing(pixels.shape, device)
    np.copyto(found.numpy(), pixels)
    return found


def _one_behind(items: Iterator[Item]) -> Iterator[Item]:
    """Each item when the next one has been made."""
    before: list[Item] = []
    for item in items:
        yield from before
        before = [item]
    yield from before


def _tried(act: Callable[[], Item]) -> Item | Exception:
    """What comes of it, or the error: a model's own code may raise anything."""
    try:
        return act()
    except Exception as error:
        if context_lost():
            raise
        return without_frames(error)


def _ask(evaluator: Evaluator, images: Tensor, labels: Tensor, keep_logits: bool) -> _Arrived:
    """Columns on their way from the device; they are waited for where they are read."""
    kept = _columns(evaluator(images), labels, keep_logits)
    copies = {name: values.to("cpu", non_blocking=True) for name, values in kept.items()}
    if labels.is_cuda:
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()

    def arrived() -> Columns:
        columns = {name: values.numpy() for name, values in copies.items()}
        if labels.is_cuda:
            copied.synchronize()
            # What is read may be kept for long, and pinned memory is scarce.
            columns = {name: values.copy() for name, values in columns.items()}
        if not np.isfinite(columns["confidence"]).all():
            raise OutputsNotFinite(
                "the model's outputs are not finite",
                "float16 may not hold them: try bfloat16, or full precision."
                if evaluator.amp == torch.float16 else "Its weights may be damaged.",
            )  # fmt: skip
        return columns

    return arrived


def label_probability(probabilities: Tensor, labels: Tensor) -> Tensor:
    """(b,) what (b, C) probabilities give (b,) labels; NaN where there is no label (below 0)."""
    found = probabilities.gather(1, labels.clamp_min(0)[:, None])[:, 0]
    return found.where(labels >= 0, torch.nan)


def likeliest(logits: Tensor) -> Tensor:
    """The (b, 5) classes, or as many as there are, from the likeliest down, of (b, C) logits."""
    # Ranked by logits, as validate.py does: probabilities of peaked logits tie at zero.
    return logits.topk(min(5, logits.shape[1]), dim=1).indices


@torch.inference_mode()
def _columns(logits: Tensor, labels: Tensor, keep_logits: bool) -> dict[str, Tensor]:
    """What is kept of (b, C) logits, given (b,) labels."""
    probabilities = logits.softmax(dim=1)
    ranked = likeliest(logits)
    top5 = ranked.to(torch.int16 if logits.shape[1] < 2**15 else torch.int32)
    kept = {
        "pred": top5[:, 0],
        "confidence": probabilities.gather(1, ranked[:, :1])[:, 0],
        "label_prob": label_probability(probabilities, labels),
        "top5": top5,
    }
    return kept | ({"logits": _halved(logits)} if keep_logits else {})


def _halved(logits: Tensor) -> Tensor:
    """(b, C) logits in half precision; rows that it does not hold are moved to a maximum of 0."""
    most = torch.finfo(torch.half).max
    beyond = logits.abs().amax(dim=1, keepdim=True) > most
    moved = logits - logits.amax(dim=1, keepdim=True)
    return torch.where(beyond, moved, logits).clamp(min=-most).half()
