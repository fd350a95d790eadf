"""Evaluation against timm's own, on images like photographs.

KT_FIDELITY_IMAGES=1000 runs it on more images than the default.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import timm
import torch
from timm.data import create_dataset, create_loader, resolve_model_data_config
from timm.utils import accuracy
from torch import Tensor, nn

from benchmarks.photos import photos
from kt_cli.data.images import ImageSet
from kt_cli.data.loading import batches
from kt_cli.data.sources import open_data
from kt_cli.errors import DataError, KtError
from kt_cli.knowledge.evaluate import Evaluator, OutputsNotFinite, evaluate_all
from kt_cli.knowledge.predict import REFRESH, How, predict_all
from kt_cli.knowledge.predictions import Predictions, entry
from kt_cli.rows import arrays
from kt_cli.settings import DataSpec, EvalSpec
from kt_cli.spec import Model
from kt_cli.zoo import load as zoo
from kt_cli.zoo.names import resolve

CPU = torch.device("cpu")
COUNT = int(os.environ.get("KT_FIDELITY_IMAGES", "64"))
CLASSES = 12  # class2 before class10, as timm sorts them
BATCH, OTHER_BATCH = 24, 10
CLOSE = 1e-4  # of the range of the logits


class Seen(NamedTuple):
    """How a model sees images; None where its architecture decides."""

    arch: str
    side: int
    crop_pct: float
    interpolation: str
    crop_mode: str
    mean: float | None = None


MODELS = {
    "vit": Seen("test_vit", 160, 0.875, "bicubic", "center"),
    "vit-half": Seen("test_vit", 160, 0.875, "bicubic", "center", mean=0.5),
    "vit-small": Seen("test_vit", 128, 0.95, "bilinear", "squash"),
    "resnet": Seen("test_resnet", 160, 0.95, "bilinear", "center"),
    "convnext": Seen("test_convnext", 160, 1.0, "bicubic", "squash"),
    "efficientnet": Seen("test_efficientnet", 160, 0.95, "bicubic", "border"),
    "byobnet": Seen("test_byobnet", 128, 1.0, "bilinear", "border"),
    "nfnet": Seen("test_nfnet", 128, 0.875, "bilinear", "center"),
    "mambaout": Seen("test_mambaout", 160, 1.0, "bicubic", "center"),  # and 192 in tests
}


class Zoo(NamedTuple):
    images: ImageSet
    root: Path
    folders: dict[str, Path]

    def models(self) -> list[Model]:
        return resolve([str(folder) for folder in self.folders.values()])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    root = tmp_path_factory.mktemp("photos")
    photos(root, COUNT, CLASSES)
    images = open_data(DataSpec(str(root))).eval
    zoo_folder = tmp_path_factory.mktemp("zoo")
    folders = {name: zoo_folder / name for name in MODELS}
    for seed, (name, seen) in enumerate(MODELS.items()):
        save(seen, folders[name], seed, images)
    return Zoo(images, root, folders)


def save(seen: Seen, folder: Path, seed: int, images: ImageSet) -> None:
    torch.manual_seed(seed)
    size = {"img_size": seen.side} if "vit" in seen.arch else {}
    module = timm.create_model(seen.arch, num_classes=CLASSES, **size).eval()
    config = {
        **resolve_model_data_config(module),
        "input_size": (3, seen.side, seen.side),
        "crop_pct": seen.crop_pct,
        "interpolation": seen.interpolation,
        "crop_mode": seen.crop_mode,
    }
    if seen.mean is not None:
        config |= {"mean": (seen.mean,) * 3, "std": (0.5,) * 3}
    spread(module, config, images)
    zoo.save(module, folder, data_config=config, num_classes=CLASSES, label_names=None,
             card="# card\n", extra={})  # fmt: skip


@torch.inference_mode()
def spread(module: Any, config: dict[str, Any], images: ImageSet) -> None:
    """Make every class win somewhere: an untrained model gives nearly the same everywhere."""
    some = images.subset(np.arange(0, len(images), max(1, len(images) // 16)))
    head = module.get_classifier()
    logits = logits_of(Evaluator(module, config, CPU), some)
    head.weight.div_(logits.std(dim=0)[:, None])
    head.bias.sub_(logits.mean(dim=0)).div_(logits.std(dim=0))


class Timms(NamedTuple):
    top1: int
    top5: int
    logits: Tensor


@torch.inference_mode()
def by_timm(folder: Path, root: Path, batch_size: int) -> Timms:
    """What timm's validate.py does with its defaults, in float32 on the CPU."""
    module = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = resolve_model_data_config(module, use_test_size=True)
    loader = create_loader(
        create_dataset("", root=str(root), split="validation"),
        input_size=config["input_size"],
        batch_size=batch_size,
        use_prefetcher=True,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
        num_workers=0,
        persistent_workers=False,
        device=CPU,
    )
    parts, top1, top5 = [], 0.0, 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # timm leaves files open
        for images, labels in loader:
            parts.append(module(images))
            first, five = accuracy(parts[-1], labels, topk=(1, 5))
            top1 += first.item() * len(labels) / 100
            top5 += five.item() * len(labels) / 100
    return Timms(round(top1), round(top5), torch.cat(parts))


