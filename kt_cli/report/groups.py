"""Results on disk as data frames, and their split into groups of rows that may be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kt_cli import schema, store
from kt_cli.errors import DataError
from kt_cli.report.table import Cell

OUTCOME = ["status", "error", "created"]
DATA = ["data", "eval_data", "eval_size", "eval_amp", "limit", "n", "num_classes"]
PAIR = ["teacher", "student", "teacher_key", "student_key"]
TRAINING = ["n_train", "train_data", "fraction", "subset_seed", "guard_share"]
SETTINGS = [
    "teachers", "order", "epochs", "lr", "batch_size", "micro_batch", "momentum", "weight_decay",
    "temperature", "kd_lambda", "kd_topk", "distil_on", "label_smoothing", "mcl_tau", "mcl_every",
    "bn", "augment", "crop", "side", "amp", "target_topk", "reference_compat",
]  # fmt: skip
COLUMNS = {
    "pretrain": ["model", *OUTCOME],
    "models": [
        "model", "model_key", *DATA, "accuracy", "accuracy_low",
        "accuracy_high", "top5", "params_m", "input_size", "warning", *OUTCOME,
    ],
    "complementarity": [
        *PAIR, *DATA, "acc_diff", "pos_flips", "agreement", "kappa", "mcnemar_p", "flip_entropy",
        *(f"top{p}_classes" for p in schema.TOP_PERCENTS), "class_embedding", "class_similarity",
        *(f"top{p}_similarity{end}" for p in schema.TOP_PERCENTS for end in ("", "_pct")),
        *OUTCOME,
    ],
    "transfer": [
        *PAIR, "method", "seed", *DATA, *TRAINING, "settings", *SETTINGS, "student_acc", "delta",
        "gain", "loss", "transfer_p", "transfer_rate", "share_taught", *OUTCOME,
    ],
}  # fmt: skip
SAME_DATA = ("sweep", "eval_data", "eval_size", "eval_amp")
SAME_TRANSFER = (*SAME_DATA, "train_data", "settings")

Frames = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Results:
    """Rows by table, one per run, models labelled uniquely within a sweep."""

    frames: Frames

    def ok(self, table: str) -> pd.DataFrame:
        """Finished rows; counts that pandas made floats beside nulls are integers again."""
        rows = self.frames[table]
        rows = rows[rows["status"] == store.OK]
        counts = [c for c, column in schema.TABLES[table].items() if column.type == "int64"]
        whole = [c for c in counts if c in rows and rows[c].notna().all()]
        return rows.astype(dict.fromkeys(whole, "int64"))

    def failed(self, table: str) -> pd.DataFrame:
        """Rows of runs that failed and have no result."""
        rows = self.frames[table]
        failed = rows[rows["status"] != store.OK]
        if table != "complementarity":
            return failed
        # All pairs of a sweep are one run that fails as one row; a later success adds others.
        finished = rows[rows["status"] == store.OK].groupby("sweep")["created"].max().to_dict()
        runs = zip(failed["sweep"], failed["created"], strict=True)
        return failed.loc[[created > finished.get(sweep, "") for sweep, created in runs]]

    @property
    def only_failed(self) -> bool:
        nothing = all(self.ok(t).empty for t in ("models", "complementarity", "transfer"))
        return nothing and any(len(self.failed(table)) for table in self.frames)


def read_results(paths: Iterable[Path], on_skip: store.OnSkip | None = None) -> Results:
    """The rows of sweep folders, and of the sweep folders inside of others.

    Raises:
        DataError: a path is missing, or has no rows that can be read.
    """
    sweeps = {path: find_sweeps(path) for path in dict.fromkeys(paths)}
    labels = _sweep_labels([folder for folders in sweeps.values() for folder in folders])
    read: dict[Path, Frames] = {}
    for path, folders in sweeps.items():
        skipped: list[Path] = []

        def skip(part: Path, reason: str, skipped: list[Path] = skipped) -> None:
            skipped.append(part)
            if on_skip is not None:
                on_skip(part, reason)

        resolved = {folder.resolve(): folder for folder in folders}
        read |= {
            key: _read_sweep(folder, labels[key], skip)
            for key, folder in resolved.items()
            if key not in read
        }
        if not any(len(rows) for key in resolved for rows in read[key].values()):
            raise _nothing_in(path, len(skipped))
    return Results(
        {table: _concat([frames[table] for frames in read.values()]) for table in COLUMNS}
    )


def find_sweeps(path: Path) -> list[Path]:
    """`path` if it is a sweep folder, else the sweep folders in it, by name.

    Raises:
        DataError: it is missing or not a folder.
    """
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        tip = "Name a sweep's folder (results/NAME), or one that holds such folders."
        raise DataError(f"{path} {what}", tip)
    if _is_sweep(path):
        return [path]
    try:
        return sorted(child for child in path.iterdir() if _is_sweep(child))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _is_sweep(path: Path) -> bool:
    return (path / "sweep.toml").is_file() or any((path / table).is_dir() for table in COLUMNS)


def _nothing_in(path: Path, unreadable: int) -> DataError:
    if unreadable:
        return DataError(
            f"none of the {unreadable} Parquet files in {path} can be read",
            "Their reasons are above. `kt sweep` writes again what cannot be read.",
        )
    return DataError(f"no results in {path}", "`kt sweep` and `kt transfer` write some.")


def _sweep_labels(folders: Sequence[Path]) -> dict[Path, str]:
    """Each folder's name; its path where two have the same name."""
    paths = dict.fromkeys(folder.resolve() for folder in folders)
    names = [path.name for path in paths]
    return {path: path.name if names.count(path.name) == 1 else str(path) for path in paths}


