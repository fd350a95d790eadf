"""What very large sweeps cost: files, bytes, memory, planning; measured small and written large.

    python -m benchmarks.scale [--transfers 100000]

Sizes are those of files that kt's own code writes of made-up values; the plan is that of
`kt sweep --models timm-all --dry-run` in a process of its own, on 1,000 classes of tiny images.
docs/scale.md says what follows from them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import rows
from benchmarks.measure import in_own_process, peak_gb, record, seconds, show
from kt_cli.rows import arrays
from kt_cli.settings import DataSpec, TransferSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps.schedule import write_manifest

IMAGES, CLASSES = 50_000, 1000
MODELS, ROWS, RUNS = 200, 100_000, 5_000
ALL_OF_TIMM, TRANSFERS = 1_556, 100_000
LIMIT_SECONDS, LIMIT_GB = 30.0, 2.0  # of planning


def prediction_bytes(folder: Path) -> int:
    """Of one model's predictions on ImageNet's 50,000."""
    random = np.random.default_rng(0)
    label = np.arange(IMAGES) // (IMAGES // CLASSES)
    pred = np.where(random.random(IMAGES) < 0.8, label, random.integers(0, CLASSES, IMAGES))
    columns: dict[str, Any] = {
        "id": [f"n{c:08d}/ILSVRC2012_val_{i:08d}.JPEG" for i, c in enumerate(label)],
        "label": label.astype(np.int16), "pred": pred.astype(np.int16),
        "confidence": random.random(IMAGES, np.float32),
        "label_prob": random.random(IMAGES, np.float32),
        "top5": random.integers(0, CLASSES, (IMAGES, 5)).astype(np.int16),
    }  # fmt: skip
    path = folder / "predictions.parquet"
    arrays.write(path, columns, {"model": "made up"})
    return path.stat().st_size


def row_bytes(folder: Path) -> dict[str, tuple[float, int]]:
    """Bytes of a row of each table, and parts."""
    rows.write(folder, MODELS, ROWS)
    counts = {"complementarity": MODELS * (MODELS - 1), "transfer": ROWS}
    found = {}
    for table, count in counts.items():
        parts = list((folder / table).glob("*.parquet"))
        found[table] = sum(part.stat().st_size for part in parts) / count, len(parts)
    return found


def manifest_bytes(folder: Path) -> float:
    """Of a run in the file that jobs read."""
    models = [Model(f"vit_base_patch16_{i}.in1k", f"m{i}", f"m{i}") for i in range(RUNS + 1)]
    runs = [Run("transfer", (models[0], student), "data", TransferSpec(), DataSpec("imagenet"))
            for student in models[1:]]  # fmt: skip
    return write_manifest(folder, runs).stat().st_size / RUNS


def plan(transfers: int) -> dict[str, float]:
    """Seconds and peak GB of planning so many transfers among all of timm."""
    from PIL import Image

    import kt_cli as kt

    with tempfile.TemporaryDirectory() as name:
        os.environ["KT_CACHE"] = f"{name}/cache"
        for split in ("train", "val"):
            for c in range(CLASSES):
                folder = Path(name) / "images" / split / f"class{c:04d}"
                folder.mkdir(parents=True)
                Image.new("RGB", (8, 8), (c % 256, c // 256, 0)).save(folder / "0.png")
        spent = seconds(lambda: kt.sweep(
            name="all", models=["timm-all"], data=f"{name}/images", pairs=transfers, dry_run=True,
            executor="local", output=f"{name}/results",
        ))  # fmt: skip
    return {"seconds": spent, "gb": peak_gb()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--transfers", type=int, default=TRANSFERS)
    parser.add_argument("--plan", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.plan:
        print(json.dumps(plan(chosen.plan)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prediction, run = prediction_bytes(folder), manifest_bytes(folder)
        tables = row_bytes(folder / "rows")
    pairs = ALL_OF_TIMM * (ALL_OF_TIMM - 1)
    planned = in_own_process("benchmarks.scale", "--plan", str(chosen.transfers))
    record(f"scale: plan of {chosen.transfers:,} transfers, seconds", planned["seconds"],
           LIMIT_SECONDS)  # fmt: skip
    record(f"scale: plan of {chosen.transfers:,} transfers, GB", planned["gb"], LIMIT_GB)
    show(["", "each", "all"], [
        [f"predictions of {ALL_OF_TIMM:,} models, {IMAGES:,} images", f"{prediction / 1e6:.2f} MB",
         f"{ALL_OF_TIMM * prediction / 1e9:.1f} GB"],
        [f"rows of {pairs:,} pairs", f"{tables['complementarity'][0]:,.0f} B",
         f"{pairs * tables['complementarity'][0] / 1e9:.2f} GB"],
        [f"rows of {chosen.transfers:,} transfers", f"{tables['transfer'][0]:,.0f} B",
         f"{chosen.transfers * tables['transfer'][0] / 1e9:.2f} GB"],
        ["their manifest", f"{run:,.0f} B", f"{chosen.transfers * run / 1e9:.2f} GB"],
        ["their plan", f"{planned['seconds']:.1f} s", f"{planned['gb']:.2f} GB of memory"],
    ])  # fmt: skip
    sys.stdout.write(f"parts of {ROWS:,} transfers: {tables['transfer'][1]}\n")


if __name__ == "__main__":
    main()
