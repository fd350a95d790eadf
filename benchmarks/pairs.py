"""Statistics of all ordered pairs: time and memory, against the bare matrix products.

    python -m benchmarks.pairs          # 300 models
    python -m benchmarks.pairs --all    # and 1,556 models, rows on disk: minutes

Outputs of models are made up: 50,000 images, 1,000 classes, models of 60 to 88% top-1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray

from benchmarks.measure import in_own_process, peak_gb, record, seconds, show
from kt_cli.device import Meter
from kt_cli.knowledge.class_similarity import ClassEmbedding
from kt_cli.knowledge.pairs import BLOCK, Outputs, flip_blocks, pair_blocks
from kt_cli.rows.schema import TOP_PERCENTS
from kt_cli.runs.pairs import write_pairs
from kt_cli.settings import PairsSpec
from kt_cli.spec import Model, Run

IMAGES, CLASSES, WIDTH = 50_000, 1_000, 2_048
NAIVE_PAIRS = 20
SIMILARITY_BLOCKS = 3


@dataclass(frozen=True)
class Case:
    """models: how many. limits: seconds and GB that it may take. similar: of classes too."""

    models: int
    limit_s: float
    limit_gb: float
    similar: bool
    run: Callable[[Outputs, ClassEmbedding], None]


@dataclass(frozen=True)
class Measured:
    """products: seconds of the bare matrix products. naive: of a loop over pairs, extrapolated."""

    seconds: float
    peak_gb: float
    products: float
    naive: float


# --- what is measured ----------------------------------------------------------------------------


def counts_only(outputs: Outputs, embedding: ClassEmbedding) -> None:
    """Flips, also by class, entropy, top-p% classes, κ and McNemar's p of all pairs."""
    for _ in flip_blocks(outputs, by_class=True):
        pass


def everything(outputs: Outputs, embedding: ClassEmbedding) -> None:
    """The same with agreement, similarity of classes and the most confident of two."""
    for _ in pair_blocks(outputs, embedding):
        pass


def everything_on_disk(outputs: Outputs, embedding: ClassEmbedding) -> None:
    """All columns, as rows of a sweep."""
    models = tuple(
        Model(f"model{i}", f"timm:model{i}", f"model{i}") for i in range(len(outputs.right))
    )
    run = Run("pairs", models, "benchmark", PairsSpec())
    same = {"data": "benchmark", "n": len(outputs.labels), "num_classes": outputs.num_classes}
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(run, Path(folder), outputs, embedding, same, Meter(torch.device("cpu")))


CASES = {
    "300 models, counts": Case(300, 10, 6, False, counts_only),
    "300 models, all": Case(300, 45, 6, True, everything),
    "1,556 models, all, on disk": Case(1_556, 1_200, 12, True, everything_on_disk),
}
SMALL = tuple(name for name, case in CASES.items() if case.models == 300)


# --- what it is compared with --------------------------------------------------------------------


def flip_products(outputs: Outputs, device: torch.device) -> Callable[[], Any]:
    """The matrix products of the flips alone, on values that lie ready in float32."""
    models = len(outputs.right)
    edges = np.searchsorted(outputs.labels, np.arange(CLASSES + 1)).tolist()
    inside = [torch.from_numpy(outputs.right[:, a:b]).float().to(device)
              for a, b in itertools.pairwise(edges)]  # fmt: skip
    result = torch.empty(models, models, device=device)
    return lambda: [torch.mm(values, values.T, out=result) for values in inside]


