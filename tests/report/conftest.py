"""Synthetic sweeps: plausible rows, written with the store."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kt_cli.rows import store

N, CLASSES = 200, 10


class Sweep:
    """Writes rows of a made-up sweep into `folder`."""

    MODELS = ("vit_base_patch16_224", "resnet50", "mixer_50%_b16", "convnext_tiny")
    METHODS = ("kl-dp+guard", "kl-dp-u", "kl", "kl-dp", "xekl")

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self._random, self._count = folder, np.random.default_rng(seed), 0

    def write(self, table: str, rows: list[dict[str, object]]) -> Path:
        return store.write(self.folder, table, rows)

    def outcome(self, **changes: object) -> dict[str, object]:
        self._count += 1
        base = {
            "run_id": f"{self.folder.name}-{self._count}",
            "status": "ok",
            "attempt": 1,
            "created": f"2025-01-01T00:00:{self._count:06d}",
        }
        return {**base, **changes}

    def data(self, **changes: object) -> dict[str, object]:
        base = {"data": "digits", "eval_data": "e" * 16, "eval_size": "test", "n": N}
        return {**base, "num_classes": CLASSES, **changes}

    def transfer(self, teacher: str, student: str, **changes: object) -> dict[str, object]:
        """A row in whole images: Δ = gain − loss exactly."""
        gained, lost, known = self._random.integers(0, 30, 3)
        guard: dict[str, object] = {}
        if str(changes.get("method")).endswith("+guard"):
            alpha = float(self._random.integers(0, 3)) / 2
            guard = {"guard_alpha": alpha, "guard_data": "g" * 16, "guard_n": 90}
            gained, lost = (gained, lost) if alpha else (0, 0)
        before = 100.0 * self.accuracy(student)
        delta = 100 * (int(gained) - int(lost)) / N
        return {
            **self.outcome(), **self.data(),
            "teacher": teacher, "student": student,
            "teacher_key": f"key:{teacher}", "student_key": f"key:{student}",
            "method": "kl-dp", "seed": 0, "settings": "5e771465", "train_data": "t" * 16,
            "n_train": 1000, "fraction": 1.0, "subset_seed": 0, "guard_share": 0.0, "epochs": 5,
            "lr": 0.01, "together": "single", "teacher_acc": 100 * self.accuracy(teacher),
            "student_acc": before, "after_acc": before + delta, "delta": delta,
            "acc_diff": 100 * (self.accuracy(teacher) - self.accuracy(student)),
            "pos_flips": 5 + 10 * (self.accuracy(teacher) - self.accuracy(student)),
            "gain": 100 * int(gained) / N, "loss": 100 * int(lost) / N,
            "transfer_p": float(self._random.random() ** 4),
            "transfer_rate": 100 * self._random.random() if known else None,
            "share_taught": 100 * self._random.random(),
            **guard, **changes,
        }  # fmt: skip

    def team(self, names: Sequence[str], student: str, **changes: object) -> dict[str, object]:
        """A row of several teachers in parallel, or as `changes` say."""
        row = self.transfer(" + ".join(names), student, settings="7ea3", together="parallel")
        rates = (100 * self._random.random(len(names))).tolist()
        best = 100 * max(map(self.accuracy, names))
        accuracies = [100 * self.accuracy(name) for name in names]
        return {
            **row, "teacher_key": " + ".join(f"key:{name}" for name in names),
            "teacher_names": list(names), "teacher_keys": [f"key:{name}" for name in names],
            "teacher_rates": rates, "teacher_shares": rates, "teacher_acc": best,
            "teacher_accs": accuracies, **changes,
        }  # fmt: skip

    def pair(self, teacher: str, student: str, **changes: object) -> dict[str, object]:
        difference = 100 * (self.accuracy(teacher) - self.accuracy(student))
        negative = float(self._random.integers(0, 20)) / 2 + max(0, -difference)
        both = np.random.default_rng(zlib.crc32(" ".join(sorted((teacher, student))).encode()))
        return {
            **self.outcome(), **self.data(),
            "teacher": teacher, "student": student,
            "teacher_key": f"key:{teacher}", "student_key": f"key:{student}",
            "acc_diff": difference, "pos_flips": negative + difference, "neg_flips": negative,
            "agreement": 80 + 10 * both.random(), "kappa": both.random(),
            "oracle_acc": 90 + 10 * both.random(),
            "flip_entropy": math.log(CLASSES) * self._random.random(),
            **{f"top{p}_classes": int(self._random.integers(1, 5)) for p in (2, 5, 20, 50)},
            **changes,
        }  # fmt: skip

    def model(self, name: str, **changes: object) -> dict[str, object]:
        return {
            **self.outcome(), **self.data(), "model": name, "model_key": f"key:{name}",
            "accuracy": 100 * self.accuracy(name), "top5": 99.5, "params_m": 5.5 + len(name),
            "input_size": 224, **changes,
        }  # fmt: skip

    def failed(self, table: str, error: str, **changes: object) -> dict[str, object]:
        names = ("model",) if table == "models" else ("teacher", "student")
        row = dict.fromkeys(names, "resnet50") | {f"{n}_key": "key:resnet50" for n in names}
        return {**self.outcome(status="failed", error=error), **row, "data": "digits", **changes}

    @classmethod
    def accuracy(cls, name: str) -> float:
        return 0.9 - 0.05 * cls.MODELS.index(name) if name in cls.MODELS else 0.7

    def fill(self, seeds: int = 2) -> None:
        """All tables, every pair, method and seed; one part per table."""
        pairs = list(itertools.permutations(self.MODELS, 2))
        rows = [
            self.transfer(t, s, method=method, seed=seed)
            for (t, s), method, seed in itertools.product(pairs, self.METHODS, range(seeds))
        ]
        self.write("models", [self.model(name) for name in self.MODELS])
        self.write("complementarity", [self.pair(t, s) for t, s in pairs])
        self.write("transfer", rows)


@pytest.fixture
def make_sweep() -> type[Sweep]:
    return Sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path / "results" / "demo")


@pytest.fixture
def filled(sweep: Sweep) -> Sweep:
    sweep.fill()
    return sweep
