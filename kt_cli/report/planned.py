"""Which rows of a sweep's folder it plans: its images, methods, seeds, models and drawn pairs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kt_cli.report.derived import members
from kt_cli.rows.scan import is_texts

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MODELS = "models.json"  # the keys of the sweep's models, beside sweep.toml
PLAN = "plan.json"  # likewise; "pairs" has the drawn ones, once they are known
IMAGES = ("eval_data", "eval_size", "eval_amp", "train_data")
OF_TRANSFERS = {"method", "seed", "train_data"}  # a zoo has others
KEYS = ("model_key", "teacher_key", "student_key")


@dataclass(frozen=True)
class Planned:
    """Values that rows may have, by column; a column that is not there may have any.

    pairs: keys of teacher and student between which transfers may be; empty for all.
    """

    values: dict[str, set[Any]]
    pairs: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, folder: Path) -> Planned:
        """What the files in a folder say; nothing where they are missing or not understood."""
        sweep = read_sweep(folder)
        transfer = sweep.get("transfer")
        transfer = transfer if isinstance(transfer, dict) else {}
        keys = _read(folder / MODELS, json.loads) if sweep else None
        found = {"method": transfer.get("methods"), "seed": transfer.get("seeds")}
        found |= dict.fromkeys(KEYS, keys)
        found |= (_read(folder / PLAN, _images) or {}) if sweep else {}
        pairs = _read(folder / PLAN, _pairs) if sweep else None
        known = {column: set(values) for column, values in found.items() if values}
        return cls(known, pairs or frozenset())

    def holds(self, rows: pd.DataFrame, table: str = "transfer") -> np.ndarray:
        """Which rows of a table are planned: bool (n,). What one does not say rules nothing out."""
        kept, transfers = np.ones(len(rows), dtype=bool), table == "transfer"
        asked = self.values.keys() - (() if transfers else OF_TRANSFERS)
        for column in asked & set(rows):
            values = rows[column]
            if is_texts(values):
                # Of several teachers all; the last stands for null, whose code is -1.
                several = members(rows, column)
                known = [self.values[column].issuperset(several.get(text, [text]))
                         for text in values.cat.categories]  # fmt: skip
                kept &= np.array([*known, True])[values.cat.codes]
            else:
                kept &= (values.isin(self.values[column]) | values.isna()).to_numpy()
        if self.pairs and len(rows) and transfers:
            kept &= self._drawn(rows)
        return kept

    def _drawn(self, rows: pd.DataFrame) -> np.ndarray:
        """Which transfers are of a drawn pair, or from several teachers: bool (n,)."""
        teachers, students = rows["teacher_key"].cat, rows["student_key"].cat
        several = members(rows, "teacher_key")
        shape = len(teachers.categories) + 1, len(students.categories) + 1  # the last is null
        known = np.ones(shape, dtype=bool)
        known[:-1, :-1] = [
            [t in several or (t, s) in self.pairs for s in students.categories]
            for t in teachers.categories
        ]
        found: np.ndarray = known[teachers.codes, students.codes]
        return found


def read_sweep(folder: Path) -> dict[str, Any]:
    """The tables of the sweep.toml in a folder; none where it is missing or not understood."""
    return _read(folder / "sweep.toml", tomllib.loads) or {}


def _images(text: str) -> dict[str, list[Any]]:
    rows = json.loads(text)["rows"]["transfer"]
    return {name: rows[name] for name in IMAGES if name in rows}


def _pairs(text: str) -> frozenset[tuple[str, str]]:
    return frozenset((str(teacher), str(student)) for teacher, student in json.loads(text)["pairs"])


def _read(file: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError):
        return None
