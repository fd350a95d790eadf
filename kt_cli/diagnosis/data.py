"""The images: whether they open and decode, and whether they are ImageNet's."""

from __future__ import annotations

import time
from collections.abc import Iterator

from kt_cli.data.images import ImageSet
from kt_cli.data.sources import open_data
from kt_cli.diagnosis.finding import Asked, Finding, green, red, yellow
from kt_cli.errors import DataError, UsageError, counted, some_of
from kt_cli.settings import DataSpec
from kt_cli.zoo.imagenet_facts import NUM_CLASSES
from kt_cli.zoo.imagenet_names import SYNSET, imagenet_synsets

DECODED = 64
NAMED = 3
VALIDATION = 50_000  # images of ImageNet's validation set
NO_DATA = "Name your images: --data DIR, or KT_DATA."


def images(asked: Asked) -> Iterator[Finding]:
    """Evaluation and training images: opened, counted, some of them decoded."""
    if asked.data is None:
        yield yellow("none are named", NO_DATA)
        return
    found = open_data(asked.data, training=True)
    yield green(f"{found.eval.name}: {counted(len(found.classes), 'class', 'classes')}")
    yield from _split("evaluation", found.eval)
    if found.train is not None:
        yield from _split("training", found.train)
    else:
        yield yellow(
            "no training images: enough to compare models, not to transfer",
            "A root with train/ and val/ has both.",
        )


def _split(role: str, found: ImageSet) -> Iterator[Finding]:
    start = time.perf_counter()
    tried = range(0, len(found), max(1, -(-len(found) // DECODED)))
    unreadable = [fault for i in tried if (fault := _fault(found, i))]
    speed = len(tried) / (time.perf_counter() - start)
    said = counted(len(found), f"{role} image")
    if unreadable:
        count = f"{len(unreadable)} of {len(tried)} tried do not decode"
        yield red(
            f"{said}: {count}: {some_of(unreadable, NAMED)}",
            "Repair or remove them, or leave such images out: --skip-broken.",
        )
    else:
        yield green(f"{said}; {len(tried)} decoded, {speed:,.0f} a second in one process")
    if found.labelled and found.empty_classes:
        yield yellow(
            f"no {role} images of {some_of(found.empty_classes, NAMED)}",
            "These classes keep their labels; a copy may be incomplete.",
        )


def _fault(found: ImageSet, i: int) -> str:
    try:
        found.read(i)
    except DataError as error:
        return error.message
    return ""


def imagenet(asked: Asked) -> Iterator[Finding]:
    """Whether published models know the classes, and by what."""
    found = evaluation(asked.data)
    if asked.data is None or found is None:
        return
    classes, known = found.classes, set(imagenet_synsets())
    outside = [name for name in classes if name not in known]
    if is_imagenet(found):
        yield green("ImageNet-1k's classes, by their synsets: published models fit as they are")
        if len(found) != VALIDATION and asked.data.limit is None:
            yield yellow(
                f"{len(found):,} evaluation images; ImageNet's validation set has {VALIDATION:,}",
                "Accuracies are not those that others publish, unless this is another test set.",
            )
    elif not any(SYNSET.fullmatch(name) for name in classes):
        if len(classes) == NUM_CLASSES:
            yield yellow(
                f"{NUM_CLASSES:,} classes, but their folders are no synsets: ImageNet's, in timm's "
                "order?",
                "If the order is another, --class-map FILE gives it; see the check accuracy.",
            )
        else:
            yield green(f"not ImageNet: {len(classes)} classes of their own")
    elif outside:
        yield yellow(
            f"{len(outside)} classes are none of ImageNet-1k, such as {some_of(outside, NAMED)}",
            "Use models that were trained on them, or fine-tune: kt pretrain --pretrained.",
        )
    else:
        yield green(f"{len(classes)} of ImageNet's {NUM_CLASSES:,} synsets: models fit by name")


def evaluation(data: DataSpec | None) -> ImageSet | None:
    """The evaluation images; None where there are none, of which `images` says why."""
    try:
        return None if data is None else open_data(data).eval
    except UsageError:
        return None


def is_imagenet(found: ImageSet) -> bool:
    return set(found.classes) == set(imagenet_synsets())
