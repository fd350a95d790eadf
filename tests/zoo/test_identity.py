"""What a model is: by its source, without loading it, and by its traits, as loaded."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kt_cli.spec import Model
from kt_cli.zoo import (
    fingerprints,
    identity,
    load,
    loaders,
    local_models,
    timm_package,
    timm_registry,
)
from kt_cli.zoo.names import resolve

SaveModel = Callable[..., Path]
CONFIG = {"input_size": (3, 32, 32), "crop_pct": 0.875, "mean": (0.5, 0.5, 0.5)}


def traits(weights: str = "a", crop: float = 0.875, outputs: str = "") -> identity.Traits:
    config = {**CONFIG, "crop_pct": crop}
    return {
        "weights": weights, "preprocessing": identity.preprocessing(config, config),
        "outputs": outputs,
    }  # fmt: skip


def test_differences_are_said_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    was = traits()
    assert identity.differences(was, traits()) == []
    assert identity.differences(was, traits("b")) == ["weights were a, are b"]
    assert identity.differences(was, traits(outputs="c")) == ["outputs were as they come, are c"]
    version = identity.timm_version()
    monkeypatch.setattr(identity, "timm_version", lambda: "99.0")
    assert identity.differences(was, traits("b", crop=0.95)) == [
        "weights were a, are b", "crop_pct 0.875 → 0.95", f"timm {version} → 99.0",
    ]  # fmt: skip
    # An old row says less.
    assert identity.differences({"weights": "a"}, traits("a", 0.95)) == []
    assert identity.differences({}, was) == []


def test_preprocessing_tells_training_from_evaluation() -> None:
    both = json.loads(identity.preprocessing(CONFIG, {**CONFIG, "input_size": (3, 16, 16)}))
    assert both.pop("timm") == identity.timm_version()
    assert both == {**json.loads(json.dumps(CONFIG)), "train_input_size": [3, 16, 16]}


def test_outputs_are_told_apart_by_their_order() -> None:
    assert identity.outputs(None) == ""
    assert len({identity.outputs(columns) for columns in ((0, 1), (1, 0), (0, 2), (0,))}) == 4


def test_traits_of_a_model_say_which_outputs_are_chosen(save_model: SaveModel) -> None:
    (model,) = resolve([str(save_model("m"))])
    names = tuple(f"class {i}" for i in range(10))
    same, turned = load.load(model, names), load.load(model, names[::-1])
    first, second = same.traits("test"), turned.traits("test")
    assert first["outputs"] == "" and second["outputs"] == identity.outputs(range(9, -1, -1))
    assert first["weights"] == second["weights"] and first["preprocessing"] == json.dumps(
        json.loads(second["preprocessing"]), sort_keys=True
    )


def test_what_cannot_be_known_has_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_registry, "cached", lambda ref: None)
    for ref in ("py:module:function", "resnet50.a1_in1k", "hf-hub:a/b", "predictions:x.csv"):
        assert identity.source(Model(ref, ref)) == ""


def test_a_source_changes_with_all_that_decides_what_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"a")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(timm_registry, "cached", lambda ref: file)
    named, hub = Model("resnet50.a1_in1k", "resnet50.a1_in1k"), Model("hf-hub:a/b", "hf-hub:a/b")
    own = [Model("local:1", f"local-dir:{tmp_path}"), Model("local:1", "resnet50@x.pth"),
           Model("random:resnet50#0", "random:resnet50#0")]  # fmt: skip

    def sources() -> list[str]:
        return [identity.source(model) for model in (named, hub, *own)]

    def same(some: list[str], others: list[str]) -> list[bool]:
        return [a == b for a, b in zip(some, others, strict=True)]

    first = sources()
    assert first == sources() and len(set(first)) == 5 and all(first)
    file.write_bytes(b"ab")
    grown = sources()
    assert same(first, grown) == [False, False, True, True, True]
    (tmp_path / "config.json").write_text('{"crop_pct": 1.0}')
    assert same(grown, sources()) == [
        True,
        False,
        True,
        True,
        True,
    ]
    known = sources()
    other = timm_package.config("resnet18")._replace(whole="another configuration")
    monkeypatch.setattr(timm_package, "config", lambda name: other)
    assert same(known, sources()) == [False, True, True, False, False]
    known = sources()
    monkeypatch.setattr(identity, "timm_version", lambda: "99.0")
    assert not set(known) & set(sources())
    assert identity.source(Model("local:2", own[0].ref)) != identity.source(own[0])


# --- functions -----------------------------------------------------------------------------------

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, **more):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("table", torch.zeros(2), persistent=False)
        self.settings, self.scale, self.names = {"a": [1, 2.5]}, 1.0, ("x", None)
        self.anything = object()
        torch.nn.init.zeros_(self.layer.weight), torch.nn.init.zeros_(self.layer.bias)
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], nn.Module]:
    """A new one each time, of the file as it is."""
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "a_net_of_mine.py"
    file.write_text(MODULE)

    def build() -> nn.Module:
        sys.modules.pop("a_net_of_mine", None)
        built: nn.Module = __import__("a_net_of_mine").Net()
        return built

    return build


def test_all_that_a_function_may_set_is_seen(net: Callable[[], nn.Module], tmp_path: Path) -> None:
    known = fingerprints.fingerprint_of_function(net())
    assert known == fingerprints.fingerprint_of_function(net())
    changes: list[Callable[[nn.Module], object]] = [
        lambda m: m.layer.bias.data.add_(1e-7),  # type: ignore[operator, union-attr]
        lambda m: m.table.add_(1e-7),  # type: ignore[operator, union-attr]
        lambda m: setattr(m, "scale", 2.0),
        lambda m: m.settings["a"].append(3),  # type: ignore[index, operator, union-attr]
        lambda m: setattr(m, "names", ("x", True)),
        lambda m: setattr(m, "layer", nn.Sequential()),
        lambda m: setattr(m, "bias_of_mine", torch.ones(2)),
        lambda m: setattr(m, "bias_of_mine", torch.zeros(2)),
        lambda m: setattr(m, "shift", np.arange(3.0)),
        lambda m: setattr(m, "shift", np.float32(0.5)),
        lambda m: setattr(m, "_private", 1),
        lambda m: setattr(m, "by_number", {0: 1.5}),
        lambda m: setattr(m, "space", SimpleNamespace(a=[1, {2}])),
        lambda m: setattr(m, "space", SimpleNamespace(a=[1, {3}])),
    ]
    found = {known}
    for change in changes:
        module = net()
        change(module)
        found.add(fingerprints.fingerprint_of_function(module))
    circle = net()
    circle.itself = [circle]  # type: ignore[assignment]
    assert fingerprints.fingerprint_of_function(circle)
    (tmp_path / "a_net_of_mine.py").write_text(MODULE + "\n# forward is another\n")
    found.add(fingerprints.fingerprint_of_function(net()))
    assert len(found) == 2 + len(changes)


def test_what_else_the_process_did_does_not_count(net: Callable[[], nn.Module]) -> None:
    def built() -> str:
        module: Any = net()
        module.handle = module.layer.register_forward_hook(lambda *_: None)
        module.log = logging.getLogger("of.mine")
        module.by_function, module.objects = {built: 1}, {object()}
        return fingerprints.fingerprint_of_function(module)

    known = built()
    logging.getLogger("of.somebody.else")
    assert built() == known


def test_state_that_is_no_tensor(net: Callable[[], nn.Module]) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"seen": self.seen}

    found = set()
    for seen in (1, 2, 2):
        module = Extra(1, 1)
        nn.init.zeros_(module.weight), nn.init.zeros_(module.bias)
        module.seen = seen  # type: ignore[assignment]
        found.add(fingerprints.fingerprint(module))
        assert not loaders._odd(module.state_dict())
    assert len(found) == 2


def test_a_fingerprint_is_of_values_not_of_where_they_lie() -> None:
    module = nn.Conv2d(3, 4, 3)
    moved = nn.Conv2d(3, 4, 3)
    moved.load_state_dict(module.state_dict())
    moved = moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert fingerprints.fingerprint(module) == fingerprints.fingerprint(moved)


def test_an_edited_module_is_imported_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key is of the file as it is; so is what it gives, also within the same second."""
    monkeypatch.syspath_prepend(tmp_path)
    text = "from torch import nn\ndef f():\n    return nn.Linear({}, 2)\n"
    keys, widths = [], []
    for width in (3, 4):
        (tmp_path / "edited_net.py").write_text(text.format(width))
        keys.append(local_models.function_key("edited_net", "f"))
        widths.append(local_models.call("edited_net", "f").in_features)
    assert widths == [3, 4] and keys[0] != keys[1]


def test_content_is_read_again_whatever_the_times_say(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    before, first = file.stat(), local_models.content(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert local_models.content(file) != first
