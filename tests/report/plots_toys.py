"""Made-up results for plots, as frames, without files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kt_cli.report.groups import KEYS
from kt_cli.report.read import Results

MODELS = (
    "vit_base_patch16_224.augreg2_in21k_ft_in1k", "resnet50.a1_in1k", "resnet50.tv2_in1k",
    "convnext_tiny.fb_in22k", "mixer_b16_224.goog_in21k_ft_in1k", "mine",
)  # fmt: skip
METHODS = ("kl", "kl-dp", "kl-dp+guard")
TWELVE = ("kl", "xekl", "kl-mcl", "xekl-mcl", "kl-dp", "kl-dp-u", "self", "flip-st", "flip-t",
          "flip-avg", "crd", "cd")  # fmt: skip
DATA = {
    "data": "photos", "eval_data": "e" * 16, "eval_size": "test", "eval_amp": "", "limit": None,
    "n": 2000, "num_classes": 12, "status": "ok", "error": None, "created": "2025-01-01",
}  # fmt: skip
SETTINGS = {
    "settings": "5e771465", "train_data": "t" * 16, "n_train": 1000, "fraction": 0.1,
    "subset_seed": 0, "guard_share": 0.0, "together": "single", "order": "", "epochs": 3,
}  # fmt: skip
TOP = (2, 5, 20, 50)


def results(
    models: Sequence[str] = MODELS,
    methods: Sequence[str] = METHODS,
    seeds: int = 1,
    pairs: int | None = None,
    untrained: int = 1,
    seed: int = 0,
) -> Results:
    """A sweep of all pairs of `models`, or only the first so many of them."""
    random = np.random.default_rng(seed)
    accuracy = dict(zip(models, np.linspace(90, 62, len(models)), strict=True))
    every = list(itertools.permutations(models, 2))[:pairs]
    chance = [(f"random:arch{i}", s) for i in range(untrained) for s in models]
    frames = {
        "models": [_model(m, accuracy[m], random) for m in models],
        "complementarity": [
            _pair(t, s, accuracy.get(t, 8.0), accuracy[s], random) for t, s in [*every, *chance]
        ],
        "transfer": [
            _transfer(t, s, method, number, accuracy, random)
            for (t, s), method, number in itertools.product(every, methods, range(seeds))
        ],
    }
    return Results({table: _frame(table, frames.get(table, [])) for table in KEYS})


def _frame(table: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=None if rows else KEYS[table])
    missing = [column for column in KEYS[table] if column not in frame]
    return frame.assign(sweep="toys", **dict.fromkeys(missing, None))


def _model(name: str, accuracy: float, random: np.random.Generator) -> dict[str, Any]:
    params = float(random.uniform(3, 300))
    return {"model": name, "model_key": f"k:{name}", "accuracy": accuracy, "params_m": params,
            **DATA}  # fmt: skip


def _names(teacher: str, student: str) -> dict[str, str]:
    key = teacher if teacher.startswith("random:") else f"k:{teacher}"
    return {"teacher": teacher, "student": student, "teacher_key": key,
            "student_key": f"k:{student}"}  # fmt: skip


def _pair(
    teacher: str, student: str, teacher_acc: float, student_acc: float, random: np.random.Generator
) -> dict[str, Any]:
    difference = teacher_acc - student_acc
    positive = max(0.0, difference) + float(random.uniform(0.5, 5))
    flips = random.multinomial(round(20 * positive), random.dirichlet(np.full(12, 0.5)))
    return {
        **_names(teacher, student), **DATA, "acc_diff": difference, "pos_flips": positive,
        "flip_entropy": math.log(12) * float(random.uniform(0.4, 0.95)), "by_class": True,
        "flips_by_class": flips.astype(np.int32), "class_similarity": 0.1,
        **{f"top{p}_similarity": 0.1 + float(random.normal(0.1, 0.05)) for p in TOP},
        **{f"top{p}_similarity_pct": 100 * float(random.beta(4, 1)) for p in TOP},
    }  # fmt: skip


def _transfer(
    teacher: str, student: str, method: str, seed: int, accuracy: dict[str, float],
    random: np.random.Generator,
) -> dict[str, Any]:  # fmt: skip
    difference = accuracy[teacher] - accuracy[student]
    gain, loss = float(random.gamma(2, 0.6)), float(random.gamma(2, 0.4))
    rates = 100 * random.beta(3, 9, 5)
    curve = np.exp(-np.arange(3) / 2)
    return {
        **_names(teacher, student), **DATA, **SETTINGS, "method": method, "seed": seed,
        "teacher_acc": accuracy[teacher], "student_acc": accuracy[student],
        "acc_diff": difference, "gain": gain, "loss": loss, "delta": gain - loss,
        "transfer_rate": float(rates[0]),
        **{f"top{p}_rate": float(rate) for p, rate in zip(TOP, rates[1:], strict=True)},
        "curve_loss": curve * float(random.uniform(1, 2)),
        "curve_acc": accuracy[student] + random.uniform(0, 2, 3),
        "curve_taught": random.uniform(30, 60, 3),
    }  # fmt: skip
