"""Evaluations of transfers decode images once for all who see them alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kt_cli.data import canonical
from kt_cli.data.images import ImageSet
from kt_cli.data.sources import open_data
from kt_cli.files import cache_folder
from kt_cli.knowledge.evaluate import evaluate
from kt_cli.settings import DataSpec
from kt_cli.zoo import load as zoo

CPU = torch.device("cpu")
Built = tuple[torch.nn.Module, dict[str, Any]]


@pytest.fixture(scope="module")
def built() -> Built:
    module, config = zoo.build("test_vit", 10, 32)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return module, {**config, "crop_pct": 0.9}


@pytest.fixture
def decoded() -> list[int]:
    return []


@pytest.fixture
def images(decoded: list[int]) -> ImageSet:
    some = open_data(DataSpec("digits", limit=40)).eval

    def read(i: int) -> Image.Image:
        decoded.append(i)
        return real(i)

    real = some.read
    return replace(some, read=read)


Ask = Callable[..., Any]


@pytest.fixture
def ask(built: Built, images: ImageSet) -> Ask:
    def ask(keep: bool = True, **config: Any) -> Any:
        said = evaluate(built[0], {**built[1], **config}, images, CPU, workers=0, keep=keep)
        return np.stack([said.pred, said.confidence, said.label_prob])

    return ask


def files() -> list[Path]:
    return list(cache_folder("canonical").glob("*.npy"))


def test_they_are_decoded_once_and_seen_the_same(ask: Ask, decoded: list[int]) -> None:
    plain = ask(keep=False)
    decoded.clear()
    for _ in range(3):
        np.testing.assert_array_equal(ask(), plain)
    assert len(decoded) <= 40 + 3 and len(files()) == 1  # three are tried for their time
    assert not np.array_equal(ask(crop_pct=0.5), plain) and len(files()) == 2


def test_what_is_damaged_is_decoded_again(ask: Ask, decoded: list[int]) -> None:
    plain = ask()
    (path,) = files()
    path.write_bytes(path.read_bytes()[:1000])
    decoded.clear()
    np.testing.assert_array_equal(ask(), plain)
    assert len(decoded) >= 40 and path.stat().st_size > 40 * 3 * 32 * 32


@pytest.mark.parametrize("why", ["budget", "disk"])
def test_without_room_they_are_decoded_each_time(
    why: str, ask: Ask, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ask(keep=False)
    if why == "budget":
        monkeypatch.setattr(canonical, "BUDGET", 40 * 3 * 32 * 32 - 1)
    else:
        usage = shutil.disk_usage("/")
        little = usage._replace(free=2 * 40 * 3 * 32 * 32 - 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: little)
    decoded.clear()
    for _ in range(2):
        np.testing.assert_array_equal(ask(), plain)
    assert len(decoded) >= 80 and not files()
