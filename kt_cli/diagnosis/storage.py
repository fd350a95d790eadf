"""The cache and the disks that kt writes to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from kt_cli import cache
from kt_cli.diagnosis.finding import Asked, Finding, green, red, yellow
from kt_cli.errors import WriteError, counted, size_text
from kt_cli.files import atomic_file, free_space
from kt_cli.zoo.prefetch import hub_folder

GB = 10**9
LITTLE, NOTHING = 20 * GB, 1 * GB


def kept(asked: Asked) -> Iterator[Finding]:
    """The cache: whether it can be written, its size, and what of it is damaged."""
    root = cache.root()
    entries = cache.entries()
    size = sum(entry.bytes for entry in entries)
    try:
        with atomic_file(root / ".doctor") as temporary:
            temporary.write_bytes(b"kt")
        (root / ".doctor").unlink(missing_ok=True)
    except WriteError as error:
        yield red(
            f"{error.message} (the cache)",
            "Let KT_CACHE name a folder of your own, for jobs on a cluster one that nodes share.",
        )
        return
    yield green(f"{root}: {counted(len(entries), 'entry', 'entries')}, {size_text(size)}, writable")
    broken = [entry for entry in entries if entry.fault]
    if broken:
        one = f"{broken[0].path.name}: {broken[0].fault}"
        yield yellow(
            f"{counted(len(broken), 'entry', 'entries')} cannot be read, such as {one}",
            "kt cache verify --remove; they are computed again.",
        )
    left = [e.bytes for e in entries if e.kind == cache.UNFINISHED and not e.in_use]
    if left:
        yield yellow(
            f"{counted(len(left), 'unfinished entry', 'unfinished entries')} of killed processes "
            f"({size_text(sum(left))})",
            "kt cache rm --kind unfinished",
        )


def disks(asked: Asked) -> Iterator[Finding]:
    """Space where results, predictions, weights and temporary files go; once for each disk."""
    places = {
        "this folder (results)": Path.cwd(),
        "KT_CACHE": cache.root(),
        "the hub's cache (HF_HOME)": hub_folder(),
        "TMPDIR": Path(tempfile.gettempdir()),
    }
    by_disk: dict[int, dict[str, Path]] = {}
    for name, path in places.items():
        there = next(p for p in (path, *path.absolute().parents) if p.exists())
        by_disk.setdefault(there.stat().st_dev, {})[name] = there
    for folders in by_disk.values():
        free = free_space(next(iter(folders.values())))
        said = f"{free / GB:.1f} GB free for {', '.join(folders)}"
        if free < NOTHING:
            yield red(said, "Free some space: kt cache rm --older-than 30d; or move the folder.")
        elif free < LITTLE:
            yield yellow(said, "Little for many models: kt cache ls, kt models prefetch --dry-run.")
        else:
            yield green(said)
