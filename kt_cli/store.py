"""Results on disk: immutable Parquet parts under `results/<sweep>/<table>/`.

A part is written to a temporary name, fsynced and renamed; it is never appended to or changed.
The directory listing is the truth: a row is finished when it can be read. Readers skip a part
that they cannot read, and keep one row per `run_id`: the newest `ok`, else the newest.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kt_cli.errors import DataError
from kt_cli.files import atomic_file

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

OK, FAILED = "ok", "failed"
TOP_PERCENTS = (2, 5, 20, 50)

OnSkip = Callable[[Path, str], None]


class Column(NamedTuple):
    type: pa.DataType
    meaning: str


S, N, F, B = pa.string(), pa.int64(), pa.float64(), pa.bool_()

DATA: dict[str, Column] = {
    "data": Column(S, "data source as named by the user"),
    "eval_data": Column(S, "fingerprint of the evaluation images"),
    "eval_size": Column(
        S, "`test`: models see their test input size, as in timm's validate.py; or `train`"
    ),
    "limit": Column(N, "`--limit` on the evaluation images; null for all"),
    "n": Column(N, "evaluation images"),
    "num_classes": Column(N, "classes C"),
}
PROVENANCE: dict[str, Column] = {
    "kt_version": Column(S, "version of kt"),
    "torch_version": Column(S, "version of torch"),
    "timm_version": Column(S, "version of timm"),
    "git_commit": Column(S, "commit of kt's checkout; null when installed from a package"),
    "device": Column(S, "device name"),
    "threads": Column(N, "CPU threads used by torch"),
    "host": Column(S, "host name"),
    "job_id": Column(S, "job of the executor that ran it"),
    "created": Column(S, "when the row was written, UTC, ISO 8601"),
    "seconds": Column(F, "wall-clock seconds of the run"),
    "samples_per_s": Column(F, "images processed per second of the run"),
    "peak_memory_mb": Column(F, "peak memory in MB: of the device on CUDA, else of the process"),
}
OUTCOME: dict[str, Column] = {
    "status": Column(S, "`ok` or `failed`"),
    "error": Column(S, "what went wrong; null when ok"),
    "attempt": Column(N, "which try this was, from 1"),
}

TABLES: dict[str, dict[str, Column]] = {
    "pretrain": {
        "run_id": Column(S, "identity of the run"),
        "model": Column(S, "name of the trained model"),
        "arch": Column(S, "timm architecture or model reference it started from"),
        "pretrained": Column(B, "whether it started from trained weights"),
        "data": Column(S, "data source as named by the user"),
        "train_data": Column(S, "fingerprint of the training images"),
        "n_train": Column(N, "training images"),
        "num_classes": Column(N, "classes C"),
        "epochs": Column(N, "epochs"),
        "lr": Column(F, "peak learning rate"),
        "augment": Column(S, "augmentation"),
        "seed": Column(N, "seed"),
        "final_loss": Column(F, "mean training loss of the last epoch"),
        "path": Column(S, "folder of the trained model, relative to the sweep's"),
        **PROVENANCE,
        **OUTCOME,
    },
    "models": {
        "run_id": Column(S, "identity of the run"),
        "model": Column(S, "model name"),
        "model_key": Column(S, "identity of the model: name with tag, or hash of its weights"),
        **DATA,
        "accuracy": Column(F, "top-1 accuracy in percent"),
        "top5": Column(F, "top-5 accuracy in percent; null below five classes"),
        "params_m": Column(F, "parameters in millions"),
        "input_size": Column(N, "side length of the input in pixels"),
        "weights": Column(S, "hash of the weights as loaded"),
        **PROVENANCE,
        **OUTCOME,
    },
    "complementarity": {
        "run_id": Column(S, "identity of the ordered pair on this data"),
        "teacher": Column(S, "teacher's name"),
        "student": Column(S, "student's name"),
        "teacher_key": Column(S, "identity of the teacher"),
        "student_key": Column(S, "identity of the student"),
        **DATA,
        "teacher_acc": Column(F, "teacher's top-1 in percent"),
        "student_acc": Column(F, "student's top-1 in percent"),
        "acc_diff": Column(F, "teacher_acc − student_acc, percentage points"),
        "pos_flips": Column(F, "ρ⁺: teacher right and student wrong, percent of images"),
        "neg_flips": Column(F, "ρ⁻: student right and teacher wrong, percent of images"),
        "agreement": Column(F, "equal predictions, percent"),
        "kappa": Column(F, "error consistency: Cohen's κ on correctness; null where undefined"),
        "oracle_acc": Column(F, "either is right, percent"),
        "confident_acc": Column(F, "accuracy of the more confident of the two, percent"),
        "mcnemar_p": Column(F, "McNemar's exact test, two-sided p-value"),
        "flip_entropy": Column(
            F, "entropy of the positive flips over classes, nats; null without flips"
        ),
        **{
            f"top{p}_classes": Column(N, f"fewest classes that hold {p}% of the positive flips")
            for p in TOP_PERCENTS
        },
        **PROVENANCE,
        **OUTCOME,
    },
    "transfer": {
        "run_id": Column(S, "identity of the run"),
        "teacher": Column(S, "teacher's name"),
        "student": Column(S, "student's name"),
        "teacher_key": Column(S, "identity of the teacher"),
        "student_key": Column(S, "identity of the student"),
        "method": Column(S, "transfer method"),
        "seed": Column(N, "seed of the views and of the order"),
        **DATA,
        "train_data": Column(S, "fingerprint of the transfer images"),
        "n_train": Column(N, "transfer images"),
        "fraction": Column(F, "share of the training images used"),
        "subset_seed": Column(N, "seed that drew them"),
        "guard": Column(F, "share of the training images set aside"),
        "settings": Column(S, "hash of all settings but method and seed; equal ones compare"),
        "epochs": Column(N, "epochs"),
        "lr": Column(F, "learning rate at batch 256"),
        "batch_size": Column(N, "samples per update"),
        "micro_batch": Column(N, "samples per forward pass"),
        "momentum": Column(F, "momentum of SGD"),
        "weight_decay": Column(F, "weight decay"),
        "temperature": Column(F, "temperature T"),
        "kd_lambda": Column(F, "weight λ of distillation in xekl"),
        "augment": Column(S, "augmentation of the views"),
        "crop": Column(F, "canonical centre crop, share of the shorter side"),
        "side": Column(N, "side length of canonical crops in pixels"),
        "teacher_acc": Column(F, "teacher's top-1 in percent"),
        "student_acc": Column(F, "student's top-1 before transfer, percent"),
        "after_acc": Column(F, "student's top-1 after transfer, percent"),
        "acc_diff": Column(F, "teacher_acc − student_acc, percentage points"),
        "delta": Column(F, "transfer delta Δ: after_acc − student_acc, percentage points"),
        "gain": Column(F, "wrong before and right after, percent of images"),
        "loss": Column(F, "right before and wrong after, percent of images; delta = gain − loss"),
        "transfer_p": Column(F, "McNemar's exact test of gain against loss, two-sided p-value"),
        "pos_flips": Column(F, "ρ⁺ of teacher over student before transfer, percent"),
        "neg_flips": Column(F, "ρ⁻ before transfer, percent"),
        "pos_flips_after": Column(F, "ρ⁺ of teacher over student after transfer, percent"),
        "neg_flips_after": Column(F, "ρ⁻ after transfer, percent"),
        "transfer_rate": Column(
            F, "share of ρ⁺ that the student learned, percent; null without ρ⁺"
        ),
        "share_taught": Column(F, "training samples taught by the teacher, percent"),
        "final_loss": Column(F, "mean training loss of the last epoch"),
        "path": Column(
            S, "folder of the saved student, relative to the sweep's; null when not saved"
        ),
        **PROVENANCE,
        **OUTCOME,
    },
}


def schema(table: str) -> pa.Schema:
    return pa.schema([pa.field(name, column.type) for name, column in TABLES[table].items()])


def write(folder: Path, table: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write `rows` as one new part of `folder/table` and return its path.

    Columns that a row does not have become null; a key that is no column is an error.
    """
    unknown_keys = {key for row in rows for key in row} - TABLES[table].keys()
    if unknown_keys:
        raise KeyError(f"not columns of {table}: {sorted(unknown_keys)}")
    return _write_part(folder / table, pa.Table.from_pylist(list(rows), schema=schema(table)))


