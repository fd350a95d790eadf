"""What is in the cache folder: listed, checked, removed.

Only files that bear the names of kt's own entries are seen, so nothing else that lies below
KT_CACHE is ever removed.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from kt_cli.errors import DataError, WriteError, first_line, way_out
from kt_cli.files import cache_folder, read_tensors
from kt_cli.rows import arrays

PREDICTIONS, CLASSES = "predictions", "classes"
CANONICAL, TARGETS, CONTENTS = "canonical", "targets", "contents"
DRIFT = "drift"
TIMM = "timm"
UNFINISHED = "unfinished"  # what a writer has not finished: it is at work, or was killed
SUFFIXES = {
    PREDICTIONS: "parquet", CLASSES: "parquet", CANONICAL: "npy", TARGETS: "safetensors",
    CONTENTS: "parquet", DRIFT: "safetensors", TIMM: "parquet",
}  # fmt: skip
KINDS = (*SUFFIXES, UNFINISHED)
COLUMNS = {
    PREDICTIONS: ("id", "label", "pred", "confidence", "label_prob", "top5"),
    CLASSES: ("id", "vectors"),
    CONTENTS: ("digest",),
    TIMM: ("id", "config"),
}
# Tensors of targets in each of their two forms, all logits or the most probable classes.
PARTITION = {"label_prob", "confidence", "right"}
WHOLE, MOST_PROBABLE = PARTITION | {"logits"}, PARTITION | {"classes", "log_probs", "log_rest"}
IN_USE = 3600.0  # seconds for which an unfinished file may still have a writer
ROWS_AT_ONCE = 1024  # checked together: 45 MB of logits of 21,841 classes


@dataclass(frozen=True)
class Entry:
    """One file of the cache."""

    kind: str  # one of KINDS
    path: Path
    bytes: int
    modified: float  # seconds since the epoch
    about: dict[str, str] = field(default_factory=dict)  # what it says of itself
    rows: int | None = None  # images, or classes, that it holds, where that is known
    columns: tuple[str, ...] = ()  # names of what it holds of each
    fault: str = ""  # why it cannot be read

    def matches(self, patterns: Sequence[str]) -> bool:
        """Whether a glob fits the model's name or key, the data's name or the file's name."""
        said = [self.about[key] for key in ("name", "model", "data") if key in self.about]
        return any(fnmatchcase(name, glob) for glob in patterns for name in (*said, self.path.name))

    def older(self, seconds: float) -> bool:
        """Whether it was written more than `seconds` ago."""
        return time.time() - self.modified > seconds

    @property
    def in_use(self) -> bool:
        """Whether it may have a writer that is at work."""
        return self.kind == UNFINISHED and not self.older(IN_USE)


def root() -> Path:
    """The cache folder, whether it is there or not."""
    return cache_folder(PREDICTIONS).parent


def entries(kind: str | None = None) -> list[Entry]:
    """All files of the cache, or those of one kind, by kind, model, data and name."""
    found = [
        _described(entry)
        for folder in SUFFIXES
        for entry in _files(folder)
        if kind in (None, entry.kind)
    ]

    def order(entry: Entry) -> tuple[int, str, str, str]:
        name, data = (entry.about.get(key, "") for key in ("name", "data"))
        return KINDS.index(entry.kind), name, data, entry.path.name

    return sorted(found, key=order)


def verify(entry: Entry) -> str | None:
    """What is wrong with a file, or None: all of its values are read, in bounded memory.

    Pages of Parquet files have checksums; the others have only a size to compare.
    What is unfinished promises nothing, and what is gone meanwhile is not wrong.
    """
    if entry.kind == UNFINISHED or not entry.path.exists():
        return None
    entry = _described(entry)
    if entry.fault or entry.kind == CANONICAL:
        return entry.fault or None
    if entry.kind in (TARGETS, DRIFT):
        return _changed(entry.path)
    missing = [name for name in COLUMNS[entry.kind] if name not in entry.columns]
    if missing:
        return f"no column {', '.join(missing)}"
    try:
        for name in entry.columns:
            rows = sum(len(b) for b in arrays.batches(entry.path, name, ROWS_AT_ONCE))
            if rows != entry.rows:
                return f"{rows} values of {name} in {entry.rows} rows"
    except (DataError, ValueError) as error:
        return _reason(error, entry.path)
    return None


def remove(found: Iterable[Entry]) -> int:
    """Delete files, or raise WriteError; what may have a living writer stays. The bytes freed."""
    freed = 0
    for entry in found:
        if entry.in_use:
            continue
        try:
            entry.path.unlink()
        except FileNotFoundError:  # somebody else was faster
            continue
        except OSError as error:
            said = first_line(error)
            raise WriteError(f"cannot remove {entry.path}: {said}", way_out(said)) from error
        freed += entry.bytes
    return freed


def _files(folder: str) -> Iterator[Entry]:
    """What kt wrote to a folder of the cache, as far as the directory tells."""
    finished = re.compile(rf"[0-9a-f]{{24}}\.{SUFFIXES[folder]}")
    unfinished = re.compile(rf"\.{finished.pattern}\.[0-9a-f]+\.tmp")
    path = cache_folder(folder)
    for file in path.iterdir() if path.is_dir() else ():
        whole = finished.fullmatch(file.name)
        if whole or unfinished.fullmatch(file.name):
            with suppress(FileNotFoundError):  # removed, or finished, since the folder was read
                stat = file.stat()
                yield Entry(folder if whole else UNFINISHED, file, stat.st_size, stat.st_mtime)


def _changed(path: Path) -> str | None:
    try:
        read_tensors(path)
    except Exception as error:  # a damaged header may raise anything
        return _reason(error, path)
    return None


def _described(entry: Entry) -> Entry:
    """An entry with what the file says of itself, or why it says nothing."""
    if entry.kind == UNFINISHED:
        return entry
    said = {CANONICAL: _canonical, TARGETS: _targets, DRIFT: _drift}.get(entry.kind, _arrays)
    try:
        return replace(entry, fault="", **said(entry.path))
    except Exception as error:  # a damaged header may raise anything
        return replace(entry, fault=_reason(error, entry.path))


def _arrays(path: Path) -> dict[str, Any]:
    info = arrays.info(path)
    return {"about": info.about, "rows": info.rows, "columns": tuple(info.columns)}


def _canonical(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        expected = file.tell() + math.prod(shape) * dtype.itemsize
    size = path.stat().st_size
    if size != expected:
        raise ValueError(f"{size:,} bytes, its header says {expected:,}")
    return {"about": {"side": str(shape[-1])}, "rows": shape[0], "columns": ("pixels",)}


def _targets(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, "np") as file:  # refuses a size that its header does not say
        shapes = {name: file.get_slice(name).get_shape() for name in sorted(file.keys())}
    topk = "classes" in shapes
    if missing := (MOST_PROBABLE if topk else WHOLE) - set(shapes):
        raise ValueError(f"no tensor {', '.join(sorted(missing))}")
    rows = {shape[0] for shape in shapes.values()}
    if len(rows) > 1:
        raise ValueError(f"tensors of {', '.join(map(str, sorted(rows)))} rows")
    size = str(shapes["classes" if topk else "logits"][1])
    said = {"topk" if topk else "classes": size}
    return {"about": said, "rows": rows.pop(), "columns": tuple(shapes)}


def _drift(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return {"columns": tuple(sorted(file.keys()))}


def _reason(error: Exception, path: Path) -> str:
    """An error's first line without the path, which stands beside it already."""
    return first_line(error).removeprefix(f"cannot read {path}: ")
