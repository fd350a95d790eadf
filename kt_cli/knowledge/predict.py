"""Predictions of many models: from the cache, from files of others, or computed together.

What is missing is computed on one stream of images and goes to the cache batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from kt_cli.data.images import ImageSet
from kt_cli.device import context_lost, free_memory, loss_named, out_of_memory
from kt_cli.errors import KtError, WriteError, without_frames
from kt_cli.files import not_kept
from kt_cli.knowledge import external
from kt_cli.knowledge.evaluate import BATCH, Columns, Evaluator, evaluate_all
from kt_cli.knowledge.pairs import Outputs
from kt_cli.knowledge.predictions import (
    COLUMNS,
    Predictions,
    about_of,
    entry,
    joined,
    kept,
    not_cached,
    renewed,
)  # fmt: skip
from kt_cli.progress import Progress, silent
from kt_cli.rows import arrays
from kt_cli.settings import EvalSpec
from kt_cli.spec import Model
from kt_cli.zoo import identity, published, scheme, target
from kt_cli.zoo import load as zoo

REUSE, REFRESH, CACHED_ONLY = "reuse", "refresh", "cached-only"
SHARE_FOR_WEIGHTS = 0.3  # of the memory; the rest is for activations, images, and others there
File = Generator[None, Columns | None]
AT_ONCE = 64  # models whose predictions are held as they are in the cache
READERS = 8  # threads: Arrow reads and decompresses while others run


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
        DataError: an image cannot be decoded. WriteError: logits cannot be kept.
        DeviceLost: the GPU computes nothing more for this process; any of the models may be why.
    """
    if any(scheme(model.ref) != "predictions" for model in models):
        images.identify(progress)
    with ThreadPoolExecutor(READERS) as pool:
        known = pool.map(lambda model: _known(model, images, how), models)
        found = {m.key: said for m, said in zip(models, known, strict=True) if said is not None}
    missing = [model for model in models if model.key not in found]
    for group in _groups(missing, images, how):
        found |= _compute(group, images, how, progress)
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


def _known(model: Model, images: ImageSet, how: How) -> Predictions | Exception | None:
    """What can be told without loading the model; None where that is nothing."""
    if scheme(model.ref) == "predictions":
        try:
            file = external.read_external(Path(target(model.ref)))
            return external.predictions(file, images, model.key)
        except KtError as error:
            return error
    found = _kept(model, images, how)
    if found is None:
        return not_cached(model, images) if how.mode == CACHED_ONLY else None
    source = identity.source(model)
    gone = not source and published(model.ref) and how.mode == CACHED_ONLY
    return found if gone or (source and found.about.get("source") == source) else None


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
        raise not_cached(model, images, identity.differences(found.traits, traits))
    return None


@dataclass
class _Subject:
    """A model on its way through the images. found: what is kept of the very same already."""

    model: Model
    evaluator: Evaluator | None = None
    found: Predictions | None = None
    about: dict[str, str] = field(default_factory=dict)
    said: list[Columns] = field(default_factory=list)
    written: bool = True
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

    @property
    def too_large(self) -> bool:
        return self.error is not None and out_of_memory(self.error)

    def keep(self, file: File, columns: Columns | None, logits: bool) -> None:
        """Pass columns on to the cache; where it cannot be written, they are here alone."""
        assert self.evaluator is not None
        self.about["batch_size"] = str(self.evaluator.batch_size)
        try:
            with suppress(StopIteration):
                file.send(columns)
        except WriteError as error:
            if logits:
                raise
            not_kept(error)
            self.written = False

    def file(self, path: Path) -> File:
        """Is sent columns, batch after batch, then moved on; closed before, it leaves nothing."""
        with arrays.writer(path, self.about) as append:
            while columns := (yield):
                append(columns)


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
        if subject.error or subject.found:
            group.append(subject)
            continue
        tensors = (*loaded.module.parameters(), *loaded.module.buffers())
        needed = sum(t.numel() * t.element_size() for t in tensors)
        if size and size + needed > budget:
            yield group
            group, size = [], 0
        subject.about = about_of(loaded, model, images, how.spec, how.device)
        subject.place(loaded, how)
        if size and subject.too_large:
            yield group
            group, size = [], 0
            subject.place(loaded, how)
        if subject.too_large:
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
    if subjects := [subject for subject in group if subject.evaluator is not None]:
        what = subjects[0].model.name if len(subjects) == 1 else f"{len(subjects)} models"
        _stream(subjects, images, how, lambda done, total: progress(done, total, what))
    found: dict[str, Predictions | Exception] = {}
    for subject in group:
        subject.evaluator = None  # free its weights
        said = subject.error or subject.found
        if said is None:
            path = entry(subject.model, images, how.spec, how.device) if subject.written else None
            said = replace(joined(subject.said, images, subject.about), path=path, fresh=True)
        found[subject.model.key] = said
    return found


def _stream(
    subjects: Sequence[_Subject], images: ImageSet, how: How, progress: Callable[[int, int], None]
) -> None:
    stream = evaluate_all(
        [subject.evaluator for subject in subjects if subject.evaluator], images,
        keep_logits=how.logits, batch_size=how.batch_size, workers=how.workers, progress=progress,
    )  # fmt: skip
    files = [s.file(entry(s.model, images, how.spec, how.device)) for s in subjects]
    with ExitStack() as cleanup:  # where this is cut off, no file is left behind
        for subject, file in zip(subjects, files, strict=True):
            cleanup.callback(file.close)
            subject.keep(file, None, how.logits)
        for here, found in stream:
            ids = [images.ids[i] for i in range(here.start, here.stop)]
            labels = images.labels[here]
            for subject, file, columns in zip(subjects, files, found, strict=True):
                if isinstance(columns, Exception):
                    subject.error = columns
                    file.close()
                elif columns:
                    label = labels.astype(columns["pred"].dtype)
                    subject.said.append({name: columns[name] for name in COLUMNS})
                    subject.keep(file, {"id": ids, "label": label, **columns}, how.logits)
        for subject, file in zip(subjects, files, strict=True):
            subject.keep(file, None, how.logits)