def how(batch_size: int = BATCH, *, logits: bool = False) -> How:
    return How(EvalSpec(), CPU, logits=logits, batch_size=batch_size, workers=0)


def logits_of(evaluator: Evaluator, images: ImageSet) -> Tensor:
    """In float32; the cache holds halves."""
    stream = batches(images, [evaluator.geometry.transform()], evaluator.batch_size, workers=0)
    return torch.cat([evaluator(seen) for (seen,) in stream])


def evaluator_of(model: Model, images: ImageSet, batch_size: int) -> Evaluator:
    loaded = zoo.load(model, images.classes)
    return Evaluator(loaded.module, loaded.data_config, CPU, batch_size=batch_size)


def test_evaluation_equals_timms(saved: Zoo) -> None:
    models = saved.models()
    for model, said in zip(
        models, predict_all(models, saved.images, how(logits=True)), strict=True
    ):
        assert isinstance(said, Predictions), said
        timms = by_timm(saved.folders[model.name], saved.root, BATCH)
        top1 = int(said.right.sum())
        top5 = int((said.top5 == saved.images.labels[:, None]).any(axis=1).sum())
        assert (top1, top5) == (timms.top1, timms.top5), model.name
        assert said.accuracy == pytest.approx(100 * top1 / COUNT)
        assert said.top5_accuracy == pytest.approx(100 * top5 / COUNT)
        assert len(np.unique(said.pred)) > CLASSES // 3, "a model of one answer tests nothing"
        evaluator = evaluator_of(model, saved.images, OTHER_BATCH)
        difference = (logits_of(evaluator, saved.images) - timms.logits).abs().max()
        assert difference <= CLOSE * (timms.logits.max() - timms.logits.min()), model.name
        together = arrays.read(entry(model, saved.images, EvalSpec(), "cpu"))[0]["logits"]
        np.testing.assert_array_equal(together, timms.logits.half().numpy(), model.name)


def test_test_sizes_are_used(saved: Zoo) -> None:
    sizes = {
        m.name: zoo.load(m).data_config["input_size"][-1]
        for m in saved.models()
        if m.name in ("mambaout", "nfnet", "vit")
    }
    assert sizes == {"mambaout": 192, "nfnet": 128, "vit": 160}


def content(models: list[Model], images: ImageSet) -> list[tuple[Any, dict[str, str]]]:
    found = []
    for model in models:
        columns, about = arrays.read(entry(model, images, EvalSpec(), "cpu"))
        found.append((columns, {k: v for k, v in about.items() if k != "created"}))
    return found


