"""What classes are compared by: classifier heads, and CLIP at its seam."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from kt_cli.data.images import ImageSet
from kt_cli.data.sources import open_data
from kt_cli.errors import UnknownName, UsageError, WeightsUnavailable
from kt_cli.knowledge.embedding import class_embedding
from kt_cli.settings import DataSpec
from kt_cli.spec import Model
from kt_cli.zoo import load
from kt_cli.zoo.features import classifier_rows
from tests.knowledge.conftest import MakeModel


@pytest.fixture
def images() -> ImageSet:
    return open_data(DataSpec("digits", limit=20)).eval


def test_the_head_of_the_most_accurate_model_that_has_one(
    make_model: MakeModel, images: ImageSet
) -> None:
    random = Model("random:test_vit#0@timm", "random:test_vit#0", "random:test_vit")
    best, other = make_model("best", "test_vit"), make_model("other")
    found = class_embedding("head", [random, best, other], images)
    assert found is not None and found.name == "head:best"
    rows = load.load(best).module.get_classifier().weight.detach().numpy()  # type: ignore[operator]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = found.vectors.numpy()
    np.testing.assert_allclose(vectors @ vectors.T, unit @ unit.T, atol=1e-5)


def test_a_kept_head_needs_no_weights(
    make_model: MakeModel, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("a")
    first = class_embedding("head", [model], images)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("loaded again")

    monkeypatch.setattr(load, "load", refuse)
    again = class_embedding("head", [model], images)
    assert first is not None and again is not None
    assert torch.equal(first.vectors, again.vectors)


def test_heads_follow_the_order_of_the_classes(make_model: MakeModel) -> None:
    names = tuple("abcdefghij")
    model = make_model("a", names=names)
    straight = classifier_rows(load.load(model).module)
    some = classifier_rows(load.load(model, ("c", "a", "j")).module)
    assert straight is not None and some is not None
    np.testing.assert_array_equal(some, straight[[2, 0, 9]])


def test_none_and_unknown(make_model: MakeModel, images: ImageSet) -> None:
    assert class_embedding("none", [make_model("a")], images) is None
    with pytest.raises(UnknownName, match="unknown class embedding 'glove'"):
        class_embedding("glove", [], images)


def test_clip_needs_its_extra(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UsageError, match="open_clip") as caught:
        class_embedding("clip", [], images)
    assert "kt-cli[clip]" in caught.value.tip


class FakeClip(torch.nn.Module):
    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(tokens[:, 0] % 7, 7).double()


def fake_open_clip(loads: bool = True) -> ModuleType:
    module: Any = ModuleType("open_clip")

    def create(name: str, pretrained: str, force_quick_gelu: bool) -> tuple[Any, None, None]:
        assert (name, pretrained, force_quick_gelu) == ("ViT-B-32", "openai", True)
        if not loads:
            raise RuntimeError("no network")
        return FakeClip(), None, None

    module.create_model_and_transforms = create
    module.get_tokenizer = lambda name: (
        lambda texts: torch.tensor(
            [[int(text.removeprefix("a photo of a ").rstrip("."))] for text in texts]
        )
    )
    return module


def test_clip_at_its_seam(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", fake_open_clip())
    found = class_embedding("clip", [], images)
    assert found is not None and found.name == "clip:ViT-B-32/openai"
    cosines = (found.vectors @ found.vectors.T).numpy()
    wanted = [[float(a % 7 == b % 7) for b in range(10)] for a in range(10)]
    np.testing.assert_allclose(cosines, wanted, atol=1e-6)


def test_clip_offline(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", fake_open_clip(loads=False))
    with pytest.raises(WeightsUnavailable, match="no network"):
        class_embedding("clip", [], images)
