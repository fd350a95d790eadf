"""Models from files, untrained models, and predictions, which are no models."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from kt_cli.errors import DataError, UsageError
from kt_cli.spec import Model
from kt_cli.zoo import load, loaders
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


# --- first weights that are replaced by those of a file are not drawn ----------------------------

SaveModel = Callable[..., Path]


@pytest.mark.parametrize("arch", ["test_vit", "test_resnet", "test_convnext", "test_efficientnet"])
def test_a_model_of_a_file_is_as_timm_opens_it_and_nothing_was_drawn(
    save_model: SaveModel, arch: str
) -> None:
    reference = f"local-dir:{save_model('m', arch)}"
    before = torch.get_rng_state()
    module = loaded(reference).module
    assert torch.equal(torch.get_rng_state(), before)
    theirs = timm.create_model(reference, pretrained=True).eval()
    assert not torch.equal(torch.get_rng_state(), before)
    state, wanted = module.state_dict(), theirs.state_dict()
    assert state.keys() == wanted.keys() and all(torch.equal(state[k], wanted[k]) for k in wanted)
    assert all(p.requires_grad for p in module.parameters())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(module(images), theirs(images))


def test_fine_tuning_draws_its_head_as_if_all_were_drawn(save_model: SaveModel) -> None:
    reference = f"local-dir:{save_model('m')}"
    torch.manual_seed(5)
    module, _ = load.for_fine_tuning(reference, 3)
    torch.manual_seed(5)
    theirs = timm.create_model(reference, pretrained=True)
    theirs.reset_classifier(3)
    assert torch.equal(module.head.weight, theirs.head.weight)


class Odd(nn.Module):
    """Not all that it draws is in the file; what it draws is used at once."""

    def __init__(self) -> None:
        super().__init__()
        self.kept, self.lacking = nn.Linear(4, 4), nn.Linear(4, 4)
        nn.init.orthogonal_(self.lacking.weight)
        self.register_buffer("drawn", torch.empty(3).uniform_(), persistent=False)


def opening(monkeypatch: pytest.MonkeyPatch, make: Callable[[], nn.Module]) -> nn.Module:
    monkeypatch.setattr(loaders, "_of_folder", lambda folder, model: make())
    return loaders.opened(Model("k", "local-dir:x", "mine"), None)


@pytest.mark.parametrize("lacking", ["lacking", "drawn", "nothing"])
def test_what_no_file_replaces_is_drawn(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    made: list[nn.Module] = []

    def make() -> nn.Module:
        made.append(Odd())
        for name, part in (("lacking", made[-1].lacking.weight), ("drawn", made[-1].drawn)):
            if name != lacking:
                part.detach().fill_(2.0)
        for part in (made[-1].kept.weight, made[-1].kept.bias, made[-1].lacking.bias):
            part.detach().fill_(1.0)
        return made[-1]

    found = opening(monkeypatch, make)
    assert len(made) == 1 + (lacking != "nothing")
    assert all(part.isfinite().all() for part in (*found.parameters(), *found.buffers()))


def test_weights_that_are_not_finite_are_named_and_large_ones_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make(value: float, buffer: float = 0.0) -> Callable[[], nn.Module]:
        module = nn.Module()
        module.register_parameter("a", nn.Parameter(torch.full((4,), 3e38)))  # whose sum is not
        module.register_parameter("b", nn.Parameter(torch.tensor([0.0, value, -value])))
        module.register_buffer("c", torch.tensor([buffer, -buffer]))
        return lambda: module

    assert opening(monkeypatch, make(1.0, math.inf)).b[1] == 1
    for value, buffer, layer in ((math.nan, 0.0, "b"), (math.inf, 0.0, "b"), (1.0, math.nan, "c")):
        with pytest.raises(DataError, match=f"mine: {layer} is not finite"):
            opening(monkeypatch, make(value, buffer))


def test_weights_are_hashed_once_as_long_as_their_source_is_the_same(
    save_model: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model("m")
    first = loaded(f"local-dir:{folder}").weights
    monkeypatch.setattr(load, "fingerprint", lambda module: "hashed again")
    assert loaded(f"local-dir:{folder}").weights == first
    save_model("m", seed=1)
    assert loaded(f"local-dir:{folder}").weights == "hashed again"
