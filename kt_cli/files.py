"""Atomic writes: a file or folder is either there complete, or not there.

The temporary name is unique and in the same directory, so that several processes, also on a
network file system, can write the same target without harm: the last rename wins.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, TypeVar

from kt_cli.errors import WriteError, warn, way_out

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
# What file systems say that do not flush folders.
NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)
MAKE_TRIES = 10
CHECKSUM = "crc32"
GRAIN = 2_000_000_000  # ns: FAT's, the coarsest clock of a file system
Status = tuple[int, int, int, int]


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it is fsynced and renamed to `target`, through a link.

    What stands there and is no file, such as a pipe or a device, is itself yielded.

    Raises:
        WriteError: the file could not be written; nothing is left behind.
    """
    if target.exists() and not target.is_file():
        with writing(target):
            yield target
        return
    target = target.resolve() if target.is_symlink() else target
    temporary = _temporary(target)
    try:
        with writing(target):
            _make(target.parent)
            yield temporary
            _fsync(temporary)
            temporary.replace(target)
            _fsync(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success it replaces `target` as a whole.

    Raises:
        WriteError: the folder could not be written; an earlier `target` is left as it was.
    """
    temporary = _temporary(target)
    outgoing = temporary.with_suffix(".old")
    try:
        with writing(target):
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.rglob("*"):
                _fsync(file)
            _replace_folder(temporary, target, outgoing)
            _fsync(target.parent)
    finally:
        with suppress(OSError):  # also after an interrupt between the two renames
            if not target.exists():
                outgoing.rename(target)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(outgoing, ignore_errors=True)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """What the system refuses is raised as the `write_error` of the target."""
    try:
        yield
    except OSError as error:
        raise write_error(target, error) from error


def _temporary(target: Path) -> Path:
    return target.parent / f".{target.name}.{uuid.uuid4().hex[:12]}.tmp"


def _replace_folder(source: Path, target: Path, outgoing: Path) -> None:
    """Rename `source` to `target`; where another writer was faster, replace what it wrote."""
    while True:
        shutil.rmtree(outgoing, ignore_errors=True)
        with suppress(FileNotFoundError):  # there is none, or another has just moved it
            target.rename(outgoing)
        try:
            source.rename(target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def file_name(text: str) -> str:
    """`text` as the name of a file or folder, with _ for what some file system may refuse."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", text)


def escaped(name: str) -> str:
    r"""The name of a file as text that can be written: bytes that are not UTF-8 as \xe9."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_text(target: Path, text: str) -> None:
    """Write `text` to `target` atomically (UTF-8)."""
    with atomic_file(target) as temporary:
        temporary.write_text(text, "utf-8", "backslashreplace")


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None,
    checksum: bool = False,
) -> None:  # fmt: skip
    """Write tensors as one safetensors file, not atomically, or raise OSError.

    checksum: also write one, for `checked`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Copies: safetensors takes neither shared nor non-contiguous memory.
    values = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    said = {**(metadata or {}), **(with_checksum(values) if checksum else {})}
    try:
        save_file(values, path, metadata=said or None)
    except SafetensorError as error:  # what it makes of a full disk
        raise OSError(str(error)) from error


def with_checksum(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What a file of tensors says of their bytes, so that `checked` finds one that has changed."""
    import zlib

    import torch

    found = 0
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found = zlib.crc32(values.numpy().data, zlib.crc32(name.encode(), found))
    return {CHECKSUM: f"{found:08x}"}


def checked(tensors: dict[str, Tensor], metadata: Mapping[str, str] | None) -> dict[str, Tensor]:
    """Tensors as they were written; ValueError where they are not, or nothing was said of them."""
    if (metadata or {}).get(CHECKSUM) != with_checksum(tensors)[CHECKSUM]:
        raise ValueError("its tensors are not what was written")
    return tensors


def keep_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a file of the cache; where that is not possible, a note says so."""
    try:
        with atomic_file(path) as temporary:
            save_tensors(temporary, tensors, checksum=True)
    except WriteError as error:
        not_kept(error)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors that `keep_tensors` wrote, by name, mapped; ValueError where they changed."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return checked(found, file.metadata())


def _make(folder: Path) -> None:
    """Make a folder, although others may remove an empty one above it at the same time."""
    for _ in range(MAKE_TRIES):
        with suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
    folder.mkdir(parents=True, exist_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno not in NO_FSYNC:
            raise
    finally:
        os.close(descriptor)


def write_error(target: Path, error: OSError) -> WriteError:
    """The error for what could not be written to `target`."""
    said = str(error.strerror or error)
    return WriteError(f"cannot write {target}: {said}", way_out(said))


def cache_folder(kind: str) -> Path:
    """Where `kind` of recomputable files is kept: below KT_CACHE, by default ~/.cache/kt."""
    root = os.environ.get("KT_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "kt") / kind


def not_kept(error: WriteError) -> None:
    """Note, once, that the cache cannot be written: what is computed is used all the same."""
    _note_not_kept(cache_folder("").resolve(), error.message.rpartition(": ")[2])


@cache
def _note_not_kept(folder: Path, why: str) -> None:
    warn(f"the cache {folder} cannot be written ({why}): what it lacks is computed each time.")


def cached(path: Path, read: Callable[[Path], T]) -> T | None:
    """What `read` makes of a file of the cache; None where it is not there, or damaged.

    A damaged one is removed, to be made again; not one that only could not be read now, as with
    too many open files.
    """
    try:
        return read(path)
    except (OSError, MemoryError):
        return None
    except Exception as error:  # a damaged header may raise anything
        if isinstance(cause := error.__cause__, OSError) and cause.errno:
            return None
        with suppress(OSError):
            path.unlink()
        return None


def free_space(folder: Path) -> int:
    """Bytes left on the disk of a folder, which need not be there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def require_writable(target: Path) -> None:
    """Refuse an absolute path where nothing could be saved once the work is done (WriteError)."""
    there = next(folder for folder in target.parents if folder.exists())
    with writing(target):
        TemporaryFile(dir=there).close()


def may_change_unseen(status: Status, now: int) -> bool:
    """Whether a change after `now` (ns since the epoch) could leave a status as it is."""
    return max(status[1:3]) >= now - GRAIN


def status_of(found: os.stat_result) -> Status:
    """Size, times of change in ns, inode. The second time is the system's: nobody can set it."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino % 2**63
