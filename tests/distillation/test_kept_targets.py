"""Targets are the same whether they are kept or computed as they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kt_cli.distillation.target_cache import Disk, Memory, TargetCache
from kt_cli.distillation.targets import BATCH, Source, TeacherQuery
from kt_cli.files import cache_folder
from kt_cli.settings import TransferSpec
from tests.distillation.toys import (
    SPEC,
    N,
    Tiny,
    assert_same,
    make_views,
    opened,
    prepare,
    state,
    train,
)

EVERYTHING = torch.arange(N)


class Counting(Tiny):
    """Counts the images that it is asked about."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return super().forward(x)


class RowByRow(nn.Linear):
    """The same bits in batches of any size, which matrix products do not promise."""

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, None] * self.weight).sum(dim=2) + self.bias


class Exact(Tiny):
    """What it says about an image does not depend on the batch, by a bit."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, norm=True)
        for layer in (self.body[1], self.head):
            layer.__class__ = RowByRow


def students(
    spec: TransferSpec, *keepings: TargetCache | None, seeds: tuple[int, ...] = (0,)
) -> list[dict[str, Tensor]]:
    found = []
    for cache in keepings:
        student = Tiny(1, norm=True, dropout=0.3)
        train(
            spec, student, [Exact(seed) for seed in seeds], Exact(1), cache=cache
        )  # fmt: skip
        found.append(state(student))
    return found


@pytest.mark.parametrize("augment", ["none", "flip", "paper"])
@pytest.mark.parametrize(
    ("method", "changed"),
    [("kl", {}), ("kl-dp", {}), ("flip-avg", {}), ("crd", {}), ("xekl-mcl", {"mcl_tau": 0.7}),
     ("kl", {"distil_on": "positive"}), ("kl-dp", {"micro_batch": 5})],
)  # fmt: skip
def test_kept_targets_and_fresh_ones_give_the_same_student(
    method: str, changed: dict[str, Any], augment: str
) -> None:
    spec = replace(SPEC, method=method, augment=augment, **changed)
    memory = Memory()
    first, again, fresh = students(spec, memory, memory, None)
    assert_same(first, again)
    assert_same(first, fresh)
    assert not torch.equal(first["head.weight"], Tiny(1).head.weight)


def test_kept_parallel_targets_give_the_same_student() -> None:
    spec = replace(SPEC, method="kl-dp", together="parallel", augment="flip")
    kept, fresh = students(spec, Memory(), None, seeds=(0, 2, 3))
    assert_same(kept, fresh)


def test_kept_most_probable_classes_give_the_same_student() -> None:
    kept, fresh = students(replace(SPEC, target_topk=2, augment="flip"), Memory(), None)
    assert_same(kept, fresh)


@pytest.mark.parametrize("method", ["kl-dp", "crd"])
def test_targets_on_disk_give_nearly_the_same_student(method: str) -> None:
    """In half precision; from one process to the next they are the same."""
    spec = replace(SPEC, method=method, augment="flip", lr=0.5)
    disk, again, fresh = students(spec, Disk(), Disk(), None)
    assert len(list(cache_folder("targets").iterdir())) == (6 if method == "kl-dp" else 3)
    assert_same(disk, again)
    for name, value in disk.items():
        torch.testing.assert_close(value, fresh[name], atol=2e-3, rtol=2e-3)


def test_many_of_the_most_probable_classes_train_as_all_of_them() -> None:
    """All but the least probable class: the student moves nearly as far, in nearly that way."""
    spec = replace(SPEC, method="kl-dp", lr=0.5)
    whole, some, one = (students(replace(spec, target_topk=k), None)[0] for k in (0, 2, 1))
    start = Tiny(1, norm=True).state_dict()
    moved, apart, far = (
        sum(float((a[n] - b[n]).square().sum()) for n in ("body.1.weight", "head.weight")) ** 0.5
        for a, b in ((whole, start), (whole, some), (whole, one))
    )
    assert apart < 0.05 * moved and apart <= far


@pytest.mark.parametrize("cache", [Memory, Disk])
@pytest.mark.parametrize(("augment", "times"), [("none", 1), ("flip", SPEC.epochs)])
def test_a_model_is_asked_once_about_each_view(
    cache: Callable[[], TargetCache], augment: str, times: int
) -> None:
    """However many methods ask, as teacher or as frozen student, and as which of the teachers."""
    kept = cache()
    models = {key: Counting(seed) for key, seed in (("one", 0), ("two", 1), ("three", 2))}
    for method, frozen, teachers in (
        ("kl", "two", ["one"]), ("kl-dp", "two", ["one"]), ("kl-dp-u", "one", ["two"]),
        ("self", "two", ["one"]), ("flip-avg", "three", ["one"]), ("xekl", "one", ["three"]),
        ("kl-dp", "one", ["two", "three"]),
    ):  # fmt: skip
        spec = replace(SPEC, method=method, augment=augment)
        views = make_views(augment)
        query = TeacherQuery.by(spec, views)
        student, *others = (
            Source(query, opened(models[key]), key, kept) for key in (frozen, *teachers)
        )
        for source in (student, *others):
            for epoch in range(spec.epochs):
                source.begin(epoch)
                source.answers(EVERYTHING[:7], views.batch(epoch, EVERYTHING[:7]))
    assert {model.seen for model in models.values()} == {times * N}


def test_more_images_than_a_batch_are_kept_in_order() -> None:
    n = 2 * BATCH + 9
    views, module = make_views("flip", n), Tiny(0).eval()
    source = Source(TeacherQuery(views), opened(module), "teacher", Memory())
    source.begin(1)
    indices = torch.tensor([n - 1, 0, BATCH, BATCH - 1, 5, 5])
    found = source.answers(indices, torch.empty(0)).logits
    with torch.no_grad():
        torch.testing.assert_close(found, module(prepare(views.batch(1, indices))))


def test_what_no_other_can_use_is_not_kept() -> None:
    views, module = make_views(), Counting(0)
    memory = Memory()
    source = Source(TeacherQuery(views), opened(module), "", memory)
    for epoch in range(2):
        source.begin(epoch)
        source.answers(EVERYTHING, views.batch(epoch, EVERYTHING))
    assert module.seen == 2 * N


def test_kept_answers_are_told_apart_by_all_that_changes_them() -> None:
    views = make_views("flip")
    plain = TeacherQuery(views)
    keys = [
        plain.key("a", 0),
        plain.key("b", 0),
        plain.key("a", 1),
        TeacherQuery(make_views("paper")).key("a", 0),
        TeacherQuery(views, amp="bfloat16").key("a", 0),
        TeacherQuery(views, topk=2).key("a", 0),
        TeacherQuery(views, topk=2, temperature=2.0).key("a", 0),
        TeacherQuery(views, features=True).key("a", 0),
    ]
    assert len(set(keys)) == len(keys)
    views.device = torch.device("cuda")
    assert plain.key("a", 0) not in keys
    views.device = torch.device("cpu")
    # Whole logits serve all temperatures.
    assert TeacherQuery(views, temperature=2.0).key("a", 0) == plain.key("a", 0)


@pytest.mark.parametrize(
    ("fits", "tried"),
    [(256, [256]), (100, [256, 128, 64]), (10, [256, 128, 64, 32, 16, 8]), (0, None)],
)
def test_on_a_gpu_fewer_views_are_asked_about_where_many_do_not_fit(
    fits: int, tried: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def in_batches(self: Source, epoch: int, size: int) -> object:
        sizes.append(size)
        if size > fits:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return None

    views = make_views()
    monkeypatch.setattr(Source, "_in_batches", in_batches)
    source = Source(TeacherQuery(views), opened(Tiny(0)), "teacher", Memory())
    views.device = torch.device("cuda")
    if tried is None:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            source._all(0)
        assert sizes == [256 // 2**i for i in range(9)]
    else:
        source._all(0)
        assert sizes == tried
