"""What a student is taught on each view, and who is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from kt_cli.data.views import Views
from kt_cli.distillation.losses import TopK
from kt_cli.distillation.methods import METHODS
from kt_cli.distillation.target_cache import Disk, Memory, TargetCache
from kt_cli.distillation.targets import Opened, Taught
from kt_cli.settings import TransferSpec
from tests.distillation.toys import (
    CONFIG,
    SPEC,
    N,
    Tiny,
    make_views,
    never,
    opened,
    prepare,
    targets_of,
)

EVERYTHING = torch.arange(N)


def answered(
    spec: TransferSpec, *modules: nn.Module, cache: TargetCache | None = None, epoch: int = 0
) -> tuple[Taught, list[Tensor], Views]:
    """What all views of an epoch are taught, the logits (n, C) of each module, the views."""
    views = make_views(spec.augment)
    frozen, *teachers = modules
    targets = targets_of(spec, views, opened(frozen), [opened(t) for t in teachers], cache)
    targets.begin(epoch)
    images = views.batch(epoch, EVERYTHING)
    with torch.no_grad():
        said = [module.eval()(prepare(images)) for module in modules]
    found = targets.taught(targets.answers(EVERYTHING, images), said[0], views.labels)
    return found, said, views


# --- who teaches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["none", "flip"])
@pytest.mark.parametrize("teachers", [1, 3])
@pytest.mark.parametrize("method", ["kl-dp", "kl-dp-u"])
def test_each_target_comes_from_its_source(method: str, teachers: int, augment: str) -> None:
    spec = replace(SPEC, method=method, together="parallel", augment=augment)
    found, said, views = answered(spec, *(Tiny(1 - i) if i < 2 else Tiny(i)
                                          for i in range(1 + teachers)), epoch=2)  # fmt: skip
    assert isinstance(found.target, Tensor) and found.weight is None
    taught = set()
    for i, y in enumerate(views.labels.tolist()):
        probabilities = [z[i].softmax(0) for z in said]
        scores = [float(p[y] if method == "kl-dp" else p.max()) for p in probabilities]
        source = scores.index(max(scores))
        assert found.weights[i].tolist() == [float(k == source) for k in range(1 + teachers)]
        torch.testing.assert_close(found.target[i], said[source][i])
        taught.add(source)
    assert taught == set(range(1 + teachers))


def test_a_mean_of_logits_is_one() -> None:
    found, (frozen, teacher), views = answered(replace(SPEC, method="flip-avg"), Tiny(1), Tiny(0))
    assert isinstance(found.target, Tensor)
    kinds = set()
    for i, y in enumerate(views.labels.tolist()):
        right = int(frozen[i].argmax()) == y, int(teacher[i].argmax()) == y
        kinds.add(right)
        wanted = {(True, False): frozen[i], (False, True): teacher[i]}.get(
            right, (frozen[i] + teacher[i]) / 2
        )
        torch.testing.assert_close(found.target[i], wanted)
    assert len(kinds) >= 3


@pytest.mark.parametrize("teachers", [1, 3])
def test_most_probable_classes_come_from_their_source_too(teachers: int) -> None:
    """Who teaches is decided by whole probabilities."""
    modules = [Tiny(1), *(Tiny(seed) for seed in (0, 2, 3)[:teachers])]
    spec = replace(SPEC, method="kl-dp", together="parallel", temperature=2.0)
    whole, said, _ = answered(spec, *modules)
    some, _, _ = answered(replace(spec, target_topk=2), *modules)
    assert torch.equal(whole.weights, some.weights)
    assert isinstance(some.target, TopK) and some.target.classes.shape == (N, 2)
    for i, source in enumerate(whole.weights.argmax(1).tolist()):
        p = (said[source][i] / 2.0).softmax(0)
        largest = p.sort(descending=True)
        assert some.target.classes[i].tolist() == largest.indices[:2].tolist()
        torch.testing.assert_close(some.target.log_probs[i].exp(), largest.values[:2])
        torch.testing.assert_close(some.target.log_rest[i].exp(), largest.values[2])


def test_features_are_the_teachers() -> None:
    found, _, views = answered(replace(SPEC, method="cd"), Tiny(1), teacher := Tiny(0))
    assert found.features is not None
    wanted = teacher.body(prepare(views.batch(0, EVERYTHING)))
    torch.testing.assert_close(found.features, wanted.detach())


def test_answers_are_asked_in_the_precision_of_training() -> None:
    said = set()
    module = Tiny(0)
    module.head.register_forward_hook(lambda *passed: said.add(passed[2].dtype))
    found, _, _ = answered(replace(SPEC, amp="bfloat16"), Tiny(1), module)
    assert torch.bfloat16 in said
    assert isinstance(found.target, Tensor) and found.target.dtype == torch.float32


# --- who is asked --------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [lambda: None, Memory, Disk])
@pytest.mark.parametrize("method", METHODS)
def test_models_that_a_method_does_not_need_are_never_loaded(
    method: str, cache: Callable[[], TargetCache | None]
) -> None:
    asks_frozen = method in (
        "kl-dp", "kl-dp-u", "self", "flip-st", "flip-t", "flip-avg", "kl-mcl", "xekl-mcl",
    )  # fmt: skip
    loaded: list[str] = []

    def load(name: str, seed: int) -> Callable[[], Opened]:
        def loading() -> Opened:
            loaded.append(name)
            return Tiny(seed), CONFIG

        return loading

    views = make_views("flip")
    spec = replace(SPEC, method=method, augment="flip")
    targets = targets_of(
        spec, views, load("frozen", 1) if asks_frozen else never,
        [never if method == "self" else load("teacher", 0)], cache(),
    )  # fmt: skip
    assert loaded == []  # not before they are needed
    for epoch in range(2):
        targets.begin(epoch)
        targets.answers(EVERYTHING, views.batch(epoch, EVERYTHING))
    wanted = ["frozen"] * asks_frozen + ["teacher"] * (method != "self")
    assert sorted(loaded) == wanted  # once each


def test_flips_ask_the_frozen_student_of_plain_distillation() -> None:
    found, said, views = answered(replace(SPEC, distil_on="not-negative"), Tiny(1), Tiny(0))
    right = [z.argmax(1) == views.labels for z in said]
    assert found.weight is not None
    assert found.weight.tolist() == [float(not (f and not t)) for f, t in zip(*right, strict=True)]
    assert isinstance(found.target, Tensor) and torch.equal(found.target, said[1])
