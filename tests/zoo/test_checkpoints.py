"""Checkpoint files as trainers and authors write them; `ARCH@FILE` finds the weights in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from kt_cli.errors import DataError
from kt_cli.zoo import load
from kt_cli.zoo.names import resolve

State = dict[str, Tensor]
CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=3).state_dict()


def loaded(arch: str, file: Path, classes: tuple[str, ...] | None = None) -> load.Loaded:
    (model,) = resolve([f"{arch}@{file}"])
    return load.load(model, classes)


def same(found: load.Loaded, state: State) -> bool:
    ours = found.module.state_dict()
    return ours.keys() == state.keys() and all(torch.equal(ours[k], v) for k, v in state.items())


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def with_counters(state: State) -> State:
    """As thop leaves them, one in each module."""
    modules = {name.rpartition(".")[0] for name in state}
    counts = {f"{name}.total_ops": torch.full((1,), 7.0, dtype=torch.float64) for name in modules}
    return {**state, **counts, "total_params": torch.zeros(1)}


def in_parts(state: State) -> State:
    """Each stage compiled by itself."""
    return {re.sub(r"^(layer\d)\.", r"\1._orig_mod.", name): v for name, v in state.items()}


WRAPPED: dict[str, Callable[[State], dict[str, Any]]] = {
    "model": lambda s: {"model": s, "epoch": 3},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": {}},
    "net": lambda s: {"net": s, "acc": 0.9},
    "deeper": lambda s: {"checkpoint": {"student": {"weights": s}}},
    "module.": lambda s: {"state_dict": prefixed(s, "module.")},
    "backbone.": lambda s: {"state_dict": prefixed(s, "backbone.")},
    "of a compiled one": lambda s: prefixed(s, "module._orig_mod."),
    "parts compiled": in_parts,
    "Lightning": lambda s: {
        "state_dict": {**prefixed(s, "model."), "loss.weight": torch.ones(3)},
        "hyper_parameters": {"lr": 0.1},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(2)}}}],
    },
    "averaged": lambda s: {**prefixed(s, "module."), "n_averaged": torch.tensor(5)},
    "counted": with_counters,
    "NumPy": lambda s: {"state_dict": s, "best_acc1": np.float64(0.7), "n": np.int64(3)},
    "EMA beside it": lambda s: {
        "model": {k: torch.zeros_like(v) for k, v in s.items()},
        "model_ema": {**prefixed(s, "module."), "n_averaged": torch.tensor(5)},
    },
    "the same twice": lambda s: {"last": s, "best": s},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_weights_are_found_however_they_are_wrapped(how: str, state: State, tmp_path: Path) -> None:
    torch.save(WRAPPED[how](state), tmp_path / "m.ckpt")
    found = loaded("test_resnet", tmp_path / "m.ckpt", CLASSES)
    assert same(found, state)


def test_two_models_in_one_file_are_named(state: State, tmp_path: Path) -> None:
    other = {name: value + 1 for name, value in state.items()}
    torch.save({"student": state, "teacher": other}, tmp_path / "m.pth")
    with pytest.raises(DataError, match=r"m\.pth holds several models: student, teacher"):
        loaded("test_resnet", tmp_path / "m.pth")


@pytest.mark.parametrize(
    ("name", "content", "message", "tip"),
    [
        ("a.pth", "<!DOCTYPE html><html>Sign in</html>", "is a web page", "login"),
        ("a.safetensors", "\n<html>", "is a web page", "login"),
        (
            "a.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "is a Git LFS pointer", "git lfs pull",
        ),
        ("a.pth", "", "is empty", "again"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("folder", [False, True])
def test_what_was_saved_in_place_of_weights(
    name: str, content: str, message: str, tip: str, folder: bool, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    (tmp_path / "config.json").write_text('{"architecture": "test_resnet", "num_classes": 3}')
    reference = str(tmp_path) if folder else f"test_resnet@{tmp_path / name}"
    (model,) = resolve([reference])
    with pytest.raises(DataError, match=f"{name} {message}") as caught:
        load.load(model)
    assert tip in caught.value.tip


@pytest.mark.parametrize("layer", ["fc.weight", "running_mean"])
def test_weights_that_are_not_finite_are_refused_with_their_layer(
    layer: str, state: State, tmp_path: Path
) -> None:
    layer = next(name for name in state if name.endswith(layer))
    state = {**state, layer: state[layer].clone()}
    state[layer].view(-1)[0] = torch.nan
    save_file(state, tmp_path / "diverged.safetensors")
    with pytest.raises(DataError, match=f"diverged: {re.escape(layer)} is not finite"):
        loaded("test_resnet", tmp_path / "diverged.safetensors")


def test_what_is_no_mapping_of_weights(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match=r"list\.pth holds no weights by name"):
        loaded("test_resnet", tmp_path / "list.pth")


# --- the original authors' names ------------------------------------------------------------------


def as_convnext(state: State) -> State:
    rules = [
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d)\.downsample", r"downsample_layers.\1"),
        (r"\.blocks\.", "."),
        ("conv_dw", "dwconv"),
        (r"mlp\.fc", "pwconv"),
        (r"^head\.norm", "norm"),
        (r"^head\.fc", "head"),
    ]
    return _renamed(state, rules)


def as_swin(state: State) -> State:
    """Downsampling ends a stage; some buffers are saved."""
    found = {
        re.sub(r"layers\.(\d)\.down", lambda m: f"layers.{int(m[1]) - 1}.down", name): value
        for name, value in state.items()
    }
    mask = {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}
    return _renamed({**found, **mask}, [(r"^head\.fc", "head")])


def as_deit3(state: State) -> State:
    return _renamed(state, [(r"ls(\d)\.gamma", r"gamma_\1")])


def _renamed(state: State, rules: list[tuple[str, str]]) -> State:
    found = {}
    for name, value in state.items():
        for old, new in rules:
            name = re.sub(old, new, name)
        found[name] = value
    return found


@pytest.mark.parametrize(
    ("arch", "named"),
    [
        ("convnext_atto", as_convnext), ("swin_tiny_patch4_window7_224", as_swin),
        ("deit3_small_patch16_224", as_deit3),
    ],
)  # fmt: skip
def test_original_names(arch: str, named: Callable[[State], State], tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = timm.create_model(arch, num_classes=3).state_dict()
    original = named(state)
    assert original.keys() != state.keys()
    torch.save({"model": prefixed(original, "module."), "epoch": 300}, tmp_path / "m.pth")
    assert same(loaded(arch, tmp_path / "m.pth", CLASSES), state)


def test_positions_are_not_stretched_for_another_size(tmp_path: Path) -> None:
    state = timm.create_model("deit3_small_patch16_384", num_classes=3).state_dict()
    torch.save(as_deit3(state), tmp_path / "m.pth")
    with pytest.raises(DataError, match="does not fit"):
        loaded("deit3_small_patch16_224", tmp_path / "m.pth")


def test_a_file_that_is_cut_off_is_said_to_be(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "m.pth")
    whole = (tmp_path / "m.pth").read_bytes()
    (tmp_path / "m.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is cut off or damaged"):
        loaded("test_resnet", tmp_path / "m.pth")


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "m.pt"))
    with pytest.raises(DataError, match="is a TorchScript archive") as caught:
        loaded("test_resnet", tmp_path / "m.pt")
    assert "state_dict" in caught.value.tip
