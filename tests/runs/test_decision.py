"""Where answers are kept, at the edges of the budgets."""

from __future__ import annotations

import pytest

from kt_cli.distillation.target_cache import DISK, MEMORY, ONLINE
from kt_cli.runs import target_plan
from kt_cli.runs.target_plan import Decision

# Images of C classes take 4C + 9 bytes each in memory, 2C + 9 on disk.
IMAGES, ASKED, MANY = 1000, 50, 1000
WHOLE, HALF = IMAGES * ASKED * (4 * MANY + 9), IMAGES * ASKED * (2 * MANY + 9)


def decide(
    memory: int = 0, disk: int = 0, uses: float = 19, classes: int = MANY, images: int = IMAGES
) -> Decision:
    return target_plan.decide(
        images=images, classes=classes, answers=ASKED, uses=uses, memory=memory, disk=disk
    )


def size_of(topk: int) -> int:
    """Of K classes: four bytes for a class, two for its probability; four for the rest."""
    return IMAGES * ASKED * (6 * topk + 4 + 9)


def test_what_is_used_once_is_kept_nowhere() -> None:
    assert decide(memory=10 * WHOLE, disk=10 * WHOLE, uses=1.99).kind == ONLINE
    assert decide(memory=10 * WHOLE, disk=10 * WHOLE, uses=2).kind == MEMORY


def test_memory_where_all_fits_else_disk_in_half_precision() -> None:
    inside, above = decide(WHOLE, HALF), decide(WHOLE - 1, HALF)
    assert (inside.kind, inside.topk, inside.bytes) == (MEMORY, 0, WHOLE)
    assert (above.kind, above.topk, above.bytes) == (DISK, 0, HALF)


@pytest.mark.parametrize("topk", [10, 11, 100])
def test_the_most_classes_that_fit_on_disk(topk: int) -> None:
    for disk in (size_of(topk), size_of(topk + 1) - 1):
        found = decide(disk=disk)
        assert (found.kind, found.topk, found.bytes) == (DISK, topk, size_of(topk))
        assert found.bytes <= disk


def test_fewer_than_the_least_classes_are_not_worth_it() -> None:
    found = decide(disk=size_of(10) - 1)
    assert (found.kind, found.topk, found.bytes) == (ONLINE, 0, 0)
    assert "100.5 MB" in found.reason


def test_no_more_than_the_most_classes_are_kept() -> None:
    found = decide(disk=IMAGES * ASKED * (2 * 21_000 + 9) - 1, classes=21_000)
    assert (found.kind, found.topk) == (DISK, 512)


@pytest.mark.parametrize("classes", [3, 10, 16])
def test_as_many_as_all_classes_are_not_a_selection(classes: int) -> None:
    """Six bytes for each kept class against two: what does not fit whole does not fit at all."""
    half = IMAGES * ASKED * (2 * classes + 9)
    assert decide(disk=half, classes=classes).topk == 0
    assert decide(disk=half - 1, classes=classes).kind == ONLINE


def test_no_images_are_no_trouble() -> None:
    assert decide(images=0).kind == MEMORY


def test_features_are_kept_too() -> None:
    plain = target_plan.decide(images=10, classes=10, answers=4, uses=5, memory=10**6, disk=0)
    wide = target_plan.decide(
        images=10, classes=10, answers=4, uses=5, memory=10**6, disk=0, width=2048
    )
    assert wide.bytes - plain.bytes == 10 * 4 * 4 * 2048


def test_most_probable_classes_are_kept_for_each_temperature() -> None:
    how = {"images": 10, "classes": 1000, "answers": 4, "uses": 5, "memory": 0}
    plain = target_plan.decide(**how, disk=40_000)
    both = target_plan.decide(**how, disk=80_000, heated=8)
    assert both.topk == plain.topk >= 10 and both.bytes == 2 * plain.bytes
