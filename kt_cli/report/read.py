"""Results on disk as data frames: of several folders, only the columns and rows asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from kt_cli.errors import DataError, counted, near
from kt_cli.report.groups import KEYS
from kt_cli.report.model_labels import concat, labelled
from kt_cli.report.planned import Planned
from kt_cli.report.query import Query, derived, kinds
from kt_cli.rows import schema, store
from kt_cli.rows.condition import columns_of
from kt_cli.rows.scan import count, has_rows, is_texts, meets, scan, texts_dtype

Frames = dict[str, pd.DataFrame]
NAMED = ("models", "pretrain")  # few rows, and they say what models are called: always read


@dataclass(frozen=True)
class Results:
    """Rows by table, one per run, models labelled uniquely within a sweep."""

    # All rows that were read. Texts that repeat are ordered categories; teachers, students and
    # models share theirs.
    frames: Frames
    skipped: tuple[Path, ...] = ()  # parts that could not be read
    # Finished rows that the condition left out, by table that it was applied to.
    filtered: Mapping[str, int] = field(default_factory=dict)
    # The folder of each sweep, by its label in the column `sweep`.
    folders: Mapping[str, Path] = field(default_factory=dict)
    unplanned: int = 0  # rows left out since their sweep does not plan them
    copies: Mapping[str, Sequence[Path]] = field(default_factory=dict)  # all folders of each sweep
    _ok: Frames = field(default_factory=dict, init=False, repr=False, compare=False)
    _failed: Frames = field(default_factory=dict, init=False, repr=False, compare=False)

    def ok(self, table: str) -> pd.DataFrame:
        """Finished rows; counts that pandas made floats beside nulls are integers again."""
        if table not in self._ok:
            self._ok[table] = _whole(_with_status(self.frames[table], True), table)
        return self._ok[table]

    def failed(self, table: str) -> pd.DataFrame:
        """Rows of runs that failed and have no result, texts as plain ones."""
        if table not in self._failed:
            self._failed[table] = self._without_result(table)
        return self._failed[table]

    def _without_result(self, table: str) -> pd.DataFrame:
        failed = _with_status(self.frames[table], False)
        failed = failed.astype({c: object for c in failed if is_texts(failed[c])})
        if table != "complementarity" or failed.empty:
            return failed
        # All pairs of a sweep are one run that fails as one row; a later success adds others.
        finished = self.ok(table).groupby("sweep", observed=True)["created"].max().to_dict()
        runs = zip(failed["sweep"], failed["created"], strict=True)
        return failed.loc[[created > finished.get(sweep, "") for sweep, created in runs]]

    @property
    def only_failed(self) -> bool:
        nothing = all(self.ok(t).empty for t in ("models", "complementarity", "transfer"))
        return nothing and any(len(self.failed(table)) for table in self.frames)


def _with_status(rows: pd.DataFrame, ok: bool) -> pd.DataFrame:
    chosen = ((rows["status"] == store.OK) == ok).to_numpy(dtype=bool)
    return rows if chosen.all() else rows[chosen]


def _whole(rows: pd.DataFrame, table: str) -> pd.DataFrame:
    counts = [c for c, column in schema.TABLES[table].items() if column.type == "int64"]
    floats = [c for c in counts if c in rows and rows[c].dtype != "int64"]
    return rows.astype({c: "int64" for c in floats if rows[c].notna().all()})


def read_results(
    paths: Iterable[Path],
    needs: Mapping[str, Collection[str]] | None = None,
    query: Query = Query(),
    on_skip: store.OnSkip | None = None,
) -> Results:
    """The rows of sweep folders, and of the sweep folders inside of others.

    Folders of one name with the same sweep.toml are one sweep; of a run that is in several, the
    newest finished row counts.

    Args:
        needs: tables of rows, and their columns beside KEYS; None for everything. Other tables
            stay empty, except those that name models.
        query: its condition is applied while reading, to each table that has its columns.
        on_skip: called with path and reason for each part that cannot be read.

    Raises:
        DataError: a path is missing, or has no rows that can be read.
    """
    reader = _Reader(needs, query, on_skip)
    by_path = {path: find_sweeps(path) for path in dict.fromkeys(paths)}
    for path, folders in by_path.items():
        before = len(reader.skipped)
        tables = [folder / table for folder in folders for table in KEYS]
        if not any(has_rows(table, reader.skip) for table in tables):
            raise _nothing_in(path, len(reader.skipped) - before)
    sweeps = _sweeps(folder for folders in by_path.values() for folder in folders)
    read = [
        labelled({table: reader.rows(table, label, folders) for table in KEYS})
        for label, folders in sweeps.items()
    ]
    frames = {table: concat([frames[table] for frames in read]) for table in KEYS}
    frames = {table: reader.followed(frames, table) for table in frames}
    if reader.skipped and not any(map(len, frames.values())) and not any(reader.filtered.values()):
        raise _nothing_in(next(iter(by_path)), len(reader.skipped))
    folders_by_label = {label: folders[0] for label, folders in sweeps.items()}
    return Results(
        frames, tuple(reader.skipped), reader.filtered, folders_by_label, reader.unplanned, sweeps
    )


@dataclass
class _Reader:
    """Reads table after table, and keeps what was skipped and left out."""

    needs: Mapping[str, Collection[str]] | None
    query: Query
    on_skip: store.OnSkip | None
    skipped: dict[Path, str] = field(default_factory=dict)
    unplanned: int = 0

    def __post_init__(self) -> None:
        applied = self.query.conditions()
        tables = [t for t in KEYS if applied and self._reads(t) and not self.query.lacks(t)]
        self.filtered = dict.fromkeys(tables, 0)

    def skip(self, part: Path, reason: str) -> None:
        if part not in self.skipped and self.on_skip is not None:
            self.on_skip(part, reason)
        self.skipped[part] = reason

    def _reads(self, table: str) -> bool:
        return self.needs is None or table in self.needs or table in NAMED

    def rows(self, table: str, label: str, folders: Sequence[Path]) -> pd.DataFrame:
        """The rows of one sweep that meet the part of the condition on stored columns."""
        columns = list(schema.TABLES[table])
        if self.needs is not None:
            wanted = {*KEYS[table], *self.needs.get(table, ()), *self.query.needs(table)}
            columns = [column for column in columns if column in wanted]
        read = self._reads(table)
        condition = self.query.stored(table) if read else []
        found = scan(folders if read else (), table, columns, condition, self.skip)
        if table in self.filtered:
            self.filtered[table] += found.left_out
        rows = found.rows
        if not self.query.all_rows:
            planned = Planned.of(folders[0]).holds(rows, table)
            self.unplanned += int((~planned).sum())
            rows = rows if planned.all() else rows[planned]
        sweep = pd.Categorical.from_codes(np.zeros(len(rows), np.int8), dtype=texts_dtype([label]))
        return rows.assign(sweep=sweep)

    def followed(self, frames: Frames, table: str) -> pd.DataFrame:
        """Rows that meet the part of the condition that needs derived columns."""
        rows, condition = frames[table], self.query.followed(table)
        if not condition or not self._reads(table):
            return rows
        chosen = meets(derived(rows, self.query.derives(table), frames["models"]), condition)
        self.filtered[table] += int((~chosen & (rows["status"] == store.OK).to_numpy()).sum())
        return rows[chosen]


def count_rows(paths: Iterable[Path]) -> dict[str, int]:
    """Rows of each table in the sweeps of `paths`, without reading them."""
    folders = dict.fromkeys(f.resolve() for path in paths for f in find_sweeps(path))
    return {table: sum(count(folder / table) for folder in folders) for table in KEYS}


def occurring(paths: Iterable[Path], query: Query) -> dict[str, list[str]]:
    """What finished rows have in the columns of texts that the condition names."""
    names, paths = columns_of(query.conditions()), list(paths)
    found: dict[str, set[str]] = {}
    for table in KEYS:
        texts = [name for name in names if kinds(table).get(name) == "text"]
        if texts and not query.lacks(table):
            every = Query(all_rows=query.all_rows)
            results = read_results(paths, {table: {*texts, "acc_diff"}}, every)
            rows = derived(results.ok(table), texts, results.ok("models"))
            for name in texts:
                found.setdefault(name, set()).update(map(str, rows[name].dropna().unique()))
    return {name: sorted(values) for name, values in found.items()}


def find_sweeps(path: Path) -> list[Path]:
    """`path` if it is a sweep folder, else the sweep folders in it, by name.

    Raises:
        DataError: it is missing or not a folder.
    """
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        tip = "Name a sweep's folder (results/NAME), or one that holds such folders."
        raise DataError(f"{path} {what}", near(path, tip))
    if _is_sweep(path):
        return [path]
    try:
        return sorted(child for child in path.iterdir() if _is_sweep(child))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _is_sweep(path: Path) -> bool:
    return (path / "sweep.toml").is_file() or any((path / table).is_dir() for table in KEYS)


def _nothing_in(path: Path, unreadable: int) -> DataError:
    if unreadable:
        return DataError(
            f"none of the {unreadable} Parquet files in {path} can be read",
            "Their reasons are above. `kt sweep` writes again what cannot be read.",
        )
    others = sum(1 for table in KEYS for _ in path.glob(f"**/{table}/*.parquet"))
    if others:
        return DataError(
            f"no results in {path}: {counted(others, 'Parquet file')} there, none of kt's",
            "Those are called part-….parquet.",
        )
    deeper = sorted(file.parent for file in path.glob("*/*/sweep.toml"))[:1]
    tip = f"Name folders of sweeps, or one above them: {deeper[0].parent}." if deeper else ""
    return DataError(f"no results in {path}", tip or "`kt sweep` writes some.")


def _sweeps(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """The folders of each sweep by its label: its name, or its path where two have one name."""
    same: dict[tuple[str, str], list[Path]] = {}
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        try:
            what = (folder / "sweep.toml").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            what = str(folder)
        same.setdefault((folder.name, what), []).append(folder)
    names = [name for name, _ in same]
    return {
        name if names.count(name) == 1 else str(members[0]): members
        for (name, _), members in same.items()
    }
