"""Worker processes that decode, and where there is no room for what they hand over."""

from __future__ import annotations

import pickle
import signal
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from kt_cli.data import loading
from kt_cli.data.sources import open_data
from kt_cli.errors import DataError, KtWarning
from kt_cli.settings import DataSpec
from kt_cli.zoo.preprocessing import Geometry

SIZE = 8 * 8 * 4


def seen(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image.convert("L").resize((8, 8)), np.float32))


@pytest.mark.parametrize(
    ("batches", "share", "used"), [(5, 1, 2), (4.9, 1, 1), (2.9, 1, 0), (5, 2, 0), (10, 2, 2)]
)
def test_batches_that_shared_memory_does_not_hold_are_decoded_here(
    monkeypatch: pytest.MonkeyPatch, batches: float, share: int, used: int
) -> None:
    """Two processes, with two batches each on the way and one at whoever asked for it; where this
    process has half of the cores, it has half of the memory."""
    asked: list[int] = []

    def loader(dataset: object, *_: object, num_workers: int, **__: object) -> list[object]:
        asked.append(num_workers)
        return []

    def usage(path: str) -> object:
        assert path == "/dev/shm"
        return SimpleNamespace(free=int(batches * 16 * SIZE))

    monkeypatch.setattr(loading, "DataLoader", loader)
    monkeypatch.setattr(loading, "cores", lambda: share * torch.get_num_threads())
    monkeypatch.setattr(loading.shutil, "disk_usage", usage)
    loading._warn_of_shared.cache_clear()
    images = open_data(DataSpec("digits", limit=200)).eval
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", KtWarning)
        for _ in range(2):
            list(loading.batches(images, [seen], 16, workers=2))
    assert asked == [used, used]
    assert ["--shm-size" in str(one.message) for one in said] == [True] * (used < 2)


def test_few_images_need_little_and_other_systems_have_no_such_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = open_data(DataSpec("digits", limit=20)).eval
    dataset = loading._Transformed(images, [seen, seen])
    assert loading._shared_bytes(dataset, 8, 64) == 20 * 2 * SIZE
    monkeypatch.setattr(loading, "SHARED", str(tmp_path / "none"))
    assert loading._shared_free() == float("inf")


def test_no_image_is_decoded_only_for_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = loading._Transformed(open_data(DataSpec("digits", limit=20)).eval, [seen])
    assert loading._worth(dataset) == 0
    monkeypatch.setattr(loading._Transformed, "__getitem__", pytest.fail)
    assert loading._shared_bytes(dataset, 1, 2) == 6 * SIZE


def deaf(image: Image.Image) -> Tensor:
    """Whether signals that are meant for the process that asked are ignored here."""
    meant = (signal.SIGINT, signal.SIGUSR2)
    return torch.tensor([signal.getsignal(s) == signal.SIG_IGN for s in meant])


def test_an_interrupt_is_for_whoever_asked_not_for_those_who_decode() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started this
    try:
        _asked_and_decoding()
    finally:
        signal.signal(signal.SIGINT, before)


def _asked_and_decoding() -> None:
    images = open_data(DataSpec("digits", limit=4)).eval
    ((here,),), ((there,),) = (list(loading.batches(images, [deaf], 4, n)) for n in (0, 1))
    assert not here.any() and there.all()


def test_an_image_that_a_transform_does_not_know_is_named() -> None:
    def refuses(image: Image.Image) -> Tensor:
        raise ValueError("height and width must be > 0")

    images = open_data(DataSpec("digits", limit=20)).eval
    with pytest.raises(DataError, match=r"cannot transform .* of \(8, 8\): height and width"):
        list(loading.batches(images, [refuses], 16, workers=0))


def test_a_grey_transform_goes_to_decoding_processes() -> None:
    grey = Geometry((1, 8, 8), "bilinear", 1.0, "center", None).transform()
    assert pickle.loads(pickle.dumps(grey))(Image.new("RGB", (9, 9))).shape == (1, 8, 8)