def write_columns(folder: Path, table: str, columns: Mapping[str, Any]) -> Path:
    """As `write`, from whole columns (arrays, or scalars that hold for every row)."""
    rows = len(columns["run_id"])
    arrays = []
    for name, column in TABLES[table].items():
        value = columns.get(name)
        if value is None or isinstance(value, (str, int, float, bool)):
            arrays.append(pa.array([value], column.type).take(pa.array([0] * rows, pa.int32())))
        else:
            arrays.append(pa.array(value, column.type, from_pandas=True))
    return _write_part(folder / table, pa.Table.from_arrays(arrays, schema=schema(table)))


def merge(folder: Path, table: str, parts: Sequence[Path]) -> Path | None:
    """Replace `parts` of one writer by a single one; readers see their rows all along."""
    tables = [t for t in (_read_part(part, None, None) for part in parts) if t is not None]
    if len(tables) < 2:
        return None
    merged = _write_part(folder / table, pa.concat_tables(_aligned(t, table) for t in tables))
    for part in parts:
        part.unlink(missing_ok=True)
    return merged


def settle(folder: Path, table: str) -> int:
    """Leave one row per run on disk where a killed writer left more; return how many went.

    Only superseded rows go. Safe beside other writers: what they add meanwhile is not touched.
    """
    parts = list_parts(folder / table)
    readable = {p: t for p in parts if (t := _read_part(p, None, None)) is not None}
    if not readable:
        return 0
    rows = pa.concat_tables(_aligned(t, table) for t in readable.values())
    kept = _newest_ok(rows)
    if kept.num_rows < rows.num_rows:
        _write_part(folder / table, kept)
        for part in readable:
            part.unlink(missing_ok=True)
    return int(rows.num_rows - kept.num_rows)


