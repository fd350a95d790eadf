"""Predictions of many models: from the cache, from files of others, or computed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kt_cli.data.images import ImageSet
from kt_cli.knowledge.known import CACHED_ONLY, REFRESH, REUSE, How, known
from kt_cli.knowledge.predictions import Predictions
from kt_cli.progress import Progress, silent
from kt_cli.spec import Model
from kt_cli.zoo import scheme

if TYPE_CHECKING:
    from kt_cli.knowledge.pairs import Outputs

__all__ = ["CACHED_ONLY", "REFRESH", "REUSE", "How", "outputs_of", "predict", "predict_all"]

AT_ONCE = 64  # models whose predictions are held as they are in the cache


def predict(model: Model, images: ImageSet, how: How, progress: Progress = silent) -> Predictions:
    """Predictions of one model.

    Raises:
        ClassMismatch: the model's classes are not the data's.
        WeightsUnavailable, DataError: the model, an image or a file cannot be read.
    """
    (found,) = predict_all([model], images, how, progress)
    if isinstance(found, Exception):
        raise found
    return found


def predict_all(
    models: Sequence[Model], images: ImageSet, how: How, progress: Progress = silent
) -> list[Predictions | Exception]:
    """Predictions of each model, in order, or what went wrong with that one.

    Raises:
        DataError: an image cannot be decoded. WriteError: logits cannot be kept.
        DeviceLost: the GPU computes nothing more for this process; any of the models may be why.
    """
    if any(scheme(model.ref) != "predictions" for model in models):
        images.identify(progress)
    found = known(models, images, how)
    missing = [model for model in models if model.key not in found]
    if missing:
        from kt_cli.knowledge.stream import compute

        found |= compute(missing, images, how, progress)
    return [found[model.key] for model in models]


def outputs_of(
    models: Sequence[Model],
    images: ImageSet,
    how: How,
    progress: Progress = silent,
    look: Callable[[Model, Predictions], object] = lambda model, said: None,
) -> Outputs:
    """What M models say, as one value for `pairs`: about 7 bytes for each model and image.

    Args:
        look: shown the predictions of each model.

    Raises:
        KtError: as `predict`, for the first model that cannot be evaluated.
    """
    from kt_cli.knowledge.pairs import Outputs

    shape, classes = (len(models), len(images)), len(images.classes)
    preds = np.empty(shape, np.int16 if classes < 2**15 else np.int32)
    right, confidence = np.empty(shape, bool), np.empty(shape, np.float32)
    for start in range(0, len(models), AT_ONCE):
        here = models[start : start + AT_ONCE]
        for row, found in enumerate(predict_all(here, images, how, progress), start):
            if isinstance(found, Exception):
                raise found
            look(models[row], found)
            preds[row], right[row], confidence[row] = found.pred, found.right, found.confidence
    return Outputs(images.labels, right, preds, confidence, classes)
