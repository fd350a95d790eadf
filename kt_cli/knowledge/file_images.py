"""The images that files of predictions are about, where no other data is named."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from PIL import Image

from kt_cli.data.images import ImageSet, listing
from kt_cli.data.labels import MOST_CLASSES
from kt_cli.errors import DataError, UsageError
from kt_cli.knowledge.file_columns import External
from kt_cli.knowledge.matching import class_indices, require_once
from kt_cli.zoo.imagenet_names import described
from kt_cli.zoo.local_models import natural


def images_of(externals: Sequence[External], names: Sequence[str] | None = None) -> ImageSet:
    """The images that predictions are about, by the first of them that has labels.

    Classes are the numbers up to the largest, or all names, in the order of folders.

    Args:
        names: of the classes, in order, where they are known.

    Raises:
        DataError: none has labels, or some count classes and others name them.
    """
    labelled = [e for e in externals if e.label is not None]
    if not labelled:
        raise DataError(
            "none of the files of predictions has labels",
            "Add a column label to one of them, or name the images: --data.",
        )
    first = min(labelled, key=lambda e: e.ids is None)  # the first with names, where there is one
    assert first.label is not None
    ids = [str(i) for i in range(len(first))] if first.ids is None else first.ids
    require_once(first.path, ids)
    counted = first.label.dtype.kind == "i"
    classes = tuple(names) if names and not counted else _classes(externals, counted)
    labels = class_indices(first.path, first.label, classes)
    if names and len(names) < len(classes):
        raise UsageError(f"{len(names)} names for {len(classes)} classes")
    classes = tuple(names or classes)
    origin = listing("predictions", classes, ids, labels)
    return ImageSet("predictions", classes, ids, labels, _no_image, origin)


def _no_image(i: int) -> Image.Image:
    raise DataError("files of predictions hold no images", "Name the images: --data.")


def _classes(externals: Sequence[External], counted: bool) -> tuple[str, ...]:
    found: set[Any] = set()
    outputs = {str(e.path): e.logits.shape[1] for e in externals if e.logits is not None}
    wide, width = max(outputs.items(), key=itemgetter(1), default=("", MOST_CLASSES))
    for external in externals:
        answers = external.answers if counted or external.words is None else external.words
        for values in (external.label, answers):
            if values is None:
                continue
            if (values.dtype.kind == "i") != counted:
                does, others_do = ("names", "count") if counted else ("counts", "name")
                raise DataError(
                    f"{external.path} {does} classes, and others {others_do} them",
                    "Name the images, whose class folders tell: --data.",
                )
            found.update(np.unique(values).tolist())
            if counted and (most := max(values.max(initial=0), 0)) >= width:
                what = "labels" if values is external.label else "answers"
                known = f"that {wide} has outputs for" if wide else "at most"
                raise DataError(
                    f"the {what} of {external.path} have class {most:,}, of {width:,} {known}",
                    "Classes are counted from 0. Is it the number of something else?",
                )
    if counted:
        return tuple(map(str, range(max([1, *outputs.values(), *(1 + value for value in found)]))))
    return tuple(sorted(found - described(list(found)).keys(), key=natural))