def list_parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def read(
    folders: Iterable[Path],
    table: str,
    columns: Sequence[str] | None = None,
    on_skip: OnSkip | None = None,
) -> pd.DataFrame:
    """The rows of `table` in the sweeps `folders`, one per run and sweep, with a column `sweep`.

    Args:
        columns: the columns wanted; None for all. A column that an old part lacks is null.
        on_skip: called with path and reason for each part that cannot be read.
    """
    wanted = list(TABLES[table]) if columns is None else list(columns)
    needed = list(dict.fromkeys([*wanted, "run_id", "status", "created"]))
    found = []
    for folder in folders:
        tables = _read_parts(folder / table, needed, on_skip)
        if tables:
            rows = _newest_ok(pa.concat_tables(_aligned(t, table, needed) for t in tables))
            rows = rows.select(wanted)
            found.append(rows.append_column("sweep", pa.array([folder.name] * rows.num_rows, S)))
    if not found:
        empty = pa.schema([*[pa.field(c, TABLES[table][c].type) for c in wanted], ("sweep", S)])
        found = [empty.empty_table()]
    frame: pd.DataFrame = pa.concat_tables(found).to_pandas()
    return frame


@dataclass(frozen=True)
class Outcome:
    status: str
    attempt: int
    error: str | None = None


