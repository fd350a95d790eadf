from __future__ import annotations

import json
import logging
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kt_cli.errors import (
    ClassMismatch,
    DataError,
    KtError,
    UnknownName,
    UsageError,
    WeightsUnavailable,
    WriteError,
)
from kt_cli.spec import Model
from kt_cli.zoo import classes, load, local_models, names, timm_package, timm_registry
from kt_cli.zoo.classes import Outputs
from kt_cli.zoo.names import resolve
from kt_cli.zoo.preprocessing import Geometry, normaliser

SaveModel = Callable[..., Path]
ARCHS = ["test_vit", "test_convnext", "test_resnet", "test_mambaout", "test_nfnet", "test_byobnet"]
NETS = """
import torch
from torch import nn

THREE = ("a", "b", "c")
TEN = tuple(f"class {i}" for i in range(10))

class Net(nn.Module):
    def __init__(self, out=7):
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, out)
        self.data_config = {"input_size": (3, 8, 8), "mean": (0.5, 0.5, 0.5), "crop_pct": 1.0}

    def forward(self, x):
        return self.fc(x.flatten(1))

def counted():
    net = Net()
    net.num_classes = 7
    return net

def stated_as_none():
    net = Net()
    net.pretrained_cfg = None
    return net

class Stateful(Net):
    def get_extra_state(self):
        return {"steps": 3}

    def set_extra_state(self, state):
        pass

def compiled():
    return torch.compile(Net(), backend="eager")

def number():
    return 3

def leaves():
    raise SystemExit(7)

def broken():
    raise ValueError("two\\nlines")

class Flat(Net):
    def forward(self, x):
        return x

class Shaped(Net):
    how = staticmethod(lambda z: z)

    def forward(self, x):
        return self.how(super().forward(x))

class Output:
    def __init__(self, z):
        self.logits, self.loss = z, None

def shaped(how):
    net = Shaped()
    net.how = how
    net.num_classes = 7
    return net

def pair(): return shaped(lambda z: (z, z + 1))
def mapping(): return shaped(lambda z: {"features": z + 1, "logits": z})
def output(): return shaped(Output)
def one_each(): return shaped(lambda z: z[:, 0])
def pixels(): return shaped(lambda z: z[:, :, None, None])
def features(): return shaped(lambda z: {"features": z})

class Raising(Net):
    def forward(self, x):
        raise ValueError("wants text")

def needs_argument(n):
    return Net()
"""

THREE = ("a", "b", "c")
TEN = tuple(f"class {i}" for i in range(10))


def one(reference: str | Path) -> Model:
    (model,) = resolve([str(reference)])
    return model


@torch.inference_mode()
def logits(module: nn.Module, side: int = 32) -> Tensor:
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    result = module.eval()(images)
    assert isinstance(result, Tensor)
    return result


# --- saving and loading again -------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHS)
def test_round_trip(arch: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, config = load.build(arch, 10, 32)
    with torch.no_grad():
        for value in module.state_dict().values():
            value.add_((torch.rand_like(value.float()) * 0.1).to(value.dtype))
    config = {**config, "crop_pct": 0.83, "mean": (0.1, 0.2, 0.3), "interpolation": "bilinear"}
    labels = [f"zehn-{i}" for i in range(10)]
    load.save(
        module, tmp_path / "m", data_config=config, num_classes=len(labels),
        label_names=labels, card="# é\n", extra={"run_id": "r", "guard": 0.1},
    )  # fmt: skip
    expected = logits(module)
    assert expected.std() > 0

    by_timm = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True)
    assert torch.equal(logits(by_timm), expected)
    resolved = timm.data.resolve_model_data_config(by_timm)
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in resolved.items()} == config

    model = one(tmp_path / "m")
    loaded = load.load(model, labels)
    assert torch.equal(logits(loaded.module), expected)
    assert loaded.data_config == loaded.config("train") == loaded.config("test") == config
    assert not loaded.module.training
    assert loaded.num_classes == 10
    assert loaded.outputs == classes.outputs_of(model) == Outputs(10, tuple(labels))
    assert loaded.weights == load.fingerprint(module)
    assert local_models.card_extra(model) == {"run_id": "r", "guard": 0.1}
    card = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: timm\n") and card.endswith("---\n\n# é\n")


