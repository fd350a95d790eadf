"""timm's own random-access sources: `hfds/NAME` and `torch/NAME`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
from PIL import Image

from kt_cli.data.images import ImageSet, Names, Split, as_rgb, sample
from kt_cli.data.subsets import Indices
from kt_cli.errors import DataError, first_line
from kt_cli.spec import DataSpec


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
    labels = np.asarray(_labels(dataset), np.int64)
    if labels.min(initial=0) < 0:
        raise DataError(f"{spec.source} has no labels in its split {split_name}")
    classes = _classes(dataset, labels)
    state = hashlib.blake2b(labels.tobytes(), digest_size=8, person=b"kt-timm")
    state.update("\n".join((spec.source, split_name, *classes)).encode())
    read = partial(_read, dataset, spec.source)
    for i in sample(len(labels)):
        state.update(read(i).tobytes())
    return ImageSet(
        name=spec.source,
        classes=classes,
        ids=Names.of(map(str, range(len(labels)))),
        labels=labels,
        read=read,
        fingerprint=f"timm-{state.hexdigest()}",
    )


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
        names: Sequence[Any] = sorted(reader.class_to_idx, key=reader.class_to_idx.get)
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
