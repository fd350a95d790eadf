"""What a model says about every evaluation image: computed once, cached, read by everybody.

One Parquet file per model × data × input size × kind of device below the cache folder, with the
columns `label`, `pred`, `confidence`, `label_prob`, `top5` (n, 5) and, where asked for, `logits`
(n, C) in half precision. A file is complete or absent; an unreadable one is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kt_cli import store
from kt_cli.complementarity.pairs import Outputs
from kt_cli.data.images import ImageSet
from kt_cli.data.loading import batches
from kt_cli.errors import DataError, KtError
from kt_cli.files import cache_folder
from kt_cli.progress import Progress, silent
from kt_cli.spec import EvalSpec, Model, digest, signature
from kt_cli.zoo import load as zoo

BATCH = 128
FORMAT = 1  # of an entry; raise it when what is stored, or how it is computed, changes


@dataclass(frozen=True)
class Predictions:
    """One model's outputs on n images.

    Attributes:
        label: (n,) int64, the truth. pred: (n,) int64, the most probable class.
        confidence: (n,) float32, its probability. label_prob: (n,) float32, the label's.
        top5: (n, min(5, C)) int64, most probable first.
        logits: (n, C) float16, or None where they were not asked for.
        about: weights hash, parameters in millions, input side.
    """

    label: NDArray[np.int64]
    pred: NDArray[np.int64]
    confidence: NDArray[np.float32]
    label_prob: NDArray[np.float32]
    top5: NDArray[np.int64]
    logits: NDArray[np.float16] | None
    about: Mapping[str, str]

    @property
    def right(self) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = self.pred == self.label
        return right

    @property
    def accuracy(self) -> float:
        """Top-1 in percent."""
        return float(100 * self.right.mean())

    @property
    def top5_accuracy(self) -> float | None:
        """Top-5 in percent; None below five classes."""
        if self.top5.shape[1] < 5:
            return None
        return float(100 * (self.top5 == self.label[:, None]).any(axis=1).mean())


def cached(
    model: Model,
    images: ImageSet,
    spec: EvalSpec,
    device: torch.device,
    *,
    logits: bool = False,
) -> Predictions | None:
    """The cached predictions of a model, or None where there are none to use."""
    path = _entry(model, images, spec, device)
    if not path.exists():
        return None
    try:
        columns, about = store.read_arrays(path)
    except DataError:
        return None
    if logits and "logits" not in columns:
        return None
    stored = columns.pop("logits", None)
    return Predictions(**columns, logits=stored if logits else None, about=about)


def predict(
    model: Model,
    images: ImageSet,
    spec: EvalSpec,
    device: torch.device,
    *,
    logits: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> Predictions:
    """Predictions of a model, from the cache or computed and put there.

    Raises:
        ClassMismatch: the model's number of classes is not the data's.
        WeightsUnavailable, DataError: the model or an image cannot be read.
    """
    found = cached(model, images, spec, device, logits=logits)
    if found is not None:
        return found
    loaded = zoo.load(model, len(images.classes), spec.size)
    about = {
        "model": model.key,
        "weights": loaded.weights,
        "params_m": f"{sum(p.numel() for p in loaded.module.parameters()) / 1e6:.6f}",
        "input_size": str(loaded.data_config["input_size"][-1]),
    }
    outputs = evaluate(
        loaded.module,
        loaded.data_config,
        images,
        device,
        keep_logits=logits,
        workers=workers,
        progress=lambda done, total: progress(done, total, model.name),
        about=about,
    )
    columns = {name: getattr(outputs, name) for name in COLUMNS}
    if outputs.logits is not None:
        columns["logits"] = outputs.logits
    store.write_arrays(_entry(model, images, spec, device), columns, dict(outputs.about))
    return outputs


COLUMNS = ("label", "pred", "confidence", "label_prob", "top5")


def evaluate(
    module: nn.Module,
    data_config: Mapping[str, Any],
    images: ImageSet,
    device: torch.device,
    *,
    keep_logits: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    about: Mapping[str, str] | None = None,
) -> Predictions:
    """Run `module` on all images as timm's validate.py would; leaves it in evaluation mode."""
    module = module.to(device).eval()
    transform = zoo.eval_transform(dict(data_config))
    parts: dict[str, list[Tensor]] = {name: [] for name in (*COLUMNS[1:], "logits")}
    done = 0
    for batch in _forward(module, batches(images, transform, BATCH, workers), device):
        labels = torch.from_numpy(images.labels[done : done + len(batch)])
        for name, values in _outputs(batch.float().cpu(), labels).items():
            parts[name].append(values)
        if keep_logits:
            parts["logits"].append(batch.half().cpu())
        done += len(batch)
        progress(done, len(images))
    arrays: dict[str, Any] = {
        name: torch.cat(values).numpy() for name, values in parts.items() if values
    }
    if not np.isfinite(arrays["confidence"]).all():
        raise KtError("the model's outputs are not finite", "Its weights may be damaged.")
    logits = arrays.pop("logits", None)
    return Predictions(label=images.labels, logits=logits, about=dict(about or {}), **arrays)


@torch.inference_mode()
def _forward(module: nn.Module, inputs: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    for batch in inputs:
        yield module(batch.to(device, non_blocking=True))


def _outputs(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What is kept of (b, C) logits, given (b,) labels."""
    probabilities = logits.softmax(dim=1)
    # Ranked by logits, as validate.py does: probabilities of peaked logits tie at zero.
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
    return {
        "pred": ranked[:, 0],
        "confidence": probabilities.gather(1, ranked[:, :1])[:, 0],
        "label_prob": probabilities.gather(1, labels[:, None])[:, 0],
        "top5": ranked,
    }


def _entry(model: Model, images: ImageSet, spec: EvalSpec, device: torch.device) -> Path:
    key = digest([FORMAT, model.key, images.fingerprint, signature(spec), device.type])[:24]
    return cache_folder("predictions") / f"{key}.parquet"


def stacked(predictions: Sequence[Predictions], num_classes: int) -> Outputs:
    """Predictions of several models on the same images as one value for `pairs`."""
    return Outputs(
        labels=predictions[0].label,
        preds=np.stack([p.pred for p in predictions]),
        confidence=np.stack([p.confidence for p in predictions]),
        num_classes=num_classes,
    )