def test_saved_again_is_the_same(save_model: SaveModel, tmp_path: Path) -> None:
    folder = save_model("vit")
    loaded = load.load(one(folder))
    load.save(
        loaded.module, tmp_path / "again", data_config=loaded.config("train"),
        num_classes=10, label_names=loaded.outputs.names, card="",
        extra={"run_id": "vit"},
    )  # fmt: skip
    assert one(tmp_path / "again").key == one(folder).key


def test_nothing_of_the_place_is_stored(save_model: SaveModel, tmp_path: Path) -> None:
    loaded = load.load(one(save_model("vit")))
    load.save(
        loaded.module, tmp_path / "b", data_config=loaded.config("train"), num_classes=10,
        label_names=["x"] * 10, card="", extra={},
    )  # fmt: skip
    text = (tmp_path / "b" / "config.json").read_text()
    assert str(tmp_path) not in text
    assert '"tag"' not in text


def test_test_size_survives_where_the_training_size_does(tmp_path: Path) -> None:
    module = timm.create_model("resnet18.a1_in1k", num_classes=4)
    train, test = load.data_config(module, "train"), load.data_config(module, "test")
    assert (train["input_size"], test["input_size"]) == ((3, 224, 224), (3, 288, 288))
    kept, dropped = tmp_path / "kept", tmp_path / "dropped"
    save = {"num_classes": 4, "label_names": list("abcd"), "card": "", "extra": {}}
    load.save(module, kept, data_config=train, **save)
    assert load.load(one(kept), eval_size="test").data_config == test
    assert load.load(one(kept), eval_size="train").data_config == train
    small = {**train, "input_size": (3, 96, 96), "crop_pct": 1.0}
    load.save(module, dropped, data_config=small, **save)
    assert load.load(one(dropped), eval_size="test").data_config == small


