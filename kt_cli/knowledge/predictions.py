"""What a model says about every evaluation image, and the cache of it (docs/predictions.md).

One Parquet file per model × data × input size × precision × kind of device, complete or absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kt_cli.data.images import ImageSet
from kt_cli.errors import WriteError
from kt_cli.files import cache_folder, not_kept
from kt_cli.knowledge.significance import percent
from kt_cli.rows import arrays
from kt_cli.settings import EvalSpec
from kt_cli.settings.declared import digest, signature
from kt_cli.spec import Model
from kt_cli.zoo.identity import TRAITS, Traits

FORMAT = 3  # of an entry; raise it when what is stored, or how it is computed, changes
COLUMNS = ("pred", "confidence", "label_prob", "top5")
Columns = dict[str, Any]
BATCH = 128  # images of a forward pass


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


def entry(model: Model, images: ImageSet, spec: EvalSpec, arithmetic: str) -> Path:
    """Where the predictions of a model are kept; arithmetic: of the device (`precision`)."""
    key = digest([FORMAT, model.key, images.fingerprint, signature(spec), arithmetic])[:24]
    return cache_folder("predictions") / f"{key}.parquet"


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


def joined(parts: Sequence[Columns], images: ImageSet, about: Mapping[str, str]) -> Predictions:
    """Predictions of batches that follow each other."""
    columns: Columns = {name: np.concatenate([p[name] for p in parts]) for name in COLUMNS}
    return Predictions(images, **columns, about=about)
