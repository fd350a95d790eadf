"""Untrained models, and predictions, which are no models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kt_cli.errors import UsageError
from kt_cli.zoo import load
from kt_cli.zoo.names import resolve

CLASSES = [f"class {i}" for i in range(7)]


def loaded(reference: str, classes: list[str] | None = None) -> load.Loaded:
    (model,) = resolve([reference])
    return load.load(model, classes)


def test_untrained_model_has_the_classes_of_the_data() -> None:
    found = loaded("random:test_vit", CLASSES)
    assert found.num_classes == 7
    images = torch.zeros(2, *found.data_config["input_size"])
    assert found.module(images).shape == (2, 7)
    assert not found.module.training


def test_without_data_it_has_its_own_number_of_classes() -> None:
    assert loaded("random:test_vit").num_classes == 1000


def test_equal_seeds_give_equal_weights() -> None:
    first, again = loaded("random:test_vit#5", CLASSES), loaded("random:test_vit#5", CLASSES)
    assert first.weights == again.weights
    assert loaded("random:test_vit", CLASSES).weights != first.weights


def test_building_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    want = torch.rand(4)
    torch.manual_seed(3)
    loaded("random:test_resnet#9", CLASSES)
    assert torch.equal(torch.rand(4), want)


def test_predictions_have_no_weights(tmp_path: Path) -> None:
    (tmp_path / "said.csv").write_text("id,pred\na,1\n")
    with pytest.raises(UsageError, match=r"said\.csv has no weights") as caught:
        loaded(f"predictions:{tmp_path / 'said.csv'}", CLASSES)
    assert "complementarity" in caught.value.tip
