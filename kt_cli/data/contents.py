"""What files hold, a digest each: read once, then known for as long as their status is the same.

Kept below KT_CACHE in one file for each root; docs/architecture.md (Identity) says what for.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from kt_cli.errors import DataError, WriteError
from kt_cli.files import Status, cache_folder, cached, may_change_unseen, status_of
from kt_cli.progress import Progress, silent
from kt_cli.rows import arrays
from kt_cli.settings.declared import digest

Digests = NDArray[np.uint8]  # (n, SIZE)
T = TypeVar("T")
SIZE = 16
# By name: a hash of it. There are few enough that a clash needs an equal status to do harm.
ROW = np.dtype([("key", "u8"), ("status", "i8", 4), ("digest", "u1", SIZE)])
COLUMNS = ("key", "status", "digest")
READERS = 16  # threads: hashing and waiting for a disk let others run
AT_ONCE = 64  # files of one thread
KEPT_TOGETHER = 65_536  # so many are lost at most when the process is killed
QUIET_SECONDS = 1.0


def of_files(root: Path, names: Sequence[str], progress: Progress = silent) -> Digests:
    """Digests of the files root/name, (n, SIZE); DataError where one cannot be read."""

    def path(i: int) -> str:
        return f"{root}/{names[i]}"

    with closing(in_threads(lambda i: _status(path(i)), range(len(names)))) as found:
        statuses = np.array(list(found), np.int64).reshape(-1, 4)
    return remembered(os.path.realpath(root), names, statuses, lambda i: _read(path(i)), progress)


def remembered(
    place: str,
    names: Sequence[str],
    statuses: NDArray[np.int64],
    read: Callable[[int], tuple[bytes, Status | None]],
    progress: Progress = silent,
) -> Digests:
    """Digests of n things; those whose status is not the one in memory are read.

    Args:
        place: what the names are unique in.
        statuses: (n, 4), as they are now.
        read: gives the i-th digest and the status to remember it by; None for not at all.
    """
    path = cache_folder("contents") / f"{digest([place])[:24]}.parquet"
    keys = _keys(names)
    digests, known = _look_up(_recall(path), keys, statuses)
    unknown = np.flatnonzero(~known)
    start, done = time.monotonic(), 0
    for part in np.split(unknown, range(KEPT_TOGETHER, len(unknown), KEPT_TOGETHER)):
        new: list[tuple[np.uint64, Status, Digests]] = []
        try:
            with closing(in_threads(lambda i: (i, *read(i)), part.tolist())) as found:
                for i, value, status in found:
                    digests[i] = np.frombuffer(value, np.uint8)
                    if status is not None:
                        new.append((keys[i], status, digests[i]))
                    done += 1
                    if time.monotonic() - start > QUIET_SECONDS:
                        progress(done, len(unknown), "read images")
        finally:
            if new:
                _keep(path, place, np.array(new, ROW))
    return digests


def of_bytes(values: Iterable[bytes]) -> Digests:
    """Digests of what is in memory, (n, SIZE)."""
    return np.frombuffer(b"".join(map(one, values)), np.uint8).reshape(-1, SIZE)


def one(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()[:SIZE]  # twice as fast as BLAKE2b on most processors


def _recall(path: Path) -> NDArray[np.void]:
    """What is kept at `path`, in ROWs; nothing where that cannot be read."""

    def read(path: Path) -> NDArray[np.void]:
        columns, _ = arrays.read(path)
        rows = np.empty(len(columns["key"]), ROW)
        for name in COLUMNS:
            rows[name] = columns[name]
        return rows

    found = cached(path, read)
    return np.empty(0, ROW) if found is None else found


def _look_up(
    memory: NDArray[np.void], keys: NDArray[np.uint64], statuses: NDArray[np.int64]
) -> tuple[Digests, NDArray[np.bool_]]:
    """Digests (n, SIZE) by name, and whether they are known (n,) for these statuses."""
    if not len(memory):
        return np.zeros((len(keys), SIZE), np.uint8), np.zeros(len(keys), bool)
    rows = memory[np.searchsorted(memory["key"], keys).clip(max=len(memory) - 1)]
    known = (rows["key"] == keys) & (rows["status"] == statuses).all(axis=1)
    return np.array(rows["digest"]), known


def _keep(path: Path, place: str, new: NDArray[np.void]) -> None:
    """Add rows to what is kept at `path`, by now perhaps by another process."""
    rows = np.concatenate([new, _recall(path)])
    rows = rows[np.unique(rows["key"], return_index=True)[1]]
    with suppress(WriteError):
        columns = {name: np.ascontiguousarray(rows[name]) for name in COLUMNS}
        arrays.write(path, columns, {"data": place})


def keep_set(fingerprint: str, name: str, digests: Digests) -> None:
    """Keep the digests of a set of images, to say later which of them differ."""
    if digests.size and kept_set(fingerprint) is None:
        with suppress(WriteError):
            arrays.write(_of_set(fingerprint), {"digest": digests}, {"data": name})


def kept_set(fingerprint: str) -> Digests | None:
    """The digests of a set of images, if they are kept."""
    return cached(_of_set(fingerprint), lambda path: cast(Digests, arrays.read(path)[0]["digest"]))


def _of_set(fingerprint: str) -> Path:
    return cache_folder("contents") / f"{digest(['set', fingerprint])[:24]}.parquet"


def _keys(names: Sequence[str]) -> NDArray[np.uint64]:
    encoded = (name.encode("utf-8", "surrogateescape") for name in names)
    keys = b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in encoded)
    return np.frombuffer(keys, np.uint64)


def _status(path: str) -> Status:
    try:
        return status_of(os.stat(path))  # noqa: PTH116  (a third of pathlib's time)
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(path: str) -> tuple[bytes, Status | None]:
    now = time.time_ns()
    try:
        with Path(path).open("rb", buffering=0) as file:
            before = status_of(os.fstat(file.fileno()))
            value = one(file.readall())
            after = status_of(os.fstat(file.fileno()))
    except OSError as error:
        raise _unreadable(path, error) from error
    return value, before if before == after and not may_change_unseen(before, now) else None


def _unreadable(path: str, error: OSError) -> DataError:
    return DataError(
        f"cannot read {path}: {error.strerror or error}",
        "Repair or remove it, or leave such images out: --skip-broken.",
    )


def in_threads(work: Callable[[int], T], items: Sequence[int]) -> Generator[T]:
    """`work` of each item, in order."""
    pool = ThreadPoolExecutor(READERS)
    blocks = [items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE)]
    try:
        for found in pool.map(lambda block: [work(i) for i in block], blocks):
            yield from found
    finally:
        pool.shutdown(cancel_futures=True)