def _read_sweep(folder: Path, label: str, on_skip: store.OnSkip) -> Frames:
    frames = {
        table: store.read([folder], table, columns, on_skip).assign(sweep=label)
        for table, columns in COLUMNS.items()
    }
    return _label_models(frames)


def _concat(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else frames[0]


def _label_models(frames: Frames) -> Frames:
    """Give each model one name, and two models two: a retrained one may bear the old one's."""
    known = [
        frames[table][[role, f"{role}_key"]].set_axis(["name", "key"], axis=1)
        for table, role in MODEL_COLUMNS
    ]
    keys = pd.concat(known).dropna().groupby("key")["name"].min()
    shared = keys.duplicated(keep=False)
    labels = {
        key: f"{name} ({key[-8:]})" if ambiguous else name
        for key, name, ambiguous in zip(keys.index, keys, shared, strict=True)
    }
    frames = dict(frames)
    for table, role in MODEL_COLUMNS:
        rows = frames[table]
        pairs = zip(rows[f"{role}_key"], rows[role], strict=True)
        named = pd.Series([labels.get(key, name) for key, name in pairs], rows.index, dtype=object)
        frames[table] = rows.assign(**{role: named})
    return frames


MODEL_COLUMNS = (
    ("models", "model"),
    ("complementarity", "teacher"), ("complementarity", "student"),
    ("transfer", "teacher"), ("transfer", "student"),
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Rows that may be averaged: one sweep, one set of images, for transfers equal settings.

    Attributes:
        about: what the rows have in common, for machines.
        differs: how the group differs from the other groups of its sweep; may be empty.
    """

    rows: pd.DataFrame
    about: dict[str, Cell]
    differs: str

    def first(self, column: str) -> Cell:
        """The value of a column that is the same in all rows; None for null."""
        return native(self.rows[column].iloc[0])


def native(value: Any) -> Cell:
    """A value of a data frame as a cell: a Python value, null as None."""
    if pd.isna(value):
        return None
    cell: Cell = value.item() if hasattr(value, "item") else value
    return cell


def split(rows: pd.DataFrame, same: Sequence[str]) -> list[Group]:
    """Groups of rows that agree in all columns of `same`, sorted by these."""
    fields = [c for c in (*DATA, *TRAINING, *SETTINGS) if c in rows.columns]
    groups = []
    for _, sweep in rows.groupby("sweep", sort=True):
        differing = [c for c in fields if sweep[c].nunique(dropna=False) > 1]
        for key, members in sweep.groupby(list(same), dropna=False, sort=True):
            known = {name: native(value) for name, value in zip(same, key, strict=True)}
            about = {"sweep": known.pop("sweep"), **_images(members), **known}
            differs = ", ".join(_named(c, members[c].iloc[0]) for c in differing)
            groups.append(Group(members, about, differs))
    return groups


def _images(rows: pd.DataFrame) -> dict[str, Cell]:
    first = {name: native(rows[name].iloc[0]) for name in ("data", "n", "limit")}
    limit = first["limit"]
    return {
        "data": first["data"],
        "images": first["n"],
        "limit": int(limit) if isinstance(limit, float) else limit,
    }


def _named(column: str, value: Any) -> str:
    name = {"n": "evaluation images", "n_train": "transfer images"}.get(column, column)
    if pd.isna(value):
        return f"{name} none"
    if column in ("eval_data", "train_data"):
        return f"{name} {value[:8]}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
