"""Where images come from: the table SOURCES, each entry giving one split as an `ImageSet`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kt_cli.data.digits import digits
from kt_cli.data.folders import folder, training_classes, unlabelled
from kt_cli.data.images import NAMED, ImageSet, Split
from kt_cli.data.labels import selecting
from kt_cli.data.real_labels import relabelled
from kt_cli.data.remembered import remembered
from kt_cli.data.subsets import Indices, stratified
from kt_cli.data.timm_sets import timm_set
from kt_cli.errors import DataError, UnknownName, UsageError, near, some_of, unknown, warn
from kt_cli.progress import Progress, silent
from kt_cli.settings import HOW_TO_NAME_DATA, DataSpec

STREAMS = ("wds/", "tfds/")
FOLDERS_ONLY = "--skip-broken is for folders."
GUARD_SEED = 231_017_653
Source = Callable[[DataSpec, Split], ImageSet | None]


@dataclass(frozen=True)
class Data:
    """The three disjoint roles of images."""

    eval: ImageSet
    train: ImageSet | None = None
    guard: ImageSet | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.eval.classes

    def of_transfer(self, guarded: bool = False) -> list[ImageSet]:
        """All images that a transfer reads: of training, evaluation and the guard."""
        guard = [self.guard] if guarded and self.guard is not None else []
        return [self.training(), self.eval, *guard]

    def transfer_id(self, guarded: bool = False, progress: Progress = silent) -> str:
        """Fingerprints of all images that a transfer reads."""
        return "+".join(images.identify(progress) for images in self.of_transfer(guarded))

    def training(self) -> ImageSet:
        if self.train is None:
            raise DataError(
                f"{self.eval.name} has no training images",
                "Name a root that holds train/ and val/ folders, each with one folder per class.",
            )
        return self.train


@remembered(8)
def open_data(spec: DataSpec, training: bool = False) -> Data:
    """The evaluation images, with `training` also those of training and the guard; or DataError."""
    source = _source(spec)
    if source is not folder:
        if spec.class_map or spec.labels:
            raise DataError(
                f"{spec.source} has labels of its own", "--class-map and --labels are for folders."
            )
        if spec.skip_broken:
            raise DataError(f"no file of {spec.source} can be left out", FOLDERS_ONLY)
    images = source(spec, "val")
    if images is None:
        raise DataError(f"{spec.source} has no evaluation images", HOW_TO_NAME_DATA)
    images = relabelled(selecting(images, spec), spec)
    if spec.limit is not None and spec.limit < len(images):
        images = images.subset(stratified(images.labels, spec.limit, spec.seed))
    guard = selecting(_guard_images(spec, images), spec) if training and spec.guard_data else None
    everything = _training_images(spec, source, images) if training else None
    if not training and source is folder and not spec.class_map:
        other = training_classes(spec)
        if other and (different := _differing(other, images.classes)):
            warn(f"{images.name}: {different}. They can be measured, not trained on.")
    if everything is None:
        return Data(images, guard=guard)
    train, left_out = _without_guard(everything, spec.guard)
    left_out = left_out and selecting(left_out, spec)
    if spec.fraction < 1:
        train = train.subset(stratified(train.labels, float(spec.fraction), spec.seed))
    if not len(train):
        raise DataError(
            f"no training images of {spec.source} are left",
            f"{spec.fraction:g} of {len(everything)} images is none: raise the fraction.",
        )
    return Data(images, train, guard or left_out)


def training_id(spec: DataSpec, progress: Progress = silent) -> str:
    """Fingerprint of the training images of `spec`."""
    return open_data(spec, training=True).training().identify(progress)


def _training_images(spec: DataSpec, source: Source, images: ImageSet) -> ImageSet | None:
    if spec.unlabelled:
        return unlabelled(Path(spec.unlabelled), images.classes, spec.skip_broken)
    found = source(spec, "train")
    if found is not None:
        _same_classes(found, images)
    return found


def _guard_images(spec: DataSpec, images: ImageSet) -> ImageSet:
    assert spec.guard_data is not None
    if not (place := Path(spec.guard_data).expanduser()).is_dir():
        tip = near(place, "--guard-data takes class folders.")
        raise DataError(f"no folder {spec.guard_data}", tip)
    found = folder(replace(spec, source=spec.guard_data, root=None, labels=None), "val")
    if found is None:
        raise DataError(
            f"{spec.guard_data} has training images only", "--guard-data takes class folders."
        )
    _same_classes(found, images)
    if found.shares_most(images):
        raise UsageError(
            f"--guard-data {spec.guard_data} has the evaluation images themselves",
            "What decides must not be what is measured: name other images.",
        )
    return found


def guard_slice(labels: Indices, share: float) -> Indices:
    """Which of the training images, by their labels, this share sets aside for a guard."""
    return stratified(labels, float(share), GUARD_SEED)


def _without_guard(images: ImageSet, share: float) -> tuple[ImageSet, ImageSet | None]:
    if share <= 0:
        return images, None
    inside = guard_slice(images.labels, share)
    outside = np.setdiff1d(np.arange(len(images)), inside)
    return images.subset(outside), images.subset(inside)


def _same_classes(train: ImageSet, images: ImageSet) -> None:
    if train.classes != images.classes:
        different = _differing(train.classes, images.classes) or "they differ in their order"
        raise DataError(f"{images.name}: {different}", "Both splits need the same class folders.")


def _differing(train: Sequence[str], images: Sequence[str]) -> str:
    """What parts the classes of training images from those of evaluation; "" for their order."""
    alone = [[n for n in a if n not in set(b)] for a, b in ((train, images), (images, train))]
    said = [some_of(names, NAMED) or "none" for names in alone]
    text = "training and evaluation images disagree in their classes"
    counts = f"{len(train)} against {len(images)}; only training: {said[0]}; only evaluation"
    return f"{text}: {counts}: {said[1]}" if any(alone) else ""


def _source(spec: DataSpec) -> Source:
    for name, source in SOURCES.items():
        if spec.source == name or (name.endswith("/") and spec.source.startswith(name)):
            return source
    if spec.source.startswith(STREAMS):
        raise DataError(
            f"{spec.source} is a stream, and kt reads images at random",
            "Use its hfds/ twin, or unpack it into class folders.",
        )
    if os.sep not in spec.source and not Path(spec.source).exists():
        called = unknown("data source", spec.source, ["digits"], HOW_TO_NAME_DATA)
        tip = near(Path(spec.source), called.tip)
        raise UnknownName(f"no folder {spec.source} here, and no data of that name", tip)
    return folder


SOURCES: dict[str, Source] = {
    "digits": digits,
    "folder": folder,
    "hfds/": timm_set,
    "torch/": timm_set,
}
