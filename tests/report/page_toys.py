"""Made-up results and tables for the page: plausible rows, and names that mean harm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kt_cli.report.groups import KEYS
from kt_cli.report.plots import Drawn
from kt_cli.report.read import Results
from kt_cli.report.table import Column, Interval, MeanStd, Table

HOSTILE = '</script><b onmouseover="alert(1)">x</b> \'&amp; <!-- <svg/onload=alert(2)>'
METHODS = ["kl", "kl-dp", "kl-dp-u", "xekl"]
IMAGES = 50_000
COLUMNS = (
    Column("method", "method", "text"),
    Column("n", "n", "count"),
    Column("delta", "Δ\n(pp)", "signed"),
    Column("rate", "rate (%)", digits=1),
    Column("note", kind="text", detail=True),
)
TABLE = Table(
    "summary", "Transfer by method", COLUMNS,
    (
        ("kl", 1437, MeanStd(-0.125, 1.5, 3), 1 / 3, "worst"),
        (HOSTILE, 20, MeanStd(0.25, float("nan"), 1), float("nan"), None),
        ("kl-dp", 3, Interval(0.251, -0.1, 0.6), 66.25, "best"),
        ("xekl", 3, None, 66.249, "none"),
    ),
    f"Sweep {HOSTILE}", (f"n = 4. {HOSTILE}",), {"sweep": "demo"}, frozenset({(2, "delta")}),
)  # fmt: skip


def transfers(count: int, models: int = 12, seed: int = 0) -> pd.DataFrame:
    """Rows in whole images of 50,000: Δ = gain − loss; every fiftieth without a transfer rate."""
    random = np.random.default_rng(seed)
    names = np.array([f"model{i}_patch16_224.augreg_in21k" for i in range(models)], dtype=object)
    teacher = random.integers(0, models, count)
    student = (teacher + random.integers(1, models, count)) % models
    accuracy = np.round(60 + 30 * random.random(models), 3)
    gain, loss, flips = (random.integers(0, n, count) * 100 / IMAGES for n in (2500, 2500, 8000))
    rate = np.where(np.arange(count) % 50 == 7, np.nan, 100 * random.random(count))
    rows = pd.DataFrame({
        "sweep": "big", "status": "ok", "created": [f"2026-01-02T{i:08d}" for i in range(count)],
        "run_id": [f"{number:016x}" for number in random.integers(0, 2**63, count)],
        "data": "imagenet", "n": IMAGES, "num_classes": 1000, "eval_data": "e" * 16,
        "teacher": names[teacher], "student": names[student],
        "method": np.array(METHODS, dtype=object)[random.integers(0, len(METHODS), count)],
        "seed": random.integers(0, 3, count), "settings": "5e771465", "lr": 0.01, "epochs": 20,
        "teacher_acc": accuracy[teacher], "student_acc": accuracy[student],
        "acc_diff": accuracy[teacher] - accuracy[student], "gain": gain, "loss": loss,
        "delta": gain - loss, "after_acc": accuracy[student] + gain - loss,
        "transfer_p": random.random(count) ** 9, "transfer_rate": rate, "pos_flips": flips,
        "pos_flips_after": flips * random.random(count), "gain_entropy": 6 * random.random(count),
        **{f"top{p}_rate": 100 * random.random(count) for p in (2, 5, 20, 50)},
        **{f"top{p}_gain_share": 100 * random.random(count) for p in (2, 5, 20, 50)},
        "share_taught": 100 * random.random(count), "final_loss": random.random(count),
        "seconds": 900 * random.random(count), "samples_per_s": 900 * random.random(count),
        "peak_memory_mb": 9000 * random.random(count), "kt_version": "1.0",
        "torch_version": "2.9.0", "timm_version": "1.0.31", "device": "NVIDIA H100",
    })  # fmt: skip
    return rows.assign(limit=np.nan, error=None)


def pairs(count: int, seed: int = 1) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    rows = transfers(count, seed=seed)
    kept = [c for c in rows if c in (*KEYS["complementarity"], "sweep", "run_id", "acc_diff",
                                     "teacher_acc", "student_acc", "pos_flips")]  # fmt: skip
    numbers = {"agreement": 80 + 20 * random.random(count), "kappa": random.random(count),
               "neg_flips": 9 * random.random(count), "flip_entropy": 6 * random.random(count),
               "top50_classes": random.integers(1, 200, count)}  # fmt: skip
    return rows[kept].assign(**numbers)


def results(transfer: pd.DataFrame, pair: pd.DataFrame | None = None,
            folder: Path = Path("nowhere")) -> Results:  # fmt: skip
    frames = {t: pd.DataFrame(columns=[*columns, "sweep"]) for t, columns in KEYS.items()}
    frames["transfer"] = transfer
    if pair is not None:
        frames["complementarity"] = pair
    return Results(frames, folders={"big": folder})


def drawn(file: str, width: float = 3.25) -> Drawn:
    figure = Figure((width, 2.4))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1])
    axes.set_xlabel("knowledge (%)")
    return Drawn("gain-loss", file, f"Gain against loss of {file} {HOSTILE}", figure)