def bare_products(outputs: Outputs, embedding: ClassEmbedding, similar: bool) -> float:
    """Seconds of the matrix products alone, on values that lie ready in float32.

    Flips: all of them. Similarities of classes: a few blocks of teachers, times their number.
    """
    models = len(outputs.right)
    found = seconds(flip_products(outputs, torch.device("cpu")))
    if similar:
        rows = min(models, max(1, BLOCK // (models * CLASSES))) * models
        mask = (torch.rand(rows, CLASSES, generator=torch.Generator().manual_seed(0)) < 0.1).float()
        sums = torch.empty(rows, embedding.vectors.shape[1])

        def block() -> None:
            for _ in range(2 * len(TOP_PERCENTS)):
                torch.mm(mask, embedding.vectors, out=sums)

        times = [seconds(block) for _ in range(SIMILARITY_BLOCKS)]
        found += float(np.median(times)) * models * models / rows
    return found


def naive(outputs: Outputs, embedding: ClassEmbedding, similar: bool) -> float:
    """Seconds of a NumPy loop over ordered pairs: some of them, times the number of all."""
    models = len(outputs.right)
    rng = np.random.default_rng(0)
    some = [rng.choice(models, 2, replace=False) for _ in range(NAIVE_PAIRS)]
    vectors = embedding.vectors.numpy()
    spent = seconds(lambda: [_naive_pair(outputs, t, s, vectors, similar) for t, s in some])
    return spent / NAIVE_PAIRS * models * (models - 1)


def _naive_pair(
    outputs: Outputs, t: int, s: int, vectors: NDArray[np.float32], similar: bool
) -> dict[str, float]:
    right_t, right_s, n = outputs.right[t], outputs.right[s], len(outputs.labels)
    flips = np.bincount(outputs.labels[right_t & ~right_s], minlength=CLASSES)
    positive, negative = int(flips.sum()), int((right_s & ~right_t).sum())
    found = {
        "entropy": float(scipy.stats.entropy(flips)),
        "p": float(scipy.stats.binomtest(positive, positive + negative).pvalue),
    }
    a, b = right_t.mean(), right_s.mean()
    expected = a * b + (1 - a) * (1 - b)
    found["kappa"] = float((1 - (positive + negative) / n - expected) / (1 - expected))
    order = np.argsort(-flips, kind="stable")
    held = np.cumsum(flips[order])
    for percent in TOP_PERCENTS:
        size = int(np.searchsorted(held, positive * percent / 100)) + 1
        found[f"top{percent}"] = size
        if similar and size > 1:
            total = vectors[order[:size]].sum(axis=0)
            found[f"similarity{percent}"] = float((total @ total - size) / (size * (size - 1)))
    if similar:
        found["agreement"] = float((outputs.preds[t] == outputs.preds[s]).mean())
        surer = outputs.confidence[t] > outputs.confidence[s]
        found["confident"] = float(np.where(surer, right_t, right_s).mean())
    return found


# --- made-up outputs -----------------------------------------------------------------------------


def made_up(models: int, seed: int = 0) -> Outputs:
    """Images and classes are of different difficulty, models of different skill and kind."""
    rng = np.random.default_rng(seed)
    labels = np.sort(np.arange(IMAGES) % CLASSES)
    difficulty = rng.normal(0, 1, IMAGES) + rng.normal(0, 0.7, CLASSES)[labels]
    tempting = (labels + rng.integers(1, 8, IMAGES)) % CLASSES
    right = np.empty((models, IMAGES), bool)
    preds = np.empty((models, IMAGES), np.int16)
    confidence = np.empty((models, IMAGES), np.float32)
    for m in range(models):
        own = rng.normal(0, 0.6, IMAGES) + rng.normal(0, 0.2, CLASSES)[labels]
        margin = rng.uniform(0.4, 1.6) - difficulty - own
        tempted = rng.random(IMAGES) < 0.6
        wrong = np.where(tempted, tempting, (labels + rng.integers(1, CLASSES, IMAGES)) % CLASSES)
        right[m] = margin > 0
        preds[m] = np.where(right[m], labels, wrong)
        confidence[m] = 1 / (1 + np.exp(-np.abs(margin) - rng.normal(0, 0.5, IMAGES)))
    return Outputs(labels, right, preds, confidence, CLASSES)


def measure(name: str) -> Measured:
    case = CASES[name]
    outputs = made_up(case.models)
    rows = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
    spent = seconds(lambda: case.run(outputs, ClassEmbedding.of("head:made-up", rows)))
    peak = peak_gb()
    embedding = ClassEmbedding.of("head:made-up", rows)
    products = bare_products(outputs, embedding, case.similar)
    return Measured(spent, peak, products, naive(outputs, embedding, case.similar))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--all", action="store_true", help="1,556 models too")
    parser.add_argument("--case", choices=CASES, help="one case, in this process, as JSON")
    chosen = parser.parse_args()
    if chosen.case:
        print(json.dumps(asdict(measure(chosen.case))))
        return
    rows = []
    for name in CASES if chosen.all else SMALL:
        case, found = CASES[name], Measured(**in_own_process("benchmarks.pairs", "--case", name))
        record(f"pairs: {name}, seconds", found.seconds, case.limit_s)
        record(f"pairs: {name}, peak GB", found.peak_gb, case.limit_gb)
        rows.append([
            name, f"{found.seconds:.1f}", f"{case.limit_s:g}", f"{found.peak_gb:.1f}",
            f"{case.limit_gb:g}", f"{found.products:.1f}", f"{found.seconds / found.products:.2f}",
            f"{found.naive:,.0f}",
        ])  # fmt: skip
    show(["all ordered pairs", "s", "limit", "GB", "limit", "products s", "ratio",
          "loop over pairs s (extrapolated)"], rows)  # fmt: skip


if __name__ == "__main__":
    main()