def test_a_failed_save_leaves_the_earlier_model(
    save_model: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model("vit")
    key = one(folder).key

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(WriteError, match="No space left"):
        save_model("vit", seed=5)
    assert one(folder).key == key
    assert [path.name for path in folder.parent.iterdir()] == ["vit"]


def test_weights_that_share_memory_or_are_not_contiguous(tmp_path: Path) -> None:
    module, config = load.build("test_resnet", 10, 32)
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module.register_buffer("twin", module.get_parameter("fc.weight").detach())
    load.save(
        module,
        tmp_path / "m",
        data_config=config,
        num_classes=10,
        label_names=["x"] * 10,
        card="",
        extra={},
    )
    assert "twin" in load_file(tmp_path / "m" / "model.safetensors")


# --- building and fine-tuning --------------------------------------------------------------------


def test_build() -> None:
    module, config = load.build("test_vit", 7, 48)
    assert logits(module, 48).shape == (3, 7)
    assert config["input_size"] == (3, 48, 48)
    module, config = load.build("resnet18", 3)
    assert load.data_config(module, "test") == config  # not the published weights' 288 pixels


def test_build_refuses() -> None:
    with pytest.raises(UnknownName, match="test_vitt"):
        load.build("test_vitt", 10)
    with pytest.raises(UsageError, match="test_vit with 8 × 8") as caught:
        load.build("test_vit", 10, 8)
    assert "\n" not in caught.value.message


def test_a_model_that_changes_while_it_is_in_use_is_refused(
    tmp_path: Path, save_model: SaveModel
) -> None:
    folder = save_model("m")
    model = one(folder)
    load.load(model)
    (folder / "model.safetensors").write_bytes(
        (save_model("n", seed=1) / "model.safetensors").read_bytes()
    )
    with pytest.raises(DataError, match="m changed"):
        load.load(model)


def test_require_architecture(save_model: SaveModel) -> None:
    names.require_architecture("test_vit")
    names.require_architecture("vit_b")
    names.require_architecture(str(save_model("zoo/a")), pretrained=True)
    save_model("zoo/b", seed=1)
    with pytest.raises(UnknownName, match="nope"):
        names.require_architecture("nope")
    with pytest.raises(UnknownName, match="nope"):
        names.require_architecture("nope", pretrained=True)
    with pytest.raises(UsageError, match="names 2 models"):
        names.require_architecture(str(save_model("zoo/a").parent), pretrained=True)


@pytest.mark.parametrize("arch", ["test_vit", "test_vit_relpos", "test_resnet"])
def test_for_fine_tuning(arch: str, save_model: SaveModel, tmp_path: Path) -> None:
    folder = save_model("source", arch)
    source = load.load(one(folder)).module

    same, config = load.for_fine_tuning(str(folder), 10)
    assert torch.equal(logits(same), logits(source))
    assert config["input_size"] == (3, 32, 32)

    module, config = load.for_fine_tuning(str(folder), 4, 64)
    assert config["input_size"] == (3, 64, 64)
    assert load.data_config(module, "test")["input_size"] == (3, 64, 64)
    expected = logits(module, 64)
    assert expected.shape == (3, 4)
    unchanged = [
        k for k, v in source.state_dict().items() if torch.equal(v, module.state_dict()[k])
    ]
    assert len(unchanged) >= len(source.state_dict()) - 3  # head and position embedding

    load.save(
        module,
        tmp_path / "tuned",
        data_config=config,
        num_classes=4,
        label_names=list("abcd"),
        card="",
        extra={},
    )
    tuned = load.load(one(tmp_path / "tuned"), tuple("abcd"))
    assert torch.equal(logits(tuned.module, 64), expected)
    assert tuned.data_config == config


# --- evaluation ----------------------------------------------------------------------------------


def test_evaluation_is_that_of_timm_s_validate() -> None:
    module = timm.create_model("resnet18.a1_in1k")
    config = load.data_config(module, "test")
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    )
    # validate.py hands these to timm's loader, which builds its transform from them.
    reference = timm.data.create_transform(
        (3, 288, 288), is_training=False, interpolation="bicubic", mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225), crop_pct=1.0,
    )  # fmt: skip
    pixels = Geometry.of(config).transform()(image)
    assert pixels.dtype == torch.uint8
    found = normaliser(config, torch.device("cpu"))(pixels[None])[0]
    torch.testing.assert_close(found, reference(image), rtol=0, atol=1e-6)


# --- what does not load --------------------------------------------------------------------------


def test_class_mismatch(save_model: SaveModel) -> None:
    model = one(save_model("vit"))
    with pytest.raises(ClassMismatch, match="vit has 10 classes, the data has 3") as caught:
        load.load(model, THREE)
    assert "kt pretrain" in caught.value.tip
    with pytest.raises(ClassMismatch, match=r"resnet50\.a1_in1k has 1000 classes, digits has 10"):
        classes.require_classes([model, one("resnet50")], TEN, "digits")
    classes.require_classes([model, one("hf-hub:a/b")], TEN, "digits")
    file = save_model("resnet", "test_resnet") / "model.safetensors"
    with pytest.raises(ClassMismatch, match="10 classes, the data has 3"):
        load.load(one(f"test_resnet@{file}"), THREE)


def damage_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def drop_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, folder / "model.safetensors")


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def lose_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["architecture"]
    (folder / "config.json").write_text(json.dumps(config))


def unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architecture": "from_the_future"}))


def divide_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")


def name_more_classes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_classes": 14, "model_args": {"num_classes": 10}}
    config["pretrained_cfg"] |= {"num_classes": 14}
    (folder / "config.json").write_text(json.dumps(config))


