"""Evaluating models that share a preprocessing, against decoding once and the bare forward passes.

    python -m benchmarks.predict [--images 768] [--repeats 5]

One pass of decoding has the same workers as kt; a bare forward pass is a model on one batch of
pixels in memory, normalised, as many times as there are batches. The works take turns, so that
a busy spell of the machine meets all of them; shown are medians.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import interleaved, medians, record, show
from benchmarks.photos import photos
from kt_cli.data.images import ImageSet
from kt_cli.data.loading import batches
from kt_cli.data.sources import open_data
from kt_cli.device import pick_device
from kt_cli.knowledge.evaluate import BATCH, Evaluator
from kt_cli.knowledge.predict import REFRESH, How, predict_all
from kt_cli.knowledge.predictions import Predictions
from kt_cli.settings import DataSpec, EvalSpec
from kt_cli.spec import Model
from kt_cli.zoo import load as zoo
from kt_cli.zoo.load import data_config
from kt_cli.zoo.names import resolve

# Small, so that decoding is a visible part of the time.
ARCHS = (
    "test_resnet", "test_byobnet", "test_nfnet",
    "test_convnext", "test_efficientnet", "test_vit",
)  # fmt: skip
SIDE = 160
CLASSES = 100
LIMIT = 1.15


@dataclass(frozen=True)
class Decoded(Dataset[Tensor]):
    """A data set that decodes and resizes, and nothing else."""

    images: ImageSet
    transform: Callable[[Image], Tensor]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.transform(self.images.read(i))


def made_up(folder: Path, images: int) -> tuple[ImageSet, list[Model]]:
    """JPEGs, and models with random weights, saved as timm saves them."""
    photos(folder / "photos", images, CLASSES)
    for seed, arch in enumerate(ARCHS):
        torch.manual_seed(seed)
        module = timm.create_model(arch, num_classes=CLASSES)
        config: dict[str, Any] = {**data_config(module), "input_size": (3, SIDE, SIDE)}
        config |= {"crop_pct": 0.875, "interpolation": "bicubic", "crop_mode": "center"}
        zoo.save(module, folder / "zoo" / arch, data_config=config, num_classes=CLASSES,
                 label_names=None, card="# made up\n", extra={})  # fmt: skip
    return open_data(DataSpec(str(folder / "photos"))).eval, resolve([str(folder / "zoo")])


def works(images: ImageSet, models: Sequence[Model], how: How) -> dict[str, Callable[[], Any]]:
    loaded = [zoo.load(model, images.classes) for model in models]
    evaluators = [Evaluator(one.module, one.data_config, how.device) for one in loaded]
    geometries = {evaluator.geometry for evaluator in evaluators}
    assert len(geometries) == 1, "the models do not share a preprocessing"
    transform = geometries.pop().transform()
    (pixels,) = next(iter(batches(images, [transform], BATCH, workers=0)))

    def decode() -> None:
        loader = DataLoader(Decoded(images, transform), BATCH, num_workers=how.workers or 0,
                            pin_memory=torch.cuda.is_available())  # fmt: skip
        for _ in loader:
            pass

    def forward() -> None:
        for evaluator in evaluators:
            for start in range(0, len(images), BATCH):
                evaluator(pixels[: len(images) - start])
        if how.device.type == "cuda":
            torch.cuda.synchronize()

    return {
        "decode": decode,
        "forward": forward,
        "together": lambda: predict(models, images, how, at_once=len(models)),
        "one by one": lambda: predict(models, images, how, at_once=1),
    }


def predict(models: Sequence[Model], images: ImageSet, how: How, at_once: int) -> None:
    for start in range(0, len(models), at_once):
        for said in predict_all(models[start : start + at_once], images, how):
            assert isinstance(said, Predictions), said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=6 * BATCH)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=min(8, torch.get_num_threads()))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["KT_CACHE"] = str(folder / "cache")
        images, models = made_up(folder, chosen.images)
        how = How(EvalSpec(), pick_device(), mode=REFRESH, workers=chosen.workers)
        todo = works(images, models, how)
        interleaved(todo, 1)  # what only the first time costs
        found = interleaved(todo, chosen.repeats)
    middle = medians(found)
    least = middle["decode"] + middle["forward"]
    print(f"{len(models)} models, {len(images)} JPEGs, {chosen.workers} workers, "
          f"{torch.get_num_threads()} threads, {chosen.repeats} repeats")  # fmt: skip
    show(
        ["", "median s", "least", "most", "÷ (decode + forward)"],
        [
            [name, f"{middle[name]:.2f}", f"{min(times):.2f}", f"{max(times):.2f}",
             f"{middle[name] / least:.2f}"]
            for name, times in found.items()
        ],
    )  # fmt: skip
    record("predict: together ÷ (decode + forward)", middle["together"] / least, LIMIT)
    print(f"together: limit {LIMIT}; {middle['one by one'] / middle['together']:.1f} times as "
          "fast as one by one")  # fmt: skip


if __name__ == "__main__":
    main()
