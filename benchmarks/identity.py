"""What it costs to know a set of images: the first time beside decoding, then beside a listing.

    python -m benchmarks.identity [--images 5000] [--repeats 5]

Files are copies of JPEGs like photographs, in the page cache; decoding is to RGB, in as many
threads as torch has. The works take turns, so that a busy spell of the machine meets all of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import interleaved, medians, show
from benchmarks.photos import photos
from kt_cli.data.folders import class_folders
from kt_cli.data.sources import open_data
from kt_cli.files import GRAIN
from kt_cli.settings import DataSpec

CLASSES = 50
DIFFERENT = 500
SIDES = (350, 650)  # about ImageNet's


def made_up(root: Path, count: int) -> None:
    different = photos(root / "photos", min(count, DIFFERENT), CLASSES, sides=SIDES)
    for i in range(count):
        target = root / "images" / f"class{i % CLASSES}" / f"{i}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(different[i % len(different)], target)


def works(root: Path, cache: Path) -> dict[str, Callable[[], Any]]:
    spec = DataSpec(str(root))
    images = open_data(spec).eval

    def decode() -> None:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for _ in pool.map(lambda i: images.read(i).size, range(len(images))):
                pass

    def look() -> None:
        for folder, _, files in os.walk(root):
            for file in files:
                os.stat(f"{folder}/{file}")  # noqa: PTH116

    def identify() -> None:
        for cached in (open_data, class_folders):
            cached.cache_clear()
        assert open_data(spec).eval.fingerprint == images.fingerprint

    def first() -> None:
        shutil.rmtree(cache)
        identify()

    images.identify(lambda done, total, what: None)
    return {"decode": decode, "list and stat": look, "first time": first, "again": identify}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root, cache = Path(temporary), Path(temporary) / "cache"
        os.environ["KT_CACHE"] = str(cache)
        made_up(root, chosen.images)
        size = sum(path.stat().st_size for path in (root / "images").rglob("*.jpg"))
        time.sleep(GRAIN / 1e9)  # what was written just now would be read again
        found = interleaved(works(root / "images", cache), chosen.repeats)
    middle = medians(found)
    bound = {"first time": "decode", "again": "list and stat"}
    print(f"{chosen.images} JPEGs of {size / chosen.images / 1e3:.0f} kB, "
          f"{torch.get_num_threads()} threads, {chosen.repeats} repeats")  # fmt: skip
    show(
        ["", "median s", "least", "most", "ratio"],
        [
            [name, f"{middle[name]:.3f}", f"{min(times):.3f}", f"{max(times):.3f}",
             f"{middle[name] / middle[bound[name]]:.2f} of {bound[name]}" if name in bound else ""]
            for name, times in found.items()
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
