"""Which outputs of a model are the classes of the data, and models that cannot be compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from kt_cli.errors import ClassMismatch
from kt_cli.spec import Model
from kt_cli.zoo import own, published, scheme, target
from kt_cli.zoo.facts import NUM_CLASSES, fact

Columns = tuple[int, ...]
SYNSET = re.compile(r"n\d{8}")
ABSENT = -1
MOST = 0.95


@dataclass(frozen=True)
class Outputs:
    """What a model's C outputs stand for: their number, and their names where it carries them."""

    count: int
    names: tuple[str, ...] | None = None


def columns(
    outputs: Outputs, classes: Sequence[str], select: Sequence[int] | None = None
) -> Columns | None:
    """For each class of the data its index among a model's outputs; None where they are the same.

    ABSENT stands for the few classes that an ImageNet lacks (ImageNet-22k has all but one of
    ImageNet-1k's): a model never gives them.

    By names that the model carries; else as they are, where there are as many; else by `select`
    (--valid-labels); else by ImageNet's synsets, where the model has the classes of an ImageNet.

    Raises:
        LookupError: the data's classes are not among the model's.
    """
    if outputs.names and len(set(outputs.names)) == outputs.count:
        place = {name: i for i, name in enumerate(outputs.names)}
        if all(name in place for name in classes):
            return _unless_same(tuple(place[name] for name in classes), outputs.count)
    if outputs.count == len(classes):
        return None
    if select is not None and max(select) < outputs.count:
        return tuple(select)
    places = synsets(outputs.count)
    known = sum(name in places for name in classes)
    if known > MOST * len(classes) and all(map(SYNSET.fullmatch, classes)):
        return tuple(places.get(name, ABSENT) for name in classes)
    raise LookupError


def _unless_same(found: Columns, count: int) -> Columns | None:
    return None if found == tuple(range(count)) else found


@lru_cache(maxsize=8)
def synsets(count: int) -> dict[str, int]:
    """WordNet ids of the ImageNet that has so many classes, with their place; {} for none."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": count})
    if subset is None:
        return {}
    info: Any = ImageNetInfo(subset)
    names: list[str] = info.label_names()
    return {name: i for i, name in enumerate(names)}


def outputs_of(model: Model) -> Outputs | None:
    """A model's outputs as far as they can be told without its weights."""
    kind = scheme(model.ref)
    if kind == "local-dir":
        folder = Path(target(model.ref))
        count = own.num_classes(folder)
        return None if count is None else Outputs(count, own.label_names(folder))
    if kind != "timm":
        return None
    return Outputs(NUM_CLASSES if fact(model.ref) else int(published.config(model.ref).num_classes))


def require_classes(
    models: Sequence[Model],
    classes: Sequence[str],
    data: str = "the data",
    select: Sequence[int] | None = None,
) -> None:
    """Refuse models that are known not to have the data's classes.

    Raises:
        ClassMismatch: names the first of them.
    """
    for model in models:
        known = outputs_of(model)
        if known is None:
            continue
        try:
            columns(known, classes, select)
        except LookupError:
            raise mismatch(model, known.count, len(classes), data) from None


def lacking(model: Model, classes: Sequence[str], select: Sequence[int] | None = None) -> list[str]:
    """The data's classes that a model never gives, as far as that can be told without weights."""
    known = outputs_of(model)
    chosen = columns(known, classes, select) if known else None
    return [name for name, i in zip(classes, chosen or (), strict=False) if i == ABSENT]


def require_common(models: Sequence[Model]) -> None:
    """Refuse models that no data can have in common, where no data is named yet.

    Different numbers of classes go together only where some of their names are the same.

    Raises:
        ClassMismatch: names two of them.
    """
    known = [(model.name, found) for model in models if (found := outputs_of(model))]
    for (first, one), (name, other) in ((known[0], each) for each in known[1:]):
        shared = set(one.names or synsets(one.count)) & set(other.names or synsets(other.count))
        if one.count != other.count and not shared:
            raise ClassMismatch(
                f"{first} has {one.count} classes, {name} has {other.count}",
                "Models are compared on one set of classes. Name models that share it (of timm's, "
                "for instance '*_in1k'), or fine-tune them on your images: "
                "kt pretrain --pretrained.",
            )


def mismatch(model: Model, own_count: int, count: int, data: str = "the data") -> ClassMismatch:
    return ClassMismatch(
        f"{model.name} has {own_count} classes, {data} has {count}",
        "Fine-tune it on these images first: kt pretrain --pretrained "
        f"{model.ref}; or say which of its outputs are these classes: --valid-labels FILE.",
    )
