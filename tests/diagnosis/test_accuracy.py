from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file

from kt_cli.data.digits import digits
from kt_cli.diagnosis import accuracy
from kt_cli.diagnosis.finding import Asked
from kt_cli.knowledge.predictions import Predictions
from kt_cli.settings import DataSpec
from kt_cli.spec import Model
from kt_cli.zoo import load
from kt_cli.zoo.imagenet_facts import Fact, fact
from kt_cli.zoo.imagenet_names import imagenet_synsets

Look = Callable[..., list[tuple[str, str]]]
TINY = "test_vit.r160_in1k"


def said(right: int, n: int) -> Predictions:
    images = digits(DataSpec("digits"), "val")
    assert images is not None
    images = images.subset(np.arange(n))
    pred = np.where(np.arange(n) < right, images.labels, images.labels + 1)
    ones = np.ones(n, np.float32)
    return Predictions(images, pred, ones, ones, None, {})


def two_sided(right: int, n: int, p: float) -> float:
    """Probability of all counts that are no more probable than this one."""
    mass = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    return sum(m for m in mass if m <= mass[right] * (1 + 1e-7))


@pytest.mark.parametrize("right", [200, 210, 223, 230, 240, 255, 260, 100, 0, 300])
def test_within_binomial_error(right: int) -> None:
    n, top1 = 300, 75.0
    found = accuracy.judged(Fact("m", 224, top1, 1.0, 1.0), Model("m", "m", "m"), said(right, n))
    probability = two_sided(right, n, top1 / 100)
    assert f"p = {probability:.2g}" in found.message
    assert f"{100 * right / n:.2f}% top-1 on 300 images, 75.00% published" in found.message
    assert f"standard error {100 * math.sqrt(0.75 * 0.25 / n):.2f}" in found.message
    assert (found.level == "green") == (probability >= 0.001)
    assert ("in ImageNet's order" in found.advice) == (right in (0, 100))


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    for name in imagenet_synsets():
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "val" / name / "0.png")
    return tmp_path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def fetched(hub: Path, name: str) -> None:
    """As if the weights, which answer class 7 to everything, had been fetched."""
    module, _ = load.build(name.partition(".")[0], 1000, 160)
    classifier = module.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        classifier.bias[7] = 1000
    repo = hub / f"models--timm--{name}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("a" * 40)
    (repo / "snapshots" / ("a" * 40)).mkdir(parents=True)
    save_file(module.state_dict(), repo / "snapshots" / ("a" * 40) / "model.safetensors")


def test_images_that_are_not_imagenet_are_not_compared(look: Look) -> None:
    ((level, message),) = look(accuracy.published_top1, Asked(data=DataSpec("digits")))
    assert level == "green" and "not compared" in message
    assert look(accuracy.published_top1) == []


def test_without_a_model_it_says_how_to_get_one(look: Look, imagenet: Path, hub: Path) -> None:
    ((level, message),) = look(accuracy.published_top1, Asked(data=DataSpec(str(imagenet))))
    assert level == "yellow" and "kt models prefetch resnet18.a1_in1k" in message


def test_the_cheapest_model_of_the_cache_is_evaluated(
    look: Look, imagenet: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched(hub, TINY)
    fetched(hub, "test_resnet.r160_in1k")
    known = fact(TINY)
    assert known is not None and accuracy.cheapest() == known  # 0.04 GMACs against 0.1
    asked = Asked(data=DataSpec(str(imagenet)), limit=200)
    ((level, message),) = look(accuracy.published_top1, asked)
    assert level == "red" and f"on 200 images, {known.top1:.2f}% published" in message
    monkeypatch.setattr(accuracy, "cheapest", lambda: replace(known, top1=0.1))
    ((level, message),) = look(accuracy.published_top1, replace(asked, limit=1000))
    assert level == "green" and "0.10% top-1 on 1,000 images" in message
