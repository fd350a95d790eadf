"""A made-up sweep of any size on disk: the models of timm, all their pairs, transfers of some.

    python -m benchmarks.rows results/large --transfers 1000000 --models 1550

Seeded. Values are as plausible as they need be: those of a row agree with each other.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kt_cli.rows import schema, store
from kt_cli.zoo.imagenet_facts import facts

IMAGES, CLASSES = 50_000, 1000
METHODS = (
    "kl", "xekl", "kl-mcl", "xekl-mcl", "kl-dp", "kl-dp-u", "self", "flip-st", "flip-t",
    "flip-avg", "crd", "kl-dp+guard",
)  # fmt: skip
# Mean Δ of a method where teacher and student are equal, and what a point of difference adds.
EFFECT = dict.fromkeys(METHODS, (-0.8, 0.12)) | {
    "kl-dp": (0.4, 0.04), "kl-dp-u": (0.35, 0.04), "kl-dp+guard": (0.3, 0.03),
    "kl-mcl": (0.1, 0.06), "self": (0.0, 0.0),
}  # fmt: skip
DATA = {
    "data": "imagenet", "eval_data": "5a1e0f9c33d2b846", "eval_size": "test", "eval_amp": "",
    "n": IMAGES, "num_classes": CLASSES,
}  # fmt: skip
RUN = {
    "status": store.OK, "attempt": 1, "kt_version": "0.6.0", "torch_version": "2.9.0",
    "timm_version": "1.0.31", "device": "H100", "threads": 8, "host": "node1", "seconds": 120.0,
}  # fmt: skip
SETTINGS = {
    "seed": 0, "together": "single", "train_data": "c7d94410be52a6f1", "n_train": 128_116,
    "fraction": 0.1, "subset_seed": 0, "guard_share": 0.0, "settings": "5e771465", "epochs": 20,
    "lr": 1e-4, "batch_size": 256, "micro_batch": 256, "momentum": 0.9, "weight_decay": 2e-3,
    "temperature": 1.0, "kd_lambda": 0.8, "kd_topk": 0, "distil_on": "all", "bn": "train",
    "label_smoothing": 0.0, "mcl_tau": 0.99, "mcl_every": 50, "augment": "paper", "crop": 0.875,
    "side": 288, "amp": "", "target_topk": 0, "reference_compat": False,
}  # fmt: skip
EPOCHS = 20


def write(
    folder: Path, models: int, transfers: int, part: int = store.PART_ROWS, seed: int = 0
) -> None:
    """A sweep in `folder`, which is emptied first.

    Args:
        transfers: rows, of as many pairs as that takes with every method.
        part: rows of a part, by default as `kt sweep` leaves them.
    """
    shutil.rmtree(folder, ignore_errors=True)
    random = np.random.default_rng(seed)
    zoo = _Zoo(models)
    zoo.write(folder)
    teachers = max(1, part // models)
    for start in range(0, models, teachers):
        rows = range(start, min(start + teachers, models))
        store.write_columns(folder, "complementarity", _pairs(zoo, rows, random))
    for columns in _transfers(zoo, transfers, part, random):
        store.write_columns(folder, "transfer", columns)


class _Zoo:
    """The models of timm's published results, and variants of them if more are wanted."""

    def __init__(self, count: int) -> None:
        known = [(fact, i) for i in range(1 + count // len(facts())) for fact in facts()][:count]
        self.names = np.array([f.model + f"_variant{i}" * (i > 0) for f, i in known])
        self.accuracies = np.array([fact.top1 - i for fact, i in known])
        self.params = np.array([fact.params_m for fact, _ in known])
        self.sides = np.array([fact.img_size for fact, _ in known])

    def write(self, folder: Path) -> None:
        half = 196 * np.sqrt(self.accuracies * (100 - self.accuracies) / IMAGES) / 100
        store.write_columns(folder, "models", {
            "run_id": _ids("m", 0, len(self.names)), "model": self.names,
            "model_key": self.names, **DATA, "accuracy": self.accuracies,
            "accuracy_low": self.accuracies - half, "accuracy_high": self.accuracies + half,
            "top5": np.minimum(99.9, self.accuracies + 12), "params_m": self.params,
            "input_size": self.sides, **RUN, "created": _times(0, len(self.names)),
        })  # fmt: skip


def _ids(kind: str, start: int, count: int) -> list[str]:
    """As hard to compress as hashes."""
    numbers = np.arange(start, start + count, dtype=np.uint64) + (ord(kind) << 40)
    return [f"{value:016x}" for value in (numbers * 0x9E3779B97F4A7C15).tolist()]


def _times(start: int, count: int) -> list[str]:
    stamps = np.datetime64("2026-01-01T00:00:00") + np.arange(start, start + count)
    return [f"{stamp}+00:00" for stamp in stamps.astype(str).tolist()]


def _flips(difference: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """ρ⁺ and ρ⁻ in percent that differ by the accuracies' difference."""
    smaller = 4 + random.gamma(2.0, 0.8, difference.shape)
    return smaller + np.maximum(difference, 0), smaller + np.maximum(-difference, 0)


def _pairs(zoo: _Zoo, teachers: range, random: np.random.Generator) -> dict[str, Any]:
    t, s = (grid.ravel() for grid in np.meshgrid(teachers, range(len(zoo.names)), indexing="ij"))
    t, s = t[t != s], s[t != s]
    difference = zoo.accuracies[t] - zoo.accuracies[s]
    positive, negative = _flips(difference, random)
    count = len(t)
    return {
        "run_id": _ids("p", teachers.start * len(zoo.names), count),
        "teacher": zoo.names[t], "student": zoo.names[s],
        "teacher_key": zoo.names[t], "student_key": zoo.names[s], **DATA,
        "teacher_acc": zoo.accuracies[t], "student_acc": zoo.accuracies[s],
        "acc_diff": difference, "pos_flips": positive, "neg_flips": negative,
        "agreement": 100 - positive - negative - random.uniform(0, 5, count),
        "kappa": random.uniform(0.3, 0.8, count), "oracle_acc": zoo.accuracies[s] + positive,
        "confident_acc": zoo.accuracies[s] + positive / 3,
        "mcnemar_p": random.random(count) ** (1 + np.abs(difference) * 10),
        "flip_entropy": random.uniform(5.2, 6.6, count),
        **{f"top{p}_classes": random.integers(p // 2 + 1, 10 * p, count)
           for p in schema.TOP_PERCENTS},
        "class_embedding": "head:" + zoo.names[0], "class_similarity": 0.12,
        **{f"top{p}_similarity": random.uniform(0.1, 0.4, count) for p in schema.TOP_PERCENTS},
        **{f"top{p}_similarity_pct": random.uniform(50, 100, count) for p in schema.TOP_PERCENTS},
        "by_class": False, **RUN, "created": _times(teachers.start * len(zoo.names), count),
    }  # fmt: skip


def _transfers(
    zoo: _Zoo, count: int, part: int, random: np.random.Generator
) -> Iterator[dict[str, Any]]:
    models = len(zoo.names)
    drawn = random.choice(models * (models - 1), -(-count // len(METHODS)), replace=False)
    for start in range(0, count, part):
        row = np.arange(start, min(start + part, count))
        teacher, other = np.divmod(drawn[row // len(METHODS)], models - 1)
        student = other + (other >= teacher)
        yield _transfer_part(zoo, teacher, student, row, random)


def _transfer_part(
    zoo: _Zoo, t: np.ndarray, s: np.ndarray, row: np.ndarray, random: np.random.Generator
) -> dict[str, Any]:
    method = np.array(METHODS)[row % len(METHODS)]
    offset, slope = np.array([EFFECT[name] for name in METHODS])[row % len(METHODS)].T
    difference = zoo.accuracies[t] - zoo.accuracies[s]
    positive, negative = _flips(difference, random)
    gain = positive * random.uniform(0.05, 0.5, len(row))
    delta = np.minimum(offset + slope * difference + random.normal(0, 0.8, len(row)), gain)
    loss = gain - delta
    rate = 100 * gain / positive
    return {
        "run_id": _ids("t", int(row[0]), len(row)),
        "teacher": zoo.names[t], "student": zoo.names[s],
        "teacher_key": zoo.names[t], "student_key": zoo.names[s], "method": method,
        **DATA, **SETTINGS,
        "teacher_acc": zoo.accuracies[t], "student_acc": zoo.accuracies[s],
        "after_acc": zoo.accuracies[s] + delta, "acc_diff": difference, "delta": delta,
        "gain": gain, "loss": loss, "transfer_p": random.random(len(row)) ** (1 + 4 * abs(delta)),
        "pos_flips": positive, "neg_flips": negative, "pos_flips_after": positive - gain,
        "neg_flips_after": negative - loss, "transfer_rate": rate,
        **{f"top{p}_rate": np.minimum(100, rate * (1 + 1 / p)) for p in schema.TOP_PERCENTS},
        **{f"top{p}_gain_share": random.uniform(p / 2, p, len(row)) for p in schema.TOP_PERCENTS},
        "gain_entropy": random.uniform(4.5, 6.3, len(row)),
        "share_taught": random.uniform(30, 60, len(row)),
        "final_loss": random.uniform(0.5, 1.5, len(row)),
        "curve_loss": 2 * np.exp(-np.linspace(0, 1, EPOCHS)) + random.random((len(row), 1)),
        "curve_acc": zoo.accuracies[s][:, None] + delta[:, None] * np.linspace(0, 1, EPOCHS),
        "curve_taught": random.uniform(30, 60, (len(row), EPOCHS)),
        **RUN, "created": _times(int(row[0]), len(row)),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--transfers", type=int, default=1_000_000)
    parser.add_argument("--models", type=int, default=1550)
    parser.add_argument(
        "--part", type=int, default=store.PART_ROWS, help="rows of a part of transfers"
    )
    chosen = parser.parse_args()
    write(chosen.folder, chosen.models, chosen.transfers, chosen.part)


if __name__ == "__main__":
    main()
