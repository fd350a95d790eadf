"""Which columns of the rows the page shows, under which names, to how many digits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from kt_cli.rows import schema

TITLES = {"transfer": "Transfers", "complementarity": "Pairs"}
AT_FIRST = 7  # columns that are shown, at most: the first of these that there are
# The others are in a row's details and can be added.
FIRST = {
    "transfer": (
        "teacher", "student", "delta", "pos_flips", "method", "status", "sweep", "data", "settings",
        "seed", "gain", "loss", "transfer_p",
    ),
    "complementarity": (
        "teacher", "student", "pos_flips", "acc_diff", "sweep", "data", "neg_flips", "agreement",
        "kappa", "flip_entropy",
    ),
}  # fmt: skip
SORTED = {"transfer": "delta", "complementarity": "pos_flips"}  # by what, the largest first
# These tell rows apart only where they differ.
WHERE_THEY_DIFFER = {"method", "sweep", "data", "seed", "settings", "status"}
# Large and seldom looked at: the first to go where space is short.
LAST = (
    "run_id", "measured_with", "teacher_key", "student_key", "eval_data", "train_data",
    "guard_data", "guard_gains", "guard_losses", "git_commit", "host", "job_id", "path",
    "curve_loss", "curve_acc", "curve_taught", "peak_memory_mb", "seconds", "samples_per_s",
    "waiting_share", "moved", "created",
)  # fmt: skip
LABELS = {
    "teacher_acc": "teacher (%)", "student_acc": "student (%)", "after_acc": "after (%)",
    "acc_diff": "difference (pp)", "delta": "Δ (pp)", "gain": "gain (%)", "loss": "loss (%)",
    "transfer_rate": "rate (%)", "transfer_p": "p", "share_taught": "taught (%)",
    "pos_flips": "ρ⁺ (%)", "neg_flips": "ρ⁻ (%)", "agreement": "agreement (%)", "kappa": "κ",
    "flip_entropy": "entropy (nats)", "top50_classes": "classes of 50%",
}  # fmt: skip
BY_CLASS = ("gain_by_class", "loss_by_class")
FEW_ROWS = 2_000  # of transfers, whose classes are looked at
MOVED = schema.Column(schema.S, "labels of the classes that changed most: images gained, lost")
SWEEP = schema.Column(schema.S, "sweep that the row belongs to")
SIGNED = {"delta", "acc_diff", "delta_statistics", "delta_control", "delta_unguarded",
          "guard_score", "guard_least"}  # fmt: skip
FREE = (
    "lr", "weight_decay", "momentum", "mcl_tau", "temperature", "kd_lambda", "crop",
    "label_smoothing", "fraction", "guard_share",
)  # fmt: skip
FINE = (
    "kappa", "flip_entropy", "gain_entropy", "guard_alpha", "final_loss",
    *(f"top{p}_similarity" for p in schema.TOP_PERCENTS),
)  # fmt: skip
COARSE = ("seconds", "samples_per_s", "peak_memory_mb")
# Kind, decimals and digits (see Field) of numbers that are not as most.
FORMS = {
    **dict.fromkeys(("transfer_p", "mcnemar_p", "guard_p"), ("p", 5, 2)),
    **dict.fromkeys(FREE, ("free", 6, 6)),
    **dict.fromkeys(FINE, ("number", 4, 3)),
    **dict.fromkeys(COARSE, ("number", 1, 1)),
    "share_taught": ("number", 2, 1),
}
PROVENANCE = ("kt_version", "torch_version", "timm_version", "git_commit", "device", "created")
MAX_ROWS = 100_000  # of a table that are in the page row by row


@dataclass(frozen=True)
class Field:
    """A column of rows on the page."""

    key: str
    label: str
    meaning: str
    kind: str  # "p" numbers keep significant digits, "free" ones are shown as they are
    decimals: int  # what is kept; enough that Δ on 50,000 images is exact
    digits: int  # what is shown
    signed: bool
    first: bool


def needs(counts: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Columns to read by row table, beside those always read.

    Of a table with more than MAX_ROWS rows, by `counts`, the page has the provenance alone.
    """
    found = {
        table: tuple(scalars(table))
        if table in TITLES and counts.get(table, 0) <= MAX_ROWS
        else PROVENANCE
        for table in schema.TABLES
    }
    if counts.get("transfer", 0) <= FEW_ROWS:
        found["transfer"] += BY_CLASS
    return found


def fields(table: str, rows: pd.DataFrame) -> list[Field]:
    """The columns of `rows` that say something, those shown at first in front."""
    known = {"sweep": SWEEP, **scalars(table), "moved": MOVED}
    there = [c for c in known if c in rows and rows[c].notna().any()]
    first = [
        c
        for c in FIRST[table]
        if c in there and (c not in WHERE_THEY_DIFFER or rows[c].nunique(dropna=False) > 1)
    ][:AT_FIRST]
    rest = [c for c in there if c not in first]
    return [_field(c, known[c], c in first) for c in (*first, *rest)]


def scalars(table: str) -> dict[str, schema.Column]:
    """All but counts of each class, which are as many numbers as there are classes."""
    columns = schema.TABLES[table]
    return {name: column for name, column in columns.items() if not name.endswith("_by_class")}


def _field(key: str, column: schema.Column, first: bool) -> Field:
    kind, decimals, digits = FORMS.get(key, ("number", 3, 2))
    if column.type == schema.N:
        decimals, digits = 0, 0
    elif column.type != schema.F:
        kind = "text"
    elif key not in FORMS and key.endswith(("_rate", "_share", "_pct")):
        decimals, digits = 2, 1
    meaning = column.meaning.replace("`", "")
    return Field(key, LABELS.get(key, key), meaning, kind, decimals, digits, key in SIGNED, first)
