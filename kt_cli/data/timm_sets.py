"""timm's own random-access sources: `hfds/NAME` and `torch/NAME`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from kt_cli.data import contents
from kt_cli.data.contents import Digests
from kt_cli.data.images import Contents, ImageSet, Names, Split, as_rgb, listing
from kt_cli.data.subsets import Indices
from kt_cli.errors import DataError, first_line
from kt_cli.files import Status, may_change_unseen, status_of
from kt_cli.progress import Progress
from kt_cli.settings import DataSpec


def timm_set(spec: DataSpec, split: Split) -> ImageSet | None:
    """A split through `timm.data.create_dataset`."""
    from timm.data.dataset_factory import create_dataset

    if spec.root is None and spec.source.startswith("torch/"):
        raise DataError(f"{spec.source} needs --data-dir", "Name the folder that holds its files.")
    split_name = spec.train_split if split == "train" else spec.val_split
    try:
        dataset = create_dataset(spec.source, root=spec.root, split=split_name, download=False)
    except Exception as error:  # any library below timm may refuse, each in its own way
        raise DataError(
            f"cannot open {spec.source} (split {split_name}): {first_line(error)}",
            "Check --data-dir, --train-split and --val-split; "
            "hfds/ needs the package 'datasets' and the data in its cache.",
        ) from error
    labels, classes = _labelled(dataset, spec.source, split_name)
    ids = Names.of(map(str, range(len(labels))))
    origin = listing("timm", classes, ids, labels, spec.source, split_name)
    read = partial(_read, dataset, spec.source)
    contents_of = _contents(dataset, f"{spec.source} {split_name}")
    return ImageSet(spec.source, classes, ids, labels, read, origin, contents=contents_of)


def _labelled(dataset: Any, source: str, split: str) -> tuple[Indices, tuple[str, ...]]:
    """Labels (n,) and classes; of labels that are texts these, sorted."""
    try:
        given = np.asarray(_labels(dataset))
    except KeyError as error:
        raise DataError(
            f"{source} has no column {error}", "Rename the column of its labels: timm reads label."
        ) from error
    if given.ndim != 1:
        raise DataError(f"{source} has several labels an image", "One class for each is needed.")
    if given.dtype.kind in "UO":
        names, labels = np.unique(given.astype(str), return_inverse=True)
        return labels.astype(np.int64), tuple(names.tolist())
    labels = given.astype(np.int64)
    if labels.min(initial=0) < 0:
        raise DataError(f"{source} has no labels in its split {split}")
    return labels, _classes(dataset, labels)


def _labels(dataset: Any) -> Any:
    """Labels without decoding the images where the source offers them, else by one pass."""
    reader = getattr(dataset, "reader", None)
    if reader is not None:
        return reader.dataset[reader.label_key]
    for name in ("targets", "labels", "_labels"):
        if hasattr(dataset, name):
            return getattr(dataset, name)
    return [dataset[i][1] for i in range(len(dataset))]


def _classes(dataset: Any, labels: Indices) -> tuple[str, ...]:
    reader = getattr(dataset, "reader", None)
    if reader is not None:
        places: Any = reader.class_to_idx or {i: i for i in range(int(labels.max(initial=-1)) + 1)}
        names: Sequence[Any] = sorted(places, key=places.get)
    else:
        names = getattr(dataset, "classes", None) or range(int(labels.max()) + 1)
    return tuple(", ".join(n) if isinstance(n, (tuple, list)) else str(n) for n in names)


def _read(dataset: Any, source: str, i: int) -> Image.Image:
    try:
        if hasattr(dataset, "reader"):
            # timm's ImageDataset silently gives the next image in place of a corrupt one.
            with dataset.reader[i][0] as file, Image.open(file) as image:
                return as_rgb(image)
        return as_rgb(cast(Image.Image, dataset[i][0]))
    except Exception as error:
        raise DataError(f"cannot decode image {i} of {source}: {first_line(error)}") from error


def _contents(dataset: Any, name: str) -> Contents:
    """Digests of files or encoded images where the source shows them, else of pixels."""
    if hasattr(dataset, "reader"):
        return partial(_of_hub, dataset.reader, name)
    listed = getattr(dataset, "samples", None) or getattr(dataset, "imgs", None)
    if listed is not None:
        return partial(_of_files, Path(dataset.root), [str(path) for path, _ in listed])
    return partial(_of_pixels, dataset, name)


def _of_files(root: Path, paths: list[str], indices: Indices, progress: Progress) -> Digests:
    names = [os.path.relpath(paths[i], root) for i in indices]
    return contents.of_files(root, names, progress)


def _of_hub(reader: Any, name: str, indices: Indices, progress: Progress) -> Digests:
    """Of encoded images, remembered for as long as the files of the table stay as they are."""
    now = time.time_ns()
    files = [entry["filename"] for entry in getattr(reader.dataset, "cache_files", ())]
    found = [status_of(Path(file).stat()) for file in files]
    table = np.frombuffer(contents.one(repr((files, found)).encode()) * 2, np.int64)
    lasting = files and not any(may_change_unseen(status, now) for status in found)

    def read(i: int) -> tuple[bytes, Status | None]:
        with reader[int(indices[i])][0] as file:
            inside = isinstance(file, BytesIO)
            status = cast(Status, tuple(table.tolist()))
            return contents.one(file.read()), status if lasting and inside else None

    statuses = np.broadcast_to(table, (len(indices), len(table)))
    return contents.remembered(name, list(map(str, indices)), statuses, read, progress)


def _of_pixels(dataset: Any, name: str, indices: Indices, progress: Progress) -> Digests:
    """Of arrays that are in memory anyway; else images are decoded, each time."""
    stored = getattr(dataset, "data", None)
    if stored is not None and len(stored) == len(dataset):
        return contents.of_bytes(np.asarray(stored[i]).tobytes() for i in indices)
    images = (_read(dataset, name, int(i)) for i in indices)
    return contents.of_bytes(repr(image.size).encode() + image.tobytes() for image in images)
