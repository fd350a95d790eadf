"""Numbers of classes, as far as they can be told without weights, and who must agree in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kt_cli.errors import ClassMismatch
from kt_cli.spec import Model
from kt_cli.zoo import own, published, scheme, target
from kt_cli.zoo.facts import NUM_CLASSES, fact


def num_classes(model: Model) -> int | None:
    """A model's number of classes as far as it can be told without its weights."""
    kind = scheme(model.ref)
    if kind == "local-dir":
        return own.num_classes(Path(target(model.ref)))
    if kind != "timm":
        return None
    return NUM_CLASSES if fact(model.ref) else int(published.config(model.ref).num_classes)


def require_classes(models: Sequence[Model], count: int, data: str = "the data") -> None:
    """Refuse models that are known not to have `count` classes.

    Raises:
        ClassMismatch: names the first of them.
    """
    for model in models:
        known = num_classes(model)
        if known is not None and known != count:
            raise mismatch(model, known, count, data)


def common_num_classes(models: Sequence[Model]) -> int | None:
    """The number of classes that models have in common; None where none is known yet.

    Raises:
        ClassMismatch: known numbers differ; names a model of each.
    """
    examples: dict[int, str] = {}
    for model in models:
        count = num_classes(model)
        if count is not None:
            examples.setdefault(count, model.name)
    if len(examples) > 1:
        (first, name), *others = examples.items()
        rest = ", ".join(f"{other} has {count}" for count, other in others)
        raise ClassMismatch(
            f"{name} has {first} classes, {rest}",
            "Models are compared on one set of classes. Name models that share it (of timm's, "
            "for instance '*_in1k'), or fine-tune them on your images: kt pretrain --pretrained.",
        )
    return next(iter(examples), None)


def mismatch(model: Model, own_count: int, count: int, data: str = "the data") -> ClassMismatch:
    return ClassMismatch(
        f"{model.name} has {own_count} classes, {data} has {count}",
        f"Fine-tune it on these images first: kt pretrain --pretrained {model.ref}",
    )
