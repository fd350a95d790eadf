"""Models that are asked about images together, on one stream of these, into the cache."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from kt_cli.data.images import ImageSet
from kt_cli.device import context_lost, free_memory, loss_named, out_of_memory
from kt_cli.errors import KtError, WriteError, without_frames
from kt_cli.files import not_kept
from kt_cli.knowledge.evaluate import Evaluator, evaluate_all
from kt_cli.knowledge.known import CACHED_ONLY, How, kept, not_cached
from kt_cli.knowledge.predictions import COLUMNS, Columns, Predictions, entry, joined, renewed
from kt_cli.progress import Progress, silent
from kt_cli.rows import arrays
from kt_cli.spec import Model
from kt_cli.version import __version__
from kt_cli.zoo import identity
from kt_cli.zoo import load as zoo

SHARE_FOR_WEIGHTS = 0.3  # of the memory; the rest is for activations, images, and others there
File = Generator[None, Columns | None]


@loss_named()
def compute(
    models: Sequence[Model], images: ImageSet, how: How, progress: Progress = silent
) -> dict[str, Predictions | Exception]:
    """What models say, by their keys: loaded and evaluated, but for what the cache has of them.

    Raises:
        DataError: an image cannot be decoded. WriteError: logits cannot be kept.
        DeviceLost: the GPU computes nothing more for this process; any of the models may be why.
    """
    found: dict[str, Predictions | Exception] = {}
    for group in _groups(models, images, how):
        found |= _compute(group, images, how, progress)
    return found


def _as_loaded(loaded: zoo.Loaded, model: Model, images: ImageSet, how: How) -> Predictions | None:
    """What the cache has of the very model that was loaded; None where it is to be evaluated."""
    found = kept(model, images, how)
    if found is None:
        return None
    traits = loaded.traits(how.spec.size)
    if found.traits == traits:
        return renewed(found, loaded.source)
    if how.mode == CACHED_ONLY:
        raise not_cached(model, images, identity.differences(found.traits, traits))
    return None


def _about(loaded: zoo.Loaded, model: Model, images: ImageSet, how: How) -> dict[str, str]:
    return {
        "model": model.key,
        "name": model.name,
        "data": images.name,
        "data_fingerprint": images.fingerprint,
        "num_classes": str(len(images.classes)),
        "eval_size": how.spec.size,
        "amp": how.spec.amp,
        "device": how.arithmetic,
        "input_size": str(loaded.data_config["input_size"][-1]),
        "params_m": f"{sum(p.numel() for p in loaded.module.parameters()) / 1e6:.6f}",
        "source": loaded.source,
        **loaded.traits(how.spec.size),
        "class_matching": loaded.matching,
        "kt_version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


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
        subject.about = _about(loaded, model, images, how)
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
    if subjects := [subject for subject in group if subject.evaluator is not None]:
        what = subjects[0].model.name if len(subjects) == 1 else f"{len(subjects)} models"
        _stream(subjects, images, how, lambda done, total: progress(done, total, what))
    found: dict[str, Predictions | Exception] = {}
    for subject in group:
        subject.evaluator = None  # free its weights
        said = subject.error or subject.found
        if said is None:
            path = entry(subject.model, images, how.spec, how.arithmetic)
            here = joined(subject.said, images, subject.about)
            said = replace(here, path=path if subject.written else None, fresh=True)
        found[subject.model.key] = said
    return found


def _stream(
    subjects: Sequence[_Subject], images: ImageSet, how: How, progress: Callable[[int, int], None]
) -> None:
    stream = evaluate_all(
        [subject.evaluator for subject in subjects if subject.evaluator], images,
        keep_logits=how.logits, batch_size=how.batch_size, workers=how.workers, progress=progress,
    )  # fmt: skip
    files = [s.file(entry(s.model, images, how.spec, how.arithmetic)) for s in subjects]
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
