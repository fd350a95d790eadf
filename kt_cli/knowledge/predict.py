"""Predictions of many models: from the cache, from files of others, or computed together.

What is missing is computed on one stream of decoded images, with as many models at once as memory
holds, and goes to the cache batch by batch: memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kt_cli.data.images import ImageSet
from kt_cli.device import context_lost, free_memory, loss_named, out_of_memory
from kt_cli.errors import DataError, KtError, without_frames
from kt_cli.knowledge import external
from kt_cli.knowledge.evaluate import BATCH, Columns, Evaluator, evaluate_all
from kt_cli.knowledge.pairs import Outputs
from kt_cli.knowledge.predictions import Predictions, entry, kept, renewed
from kt_cli.progress import Progress, silent
from kt_cli.rows import arrays
from kt_cli.settings import EvalSpec
from kt_cli.spec import Model
from kt_cli.version import __version__
from kt_cli.zoo import identity, published, scheme, target
from kt_cli.zoo import load as zoo

REUSE, REFRESH, CACHED_ONLY = "reuse", "refresh", "cached-only"
# The rest is for activations, decoded images and whoever else is there.
SHARE_FOR_WEIGHTS = 0.3
AT_ONCE = 64  # models whose predictions are held as they are in the cache


@dataclass(frozen=True)
class How:
    """How models are evaluated, and what the cache is asked.

    Attributes:
        logits: keep them too.
        mode: "reuse" what the cache has of the models as they are, "refresh" it, or be content
            with it ("cached-only"); then published weights need not be there.
        batch_size: images per forward pass, halved where memory is exhausted.
        workers: decoding processes; None for as many as pay.
    """

    spec: EvalSpec
    device: torch.device
    logits: bool = False
    mode: str = REUSE
    batch_size: int = BATCH
    workers: int | None = None


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


@loss_named()
def predict_all(
    models: Sequence[Model], images: ImageSet, how: How, progress: Progress = silent
) -> list[Predictions | Exception]:
    """Predictions of each model, in order, or what went wrong with that one.

    Raises:
        DataError: an image cannot be decoded. WriteError: the cache cannot be written.
        DeviceLost: the GPU computes nothing more for this process; any of the models may be why.
    """
    if any(scheme(model.ref) != "predictions" for model in models):
        images.identify(progress)
    found: dict[str, Predictions | Exception] = {}
    for model in models:
        known = _known(model, images, how)
        if known is not None:
            found[model.key] = known
    missing = [model for model in models if model.key not in found]
    for group in _groups(missing, images, how):
        found |= _compute(group, images, how, progress)
    return [found[model.key] for model in models]


def _known(model: Model, images: ImageSet, how: How) -> Predictions | Exception | None:
    """What can be told without loading the model; None where that is nothing."""
    if scheme(model.ref) == "predictions":
        try:
            return _external(model, images)
        except KtError as error:
            return error
    found = _kept(model, images, how)
    if found is not None:
        source = identity.source(model)
        gone = not source and published(model.ref)
        if source and found.about.get("source") == source:
            return found
        return found if gone and how.mode == CACHED_ONLY else None
    return _not_cached(model, images) if how.mode == CACHED_ONLY else None


def _kept(model: Model, images: ImageSet, how: How) -> Predictions | None:
    if how.mode == REFRESH:
        return None
    return kept(model, images, how.spec, how.device, logits=how.logits)


def _as_loaded(loaded: zoo.Loaded, model: Model, images: ImageSet, how: How) -> Predictions | None:
    """What the cache has of the very model that was loaded; None where it is to be evaluated.

    Raises:
        DataError: the cache alone is to be asked, and has only what the model was.
    """
    found = _kept(model, images, how)
    if found is None:
        return None
    traits = loaded.traits(how.spec.size)
    if found.traits == traits:
        return renewed(found, loaded.source)
    if how.mode == CACHED_ONLY:
        raise _not_cached(model, images, identity.differences(found.traits, traits))
    return None


def _not_cached(model: Model, images: ImageSet, changed: Sequence[str] = ()) -> DataError:
    since = f" as it is: {'; '.join(changed)}" if changed else ""
    return DataError(
        f"the cache has no predictions of {model.name}{since} on {images.name}",
        "Without --cached-only they are computed.",
    )


def _external(model: Model, images: ImageSet) -> Predictions:
    return external.predictions(external.read_external(Path(target(model.ref))), images, model.key)


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
    n, classes = len(images), len(images.classes)
    small = np.int16 if classes < 2**15 else np.int32
    preds = np.empty((len(models), n), small)
    right = np.empty((len(models), n), bool)
    confidence = np.empty((len(models), n), np.float32)
    for start in range(0, len(models), AT_ONCE):
        here = models[start : start + AT_ONCE]
        for row, found in enumerate(predict_all(here, images, how, progress), start):
            if isinstance(found, Exception):
                raise found
            look(models[row], found)
            preds[row], right[row], confidence[row] = found.pred, found.right, found.confidence
    return Outputs(images.labels, right, preds, confidence, classes)


# --- computing ---------------------------------------------------------------------------------


@dataclass
class _Subject:
    """A model on its way through the images, and its entry of the cache as it grows.

    found: what is kept of the very same model already.
    """

    model: Model
    evaluator: Evaluator | None = None
    found: Predictions | None = None
    about: dict[str, str] = field(default_factory=dict)
    error: Exception | None = None

    def place(self, loaded: zoo.Loaded, how: How) -> None:
        """On the device, ready to be asked; or an error, and nothing is left there."""
        self.error = None
        try:
            self.evaluator = Evaluator(
                loaded.module, loaded.data_config, how.device, how.spec.amp, how.batch_size
            )
        except Exception as error:
            if context_lost():
                raise
            loaded.module.cpu()  # a part of it was there
            self.error = without_frames(error)

    def open(self, path: Path) -> None:
        self._file = ExitStack()
        self._append = self._file.enter_context(arrays.writer(path, self.about))

    def add(self, columns: Columns) -> None:
        self._append(columns)

    def fail(self, error: Exception) -> None:
        self.error = error
        self.abandon(type(error), error, error.__traceback__)

    def close(self) -> None:
        if self.error is None and self.evaluator is not None:
            self.about["batch_size"] = str(self.evaluator.batch_size)
            self._file.close()

    def abandon(self, *exception: Any) -> None:
        """Close the file without keeping it, unless it is closed already or nothing happened."""
        if exception[0] is not None:
            with suppress(BaseException):  # the writer raises again what it is told
                self._file.__exit__(*exception)


def _groups(models: Sequence[Model], images: ImageSet, how: How) -> Iterator[list[_Subject]]:
    """Loaded models, as many at a time as memory holds."""
    group: list[_Subject] = []
    size = 0
    budget = SHARE_FOR_WEIGHTS * free_memory(how.device)
    for model in models:
        subject = _Subject(model)
        try:
            loaded = zoo.load(model, images.classes, how.spec.size, images.select)
            subject.found = _as_loaded(loaded, model, images, how)
        except Exception as error:  # one model that cannot be read stops no other
            subject.error = without_frames(error)
        done = subject.error or subject.found
        if done is not None:
            group.append(subject)
            continue
        needed = _bytes(loaded.module)
        if size and size + needed > budget:
            yield group
            group, size = [], 0
        subject.about = _about(loaded, model, images, how)
        subject.place(loaded, how)
        if size and subject.error is not None and out_of_memory(subject.error):
            yield group
            group, size = [], 0
            subject.place(loaded, how)
        if subject.error is not None and out_of_memory(subject.error):
            subject.error = KtError(
                f"{model.name} ({needed / 10**6:.0f} MB) does not fit into the device's memory",
                "Others may use it too: kt doctor says how much is free.",
            )
        group.append(subject)
        size += needed if subject.evaluator is not None else 0
    if group:
        yield group


def _compute(
    group: Sequence[_Subject], images: ImageSet, how: How, progress: Progress
) -> dict[str, Predictions | Exception]:
    """Evaluate a group on one stream of images, into the cache."""
    subjects = [subject for subject in group if subject.evaluator is not None]
    what = subjects[0].model.name if len(subjects) == 1 else f"{len(subjects)} models"
    if subjects:
        _stream(subjects, images, how, lambda done, total: progress(done, total, what))
    found: dict[str, Predictions | Exception] = {}
    for subject in group:
        subject.evaluator = None  # free its weights
        known = subject.error or subject.found
        found[subject.model.key] = known or _written(subject.model, images, how)
    return found


def _written(model: Model, images: ImageSet, how: How) -> Predictions:
    found = kept(model, images, how.spec, how.device)
    assert found is not None
    return replace(found, fresh=True)


def _stream(subjects: Sequence[_Subject], images: ImageSet, how: How, progress: Any) -> None:
    stream = evaluate_all(
        [subject.evaluator for subject in subjects if subject.evaluator],
        images,
        keep_logits=how.logits,
        batch_size=how.batch_size,
        workers=how.workers,
        progress=progress,
    )
    with ExitStack() as cleanup:  # where this is cut off, no file is left behind
        for subject in subjects:
            subject.open(entry(subject.model, images, how.spec, how.device))
            cleanup.push(subject.abandon)
        for here, found in stream:
            ids = [images.ids[i] for i in range(here.start, here.stop)]
            labels = images.labels[here]
            for subject, columns in zip(subjects, found, strict=True):
                if isinstance(columns, Exception):
                    subject.fail(columns)
                elif columns:
                    label = labels.astype(columns["pred"].dtype)
                    subject.add({"id": ids, "label": label, **columns})
        for subject in subjects:
            subject.close()


def _bytes(module: nn.Module) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


def _about(loaded: zoo.Loaded, model: Model, images: ImageSet, how: How) -> dict[str, str]:
    return {
        "model": model.key,
        "name": model.name,
        "data": images.name,
        "data_fingerprint": images.fingerprint,
        "num_classes": str(len(images.classes)),
        "eval_size": how.spec.size,
        "amp": how.spec.amp,
        "device": how.device.type,
        "input_size": str(loaded.data_config["input_size"][-1]),
        "params_m": f"{sum(p.numel() for p in loaded.module.parameters()) / 1e6:.6f}",
        "source": loaded.source,
        **loaded.traits(how.spec.size),
        "class_matching": loaded.matching,
        "kt_version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