def pickle_something(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.pth").write_bytes(pickle.dumps({"fc": print}))


@pytest.mark.parametrize(
    "damage",
    [
        damage_weights, drop_a_tensor, damage_config, lose_architecture, unknown_architecture,
        pickle_something, name_more_classes, divide_weights,
    ],
)  # fmt: skip
def test_damaged_folder(damage: Callable[[Path], None], save_model: SaveModel) -> None:
    folder = save_model("vit")
    damage(folder)
    with pytest.raises(DataError, match="vit") as caught:
        load.load(one(folder))
    assert "\n" not in caught.value.message
    assert caught.value.tip


class Payload:
    """Were it ever unpickled, it would leave a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(save_model: SaveModel, tmp_path: Path) -> None:
    weights = load_file(save_model("vit") / "model.safetensors")
    trace = tmp_path / "trace"
    torch.save({"state_dict": weights, "extra": Payload(trace)}, tmp_path / "m.pth")
    with pytest.raises(DataError, match=r"m\.pth holds an object .* weights_only"):
        load.load(one(f"test_vit@{tmp_path / 'm.pth'}"))
    assert not trace.exists()


# --- checkpoints ---------------------------------------------------------------------------------


def wrapped(weights: dict[str, Tensor], how: str) -> dict[str, Any]:
    other = {k: torch.zeros_like(v) for k, v in weights.items()}
    return {
        "plain": dict(weights),
        "state_dict": {"state_dict": weights, "epoch": 3},
        "module": {"state_dict": {f"module.{k}": v for k, v in weights.items()}},
        "ema": {"state_dict": other, "state_dict_ema": weights},
        "model": {"model": weights},
    }[how]


@pytest.mark.parametrize("how", ["plain", "state_dict", "module", "ema", "model"])
def test_checkpoint_forms(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = timm.create_model("test_resnet", num_classes=6)
    torch.save(wrapped(module.state_dict(), how), tmp_path / "m.pth")
    loaded = load.load(one(f"test_resnet@{tmp_path / 'm.pth'}"), tuple("abcdef"))
    assert torch.equal(logits(loaded.module), logits(module))
    assert loaded.weights == load.fingerprint(module)


def test_checkpoint_that_does_not_fit(tmp_path: Path) -> None:
    weights = timm.create_model("test_resnet", num_classes=6).state_dict()
    path = tmp_path / "m.safetensors"

    def message() -> str:
        with pytest.raises(DataError) as caught:
            load.load(one(f"test_resnet@{path}"))
        assert str(path) in caught.value.message
        return caught.value.message

    save_file({k: v for k, v in weights.items() if k != "conv1.0.weight"}, path)
    assert "missing conv1.0.weight" in message()
    save_file({**weights, "extra.weight": torch.zeros(1)}, path)
    assert "unknown extra.weight" in message()
    save_file({**weights, "conv1.0.weight": torch.zeros(1, 2)}, path)
    assert "conv1.0.weight (1, 2) instead of" in message()
    save_file({"a.weight": torch.zeros(1)}, path)
    assert "no classifier" in message()
    path.write_bytes(b"not weights")
    with pytest.raises(DataError, match="cannot load m"):
        load.load(one(f"test_resnet@{path}"))


# --- functions -----------------------------------------------------------------------------------


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of models in the current folder."""
    name = f"nets_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    return name


def test_function(nets: str) -> None:
    for function in ("Net", "counted", "stated_as_none", "Stateful", "compiled"):
        loaded = load.load(one(f"py:{nets}:{function}"), tuple("abcdefg"))
        assert loaded.num_classes == 7
        assert loaded.outputs.names == tuple("abcdefg")  # those of the data
        assert loaded.data_config["input_size"] == (3, 8, 8)
        assert loaded.data_config["mean"] == (0.5, 0.5, 0.5)
        assert loaded.data_config["crop_pct"] == 1.0
        assert not loaded.module.training
    with pytest.raises(ClassMismatch, match="7 classes, the data has 10"):
        load.load(one(f"py:{nets}:Net"), TEN)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("number", "returned int"), ("broken", "ValueError: two lines"), ("missing", "missing"),
        ("leaves", "7"),
        ("Flat", r"returns \(2, 3, 8, 8\)"), ("needs_argument", "TypeError"),
    ],
)  # fmt: skip
def test_function_that_fails(nets: str, function: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load.load(one(f"py:{nets}:{function}"))


@pytest.mark.parametrize("function", ["pair", "mapping", "output"])
def test_logits_are_found_in_what_a_model_returns(nets: str, function: str) -> None:
    torch.manual_seed(0)
    module = load.load(one(f"py:{nets}:{function}"), tuple("abcdefg")).module
    images = torch.rand(3, 3, 8, 8)
    (net,) = (part for part in module.modules() if hasattr(part, "fc"))
    expected = net.fc(images.flatten(1))  # type: ignore[operator]
    assert torch.equal(module.eval()(images), expected)
    assert torch.equal(module.train()(images), expected)
    with torch.no_grad():
        compiled = torch.compile(module, backend="eager", fullgraph=True)
        assert torch.equal(compiled(images), expected)


@pytest.mark.parametrize(
    ("function", "came"),
    [("one_each", r"\(2,\)"), ("pixels", r"\(2, 7, 1, 1\)"), ("features", "dict")],
)
def test_outputs_that_are_no_logits_are_refused_with_their_shape(
    nets: str, function: str, came: str
) -> None:
    with pytest.raises(UsageError, match=rf"{function} returns {came} for images") as caught:
        load.load(one(f"py:{nets}:{function}"))
    assert "shape (2, classes)" in caught.value.tip


def test_a_model_that_raises_is_not_called_damaged(nets: str) -> None:
    with pytest.raises(UsageError, match=r"Raising fails on images .*: wants text") as caught:
        load.load(one(f"py:{nets}:Raising"))
    assert "input_size" in caught.value.tip


def test_missing_module() -> None:
    with pytest.raises(UsageError, match="no_such_module"):
        load.load(one("py:no_such_module:build"))


@pytest.mark.parametrize("function", ["Net", "stated_as_none"])
def test_what_is_not_timm_s_is_saved_all_the_same(function: str, nets: str, tmp_path: Path) -> None:
    loaded = load.load(one(f"py:{nets}:{function}"))
    load.save(
        loaded.module, tmp_path / "m", data_config=loaded.config("train"),
        num_classes=7, label_names=list("abcdefg"), card="", extra={"run_id": "r"},
    )  # fmt: skip
    model = one(tmp_path / "m")
    assert classes.outputs_of(model) == Outputs(7, tuple("abcdefg"))
    assert local_models.card_extra(model) == {"run_id": "r"}
    with pytest.raises(DataError, match="architecture") as caught:
        load.load(model)
    assert "py:" in caught.value.tip
    with pytest.raises(UsageError, match="cannot build"):
        load.for_fine_tuning(f"py:{nets}:{function}", 3)


# --- fingerprints --------------------------------------------------------------------------------


def test_fingerprint_sees_every_bit_of_state() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    seen = {load.fingerprint(module)}
    module[1].running_mean += 1e-7  # type: ignore[operator]
    seen.add(load.fingerprint(module))
    module[1].num_batches_tracked += 1  # type: ignore[operator]
    seen.add(load.fingerprint(module))
    module.to(torch.bfloat16)
    seen.add(load.fingerprint(module))
    assert len(seen) == 4
    assert load.fingerprint(module) in seen
    assert len(seen) == 4


# --- weights that are elsewhere ------------------------------------------------------------------


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of the hub and of torch; returns the hub's."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "hub"


def put_into_cache(hub: Path, repo: str, files: dict[str, Path]) -> None:
    folder = hub / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    for name, file in files.items():
        (snapshot / name).write_bytes(file.read_bytes())


def test_missing_weights_are_named(caches: Path, save_model: SaveModel) -> None:
    models = resolve(["timm-top300", "hf-hub:a/b", str(save_model("vit"))])
    assert load.missing_weights(models) == models[:-1]
    with pytest.raises(WeightsUnavailable) as caught:
        load.require_weights(models)
    assert models[0].name in caught.value.message
    assert models[9].name in caught.value.message
    assert models[10].name not in caught.value.message
    assert "291 more" in caught.value.message
    assert "HF_HOME" in caught.value.tip
    load.require_weights(models[-1:])


@pytest.mark.parametrize("reference", ["resnet18", "hf-hub:a/b"])
def test_loading_what_is_missing_fails_at_once(reference: str, caches: Path) -> None:
    started = time.monotonic()
    with pytest.raises(WeightsUnavailable) as caught:
        load.load(one(reference))
    assert time.monotonic() - started < 5
    assert "\n" not in caught.value.message


def test_an_answering_hub_has_everything(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_registry, "hub_answers", lambda: True)
    assert load.missing_weights(resolve(["timm-top5"])) == []


@pytest.mark.parametrize(("seconds", "answers"), [(0.0, True), (5.0, False)])
def test_the_hub_is_asked_once_and_not_for_long(
    seconds: float, answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm_registry, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(timm_registry, "_probe", lambda address: time.sleep(seconds) or True)
    assert timm_registry.hub_answers() is answers


def test_the_probe_fails_quietly() -> None:
    assert timm_registry._probe("http://127.0.0.1:9") is False


def test_cached_timm_weights_load_without_the_hub(
    caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_question() -> bool:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(timm_registry, "hub_answers", no_question)
    torch.manual_seed(0)
    module = timm.create_model("test_vit.r160_in1k")
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    put_into_cache(
        caches, "timm/test_vit.r160_in1k", {"model.safetensors": tmp_path / "w.safetensors"}
    )
    model = one("test_vit")
    load.require_weights([model])
    loaded = load.load(model)
    assert torch.equal(logits(loaded.module, 160), logits(module, 160))
    assert loaded.data_config == load.data_config(module, "test")


def test_cached_hub_model_loads_without_the_hub(caches: Path, save_model: SaveModel) -> None:
    folder = save_model("vit")
    files = {name: folder / name for name in ("config.json", "model.safetensors")}
    put_into_cache(caches, "org/vit", files)
    model = one("hf-hub:org/vit")
    assert classes.outputs_of(model) == Outputs(10, TEN)  # told by its configuration
    loaded = load.load(model, TEN)
    assert loaded.matching == "names"
    assert torch.equal(logits(loaded.module), logits(load.load(one(folder)).module))


def test_weights_behind_an_address_are_found_in_torch_s_cache(caches: Path, tmp_path: Path) -> None:
    name = next(n for n in timm_package.pretrained_names() if not timm_package.config(n).hf_hub_id)
    assert timm_registry.cached(name) is None
    file = tmp_path / "torch" / "hub" / "checkpoints" / Path(timm_package.config(name).url).name
    file.parent.mkdir(parents=True)
    file.touch()
    assert timm_registry.cached(name) == file


def test_a_damaged_cache_is_one_line(caches: Path, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"junk")
    put_into_cache(caches, "timm/test_vit.r160_in1k", {"model.safetensors": tmp_path / "w"})
    with pytest.raises(KtError, match=r"cannot load test_vit\.r160_in1k") as caught:
        load.load(one("test_vit"))
    assert "\n" not in caught.value.message


def test_loading_is_quiet(
    save_model: SaveModel, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_model("vit")
    (folder / "model.safetensors").rename(folder / "b.safetensors")
    (folder / "c.safetensors").write_bytes((folder / "b.safetensors").read_bytes())
    with caplog.at_level(logging.INFO):
        load.load(one(folder))  # timm warns of two candidates
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
