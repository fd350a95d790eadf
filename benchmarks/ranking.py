"""`kt teachers` for one student among 300 models, all of it from the cache.

    python -m benchmarks.ranking [FOLDER]

Writes 50,000 tiny images of ImageNet's classes and made-up predictions of timm's 301 most accurate
models into FOLDER, by default a temporary one, unless they are there already. The bound is a
process that imports NumPy, pandas, SciPy and pyarrow, and reads the columns that a ranking needs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import record, show
from benchmarks.report import measured

MODELS, EACH, LIMIT_SECONDS, REPEATS = 300, 50, 2.0, 3
STUDENT = "resnet50.a1_in1k"
BARE = """
import sys
from pathlib import Path
import numpy, pandas, scipy.stats
import pyarrow.parquet as pq
for file in Path(sys.argv[1]).glob("*.parquet"):
    pq.read_table(file, columns=["pred", "confidence", "label_prob"])
"""


def write(folder: Path) -> None:
    """The images, and what the models are made to say of them."""
    from PIL import Image

    from kt_cli.data.sources import open_data
    from kt_cli.knowledge.predictions import entry
    from kt_cli.rows import arrays
    from kt_cli.settings import DataSpec, EvalSpec
    from kt_cli.zoo import names
    from kt_cli.zoo.imagenet_names import imagenet_synsets

    for c, synset in enumerate(imagenet_synsets()):
        (folder / "images" / synset).mkdir(parents=True)
        Image.new("RGB", (8, 8), (c % 256, c // 256, 0)).save(folder / "images" / synset / "0.png")
        for i in range(1, EACH):
            os.link(folder / "images" / synset / "0.png", folder / "images" / synset / f"{i}.png")
    images = open_data(DataSpec(str(folder / "images"))).eval
    n, random = len(images), np.random.default_rng(0)
    models = names.resolve([STUDENT, f"timm-top{MODELS}"])
    for model, share in zip(models, np.linspace(0.7, 0.9, len(models)), strict=True):
        pred = np.where(random.random(n) < share, images.labels, random.integers(0, 1000, n))
        columns: dict[str, Any] = {
            "id": images.ids, "label": images.labels.astype(np.int16),
            "pred": pred.astype(np.int16), "confidence": random.random(n, np.float32),
            "label_prob": random.random(n, np.float32),
            "top5": random.integers(0, 1000, (n, 5)).astype(np.int16),
        }  # fmt: skip
        path = entry(model, images, EvalSpec(), "cpu")
        arrays.write(path, columns, {"model": model.key, "device": "cpu"})


@contextmanager
def written(folder: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or Path(temporary)
        os.environ["KT_CACHE"] = str(folder / "cache")
        if not (folder / "images").is_dir():
            write(folder)
        yield folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, nargs="?")
    chosen = parser.parse_args()
    with written(chosen.folder and chosen.folder.absolute()) as folder:
        commands = {
            "bare": [sys.executable, "-c", BARE, str(folder / "cache" / "predictions")],
            "kt teachers": [
                sys.executable, "-m", "kt_cli", "teachers", STUDENT, "--among", f"timm-top{MODELS}",
                "--data", str(folder / "images"), "--cached-only", "--device", "cpu",
            ],
        }  # fmt: skip
        measured(commands["kt teachers"], folder)  # what it keeps the first time
        found = {name: [measured(command, folder) for _ in range(REPEATS)]
                 for name, command in commands.items()}  # fmt: skip
    medians = {name: [statistics.median(each) for each in zip(*all_, strict=True)]
               for name, all_ in found.items()}  # fmt: skip
    record("ranking: from the cache, seconds", medians["kt teachers"][0], LIMIT_SECONDS)
    show(
        ["", "seconds", "CPU seconds", "peak GB", "÷ bare"],
        [[name, *(f"{value:.2f}" for value in values), f"{values[0] / medians['bare'][0]:.1f}"]
         for name, values in medians.items()],
    )  # fmt: skip


if __name__ == "__main__":
    main()