class Outcomes:
    """What is known of each run of a table; `refresh` reads only parts that are new to it.

    With `only_new`, what is on disk at the start does not count.
    """

    def __init__(
        self, folder: Path, table: str, on_skip: OnSkip | None = None, only_new: bool = False
    ) -> None:
        self._folder, self._on_skip = folder / table, on_skip
        self._seen: set[Path] = set(list_parts(self._folder)) if only_new else set()
        self.by_id: dict[str, Outcome] = {}
        self.refresh()

    def refresh(self) -> None:
        columns = ["run_id", "status", "attempt", "error"]
        for part in list_parts(self._folder):
            if part in self._seen:
                continue
            # A part that a merge has removed since the listing has its rows in another one.
            self._seen.add(part)
            rows = _read_part(part, columns, self._on_skip)
            for values in zip(*(rows[c].to_pylist() for c in columns), strict=True) if rows else ():
                self._learn(*values)

    def _learn(self, run_id: str, status: str, attempt: int | None, error: str | None) -> None:
        known, attempt = self.by_id.get(run_id), attempt or 1
        if known is None or (known.status != OK and (status == OK or attempt >= known.attempt)):
            self.by_id[run_id] = Outcome(status, attempt, error)

    def done(self, run_id: str) -> bool:
        outcome = self.by_id.get(run_id)
        return outcome is not None and outcome.status == OK

    def failed(self, run_id: str) -> bool:
        outcome = self.by_id.get(run_id)
        return outcome is not None and outcome.status != OK

    def attempts(self, run_id: str) -> int:
        outcome = self.by_id.get(run_id)
        return 0 if outcome is None else outcome.attempt


def write_arrays(
    path: Path, columns: Mapping[str, np.ndarray | Sequence[str]], metadata: Mapping[str, str]
) -> None:
    """Write equally long columns, (n,) or (n, k), as one Parquet file with metadata, atomically."""
    arrays = {name: _to_arrow(values) for name, values in columns.items()}
    table = pa.table(arrays).replace_schema_metadata(dict(metadata))
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read what `write_arrays` wrote.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {_first_line(error)}") from error
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    return {name: _from_arrow(table.column(name)) for name in table.column_names}, metadata


def _to_arrow(values: Any) -> pa.Array:
    if getattr(values, "ndim", 1) == 2:
        flat = pa.array(values.reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.array(values)


def _from_arrow(column: pa.ChunkedArray) -> Any:
    combined = column.combine_chunks()
    if pa.types.is_fixed_size_list(column.type):
        width = column.type.list_size
        return combined.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return combined.to_numpy(zero_copy_only=False)


def _write_part(folder: Path, rows: pa.Table) -> Path:
    part = folder / f"part-{uuid.uuid4().hex[:16]}.parquet"
    with atomic_file(part) as temporary:
        pq.write_table(rows, temporary, compression="zstd")
    return part


def _read_parts(
    folder: Path, columns: Sequence[str] | None, on_skip: OnSkip | None
) -> list[pa.Table]:
    """All readable parts; those that a merge replaces while we read are read in their new place."""
    found: dict[Path, pa.Table | None] = {}
    while True:
        listed = list_parts(folder)
        new = [part for part in listed if part not in found]
        if not new:
            return [t for part in listed if (t := found[part]) is not None]
        found |= {part: _read_part(part, columns, on_skip) for part in new}


def _read_part(
    part: Path, columns: Sequence[str] | None, on_skip: OnSkip | None
) -> pa.Table | None:
    try:
        file = pq.ParquetFile(part)
        present = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
        return file.read(present)
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        if on_skip is not None:
            on_skip(part, _first_line(error))
        return None


def _aligned(rows: pa.Table, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """`rows` with exactly the wanted columns and types of `table`; missing ones are null."""
    arrays, names = [], list(TABLES[table]) if columns is None else list(columns)
    for name in names:
        type_ = TABLES[table][name].type
        if name in rows.column_names:
            arrays.append(rows.column(name).cast(type_))
        else:
            arrays.append(pa.nulls(rows.num_rows, type_))
    return pa.table(arrays, names=names)


def _newest_ok(rows: pa.Table) -> pa.Table:
    """One row per run_id: the newest `ok`, else the newest; in order of first appearance."""
    rank = pc.if_else(pc.equal(rows["status"], OK), 1, 0)
    keys = pa.table(
        {
            "run_id": rows["run_id"],
            "ok": rank,
            "created": rows["created"],
            "position": pa.array(range(rows.num_rows), pa.int64()),
        }
    )
    if pc.count_distinct(keys["run_id"]).as_py() == rows.num_rows:
        return rows
    best = keys.sort_by(
        [("ok", "descending"), ("created", "descending"), ("position", "ascending")]
    )
    first = best.group_by("run_id", use_threads=False).aggregate([("position", "first")])
    return rows.take(first["position_first"].sort())


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
