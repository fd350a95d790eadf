"""What a model says about every evaluation image, and the cache of it (docs/predictions.md).

One Parquet file per model × data × input size × precision × kind of device, complete or absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kt_cli.data.images import ImageSet
from kt_cli.device import arithmetic
from kt_cli.errors import DataError, WriteError
from kt_cli.files import cache_folder, cached, not_kept
from kt_cli.knowledge.evaluate import BATCH, Columns, Evaluator, evaluate_all
from kt_cli.knowledge.percent import percent
from kt_cli.rows import arrays
from kt_cli.settings import EvalSpec
from kt_cli.settings.declared import digest, signature
from kt_cli.spec import Model
from kt_cli.version import __version__
from kt_cli.zoo.identity import TRAITS, Traits
from kt_cli.zoo.load import Loaded

FORMAT = 3  # of an entry; raise it when what is stored, or how it is computed, changes
COLUMNS = ("pred", "confidence", "label_prob", "top5")


@dataclass(frozen=True)
class Predictions:
    """One model's outputs on the n images of `images`.

    pred: (n,), the most probable class. confidence: (n,), its probability. label_prob: the label's.
    top5: (n, min(5, C)), most probable first; None where it is not known.
    about: docs/predictions.md has the keys. fresh: computed just now, not found.
    path: the cache's file, with `logits` where they were kept. logits: those of others' files.
    """

    images: ImageSet
    pred: NDArray[np.integer]
    confidence: NDArray[np.float32]
    label_prob: NDArray[np.float32]
    top5: NDArray[np.integer] | None
    about: Mapping[str, str]
    path: Path | None = None
    logits: NDArray[np.float32] | None = None
    fresh: bool = False

    @property
    def traits(self) -> Traits:
        """What the model was that said this."""
        return {name: self.about[name] for name in TRAITS if name in self.about}

    @property
    def right(self) -> NDArray[np.bool_]:
        return self.images.right(self.pred)

    @property
    def accuracy(self) -> float:
        """Top-1 in percent."""
        return float(percent(self.right.sum(), len(self.pred)))

    @property
    def top5_accuracy(self) -> float | None:
        """Top-5 in percent; None below five classes."""
        if self.top5 is None or self.top5.shape[1] < 5:
            return None
        right = self.images.right(self.top5.T).any(axis=0)
        return float(percent(right.sum(), len(self.pred)))


def entry(model: Model, images: ImageSet, spec: EvalSpec, device: torch.device) -> Path:
    """Where the predictions of a model are kept."""
    key = digest([FORMAT, model.key, images.fingerprint, signature(spec), arithmetic(device)])[:24]
    return cache_folder("predictions") / f"{key}.parquet"


def about_of(
    loaded: Loaded, model: Model, images: ImageSet, spec: EvalSpec, device: torch.device
) -> dict[str, str]:
    """What an entry says of itself."""
    return {
        "model": model.key,
        "name": model.name,
        "data": images.name,
        "data_fingerprint": images.fingerprint,
        "num_classes": str(len(images.classes)),
        "eval_size": spec.size,
        "amp": spec.amp,
        "device": arithmetic(device),
        "input_size": str(loaded.data_config["input_size"][-1]),
        "params_m": f"{sum(p.numel() for p in loaded.module.parameters()) / 1e6:.6f}",
        "source": loaded.source,
        **loaded.traits(spec.size),
        "class_matching": loaded.matching,
        "kt_version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def kept(
    model: Model, images: ImageSet, spec: EvalSpec, device: torch.device, *, logits: bool = False
) -> Predictions | None:
    """What the cache has of a model, as it is now or was; None where there is nothing whole."""
    path = entry(model, images, spec, device)
    found = cached(path, lambda path: arrays.read(path, COLUMNS))
    if found is None:
        return None
    columns, about = found
    if logits and "logits" not in arrays.info(path).columns:
        return None
    if set(COLUMNS) - set(columns) or len(columns["pred"]) != len(images):
        return None
    return Predictions(images, **columns, about=about, path=path)


def not_cached(model: Model, images: ImageSet, changed: Sequence[str] = ()) -> DataError:
    """What to raise where predictions are not kept, or only of what the model was: `changed`."""
    since = f" as it is: {'; '.join(changed)}" if changed else ""
    return DataError(
        f"the cache has no predictions of {model.name}{since} on {images.name}",
        "Without --cached-only they are computed.",
    )


def renewed(found: Predictions, source: str) -> Predictions:
    """Kept predictions of a model that is what it was, though its files are others; said there."""
    if source in ("", found.about.get("source")):
        return found
    assert found.path is not None
    columns, about = arrays.read(found.path)
    about["source"] = source
    try:
        arrays.write(found.path, columns, about)
    except WriteError as error:
        not_kept(error)
    return replace(found, about=about)


def logits_of(predictions: Predictions, rows: int) -> Iterator[NDArray[np.floating]]:
    """Logits that were kept, in batches of `rows` images: (rows, C) each.

    Raises:
        DataError: the file cannot be read.
    """
    if predictions.path is not None:
        yield from arrays.batches(predictions.path, "logits", rows)
    elif (logits := predictions.logits) is not None:
        yield from (logits[start : start + rows] for start in range(0, len(logits), rows))


def evaluate(
    module: nn.Module,
    data_config: Mapping[str, Any],
    images: ImageSet,
    device: torch.device,
    *,
    amp: str = "",
    batch_size: int = BATCH,
    workers: int | None = None,
    keep: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Predictions:
    """Run `module` on all images as timm's validate.py would; its answers are not kept.

    keep: the images as it sees them are, for evaluations to come.
    """
    evaluators = [Evaluator(module, data_config, device, amp, batch_size)]
    parts: list[Columns] = []
    for _, (said,) in evaluate_all(
        evaluators, images, batch_size=batch_size, workers=workers, keep=keep, progress=progress
    ):
        if isinstance(said, Exception):
            raise said
        parts.append(said)
    return joined(parts, images, {})


def joined(parts: Sequence[Columns], images: ImageSet, about: Mapping[str, str]) -> Predictions:
    """Predictions of batches that follow each other."""
    columns: Columns = {name: np.concatenate([p[name] for p in parts]) for name in COLUMNS}
    return Predictions(images, **columns, about=about)