def test_many_models_at_once_give_what_each_gives_alone(
    saved: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = saved.images.subset(np.arange(0, COUNT, max(1, COUNT // 30)))
    models = saved.models()
    predict_all(models, images, how(logits=True))
    together = content(models, images)
    monkeypatch.setenv("KT_CACHE", str(tmp_path / "another"))
    for model in models:
        predict_all([model], images, how(logits=True))
    for one, other in zip(together, content(models, images), strict=True):
        assert one[1] == other[1] and one[0].keys() == other[0].keys()
        assert "logits" in one[0]
        for name in one[0]:
            np.testing.assert_array_equal(one[0][name], other[0][name], strict=True)


# --- what goes wrong -----------------------------------------------------------------------------

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    data_config = {"input_size": (3, 8, 8), "mean": (0.5, 0.5, 0.5), "crop_pct": 1.0}

    def __init__(self, classes=12, fails_at=None):
        super().__init__()
        self.num_classes, self.fails_at, self.calls = classes, fails_at, 0
        torch.manual_seed(0)
        self.fc = nn.Linear(3 * 8 * 8, classes)

    def forward(self, x):
        self.calls += 1
        if self.calls == self.fails_at:
            raise ValueError("no luck")
        return self.fc(x.flatten(1))

def unlucky():
    return Net(fails_at=2)

def not_finite():
    net = Net()
    net.fc.weight.data[0, 0] = float("nan")
    return net

def many():
    return Net(classes=5000)
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "made_up_nets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("made_up_nets", None)
    return tmp_path


def test_a_model_that_fails_fails_alone(saved: Zoo, nets: Path) -> None:
    names = ("Net", "unlucky", "not_finite")
    models = [saved.models()[0], *resolve([f"py:made_up_nets:{name}" for name in names])]
    found = predict_all(models, saved.images, how())
    assert [type(said) for said in found] == [Predictions, Predictions, ValueError, DataError]
    assert "not finite" in str(found[3])
    entries = [entry(model, saved.images, EvalSpec(), "cpu") for model in models]
    assert [path.exists() for path in entries] == [True, True, False, False]
    assert len(list(entries[0].parent.iterdir())) == 2, "unfinished files are left"
    for model, said in zip(models[:2], found[:2], strict=True):
        assert isinstance(said, Predictions)
        logits = logits_of(evaluator_of(model, saved.images, BATCH), saved.images)
        np.testing.assert_array_equal(said.pred, logits.argmax(dim=1).numpy())


def test_a_batch_is_read_when_the_next_is_on_its_way(saved: Zoo) -> None:
    """So that a GPU need not wait; a model that fails says so once, at the batch where it did."""
    calls: list[nn.Module] = []

    class Means(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            calls.append(self)
            fails = self is failing and calls.count(self) == 3
            return images.mean(dim=(2, 3)).repeat(1, 4) * (torch.nan if fails else 1)

    good, failing = Means(), Means()
    evaluators = [Evaluator(module, CONFIG, CPU) for module in (good, failing)]
    stream = evaluate_all(evaluators, saved.images, batch_size=8, workers=0)
    here, first = next(stream)
    assert here == slice(0, 8) and calls == [good, failing] * 2
    rest = [found for _, found in stream]
    said = [type(found[1]) for found in (first, *rest)]
    assert said == [dict, dict, OutputsNotFinite] + [dict] * (len(said) - 3)
    assert not any(found[1] for found in rest[2:]) and rest[0][1]
    assert sum(len(found[0]["pred"]) for found in (first, *rest)) == len(saved.images)


def test_one_model_alone_says_what_it_says_among_others(saved: Zoo) -> None:
    models, again = saved.models(), replace(how(), mode=REFRESH)
    together = predict_all(models, saved.images, again)
    for model, said in zip(models, together, strict=True):
        (alone,) = predict_all([model], saved.images, again)
        assert isinstance(alone, Predictions) and isinstance(said, Predictions)
        for name in ("pred", "confidence", "label_prob", "top5"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(said, name))


class Bounded(nn.Module):
    """Has memory for `most` images."""

    def __init__(self, most: int, error: Callable[[str], Exception]) -> None:
        super().__init__()
        self.most, self.error, self.sizes = most, error, list[int]()

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise self.error("too many")
        return images.mean(dim=(2, 3))


CONFIG = {
    "input_size": (3, 8, 8), "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center",
    "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0),
}  # fmt: skip


def cublas(said: str) -> Exception:
    return RuntimeError(f"CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `{said}`")


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, cublas])
def test_exhausted_memory_halves_the_batch_for_good(error: Callable[[str], Exception]) -> None:
    module = Bounded(10, error)
    evaluator = Evaluator(module, CONFIG, CPU, batch_size=32)
    images = torch.randint(0, 256, (32, 3, 8, 8), dtype=torch.uint8)
    expected = images.double().mean(dim=(2, 3)) / 255
    for _ in range(2):
        np.testing.assert_allclose(evaluator(images).numpy(), expected.numpy(), rtol=1e-5)
    assert evaluator.batch_size == 8
    assert module.sizes == [32, 16, *[8] * 8]


def test_one_image_that_exhausts_memory_is_an_error() -> None:
    evaluator = Evaluator(Bounded(0, torch.cuda.OutOfMemoryError), CONFIG, CPU, batch_size=4)
    with pytest.raises(KtError, match="one image alone"):
        evaluator(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))


def test_other_errors_do_not_change_the_batch() -> None:
    module = Bounded(10, RuntimeError)
    evaluator = Evaluator(module, CONFIG, CPU, batch_size=32)
    with pytest.raises(RuntimeError, match="too many"):
        evaluator(torch.zeros(32, 3, 8, 8, dtype=torch.uint8))
    assert evaluator.batch_size == 32 and module.sizes == [32]


# --- memory --------------------------------------------------------------------------------------

GROWTH = """
import resource, sys
import numpy as np, torch
from PIL import Image
from kt_cli.knowledge.predict import How, predict_all
from kt_cli.data.images import ImageSet, Names
from kt_cli.settings import EvalSpec
from kt_cli.zoo.names import resolve

classes = tuple(str(c) for c in range(5000))
read = lambda i: Image.new("RGB", (16, 16), (i % 256, i // 256, 0))
how = How(EvalSpec(), torch.device("cpu"), logits=True, workers=0)
models = resolve(["py:made_up_nets:many"])

def peak(n):
    ids = Names.of(str(i) for i in range(n))
    images = ImageSet("made up", classes, ids, np.arange(n) % 5000, read, f"made-up-{n}")
    (said,) = predict_all(models, images, how)
    assert len(said.pred) == n, said
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

few = peak(500)
print(few, peak(4000))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no getrusage")
def test_memory_does_not_grow_with_the_number_of_images(nets: Path, repository: Path) -> None:
    path = os.pathsep.join([str(repository), str(nets)])
    done = subprocess.run(
        [sys.executable, "-c", GROWTH],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    few, many = map(int, done.stdout.split())
    scale = 2**20 if sys.platform == "darwin" else 2**10
    assert (many - few) / scale < 10, "MB; the logits alone are 40"
