"""Images that cannot be decoded: all of them named at once, or left out."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from kt_cli.data.contents import in_threads, one, remembered
from kt_cli.errors import DataError, some_of
from kt_cli.files import Status, may_change_unseen, status_of

NAMED = 10
SECONDS = 60.0  # that others are looked for once one was met
WHOLE, BROKEN = one(b"whole"), one(b"broken")
TIP = "Repair or remove them, or leave such images out: --skip-broken."
Read = Callable[[int], Image.Image]


def broken_error(name: str, ids: Sequence[str], read: Read, met: DataError) -> DataError:
    """One error for all images of a set that cannot be decoded, where one was `met`."""
    found: list[str] = []
    end = time.monotonic() + SECONDS
    with closing(in_threads(lambda i: _decodes(read, i), range(len(ids)))) as whole:
        for tried, fine in enumerate(whole, 1):
            found += [] if fine else [ids[tried - 1]]
            if time.monotonic() > end:
                break
    if len(found) < 2:
        return met
    count = f"{len(found):,} of {tried:,} images of {name} cannot be decoded"
    return DataError(f"{count}: {some_of(found, NAMED)}; {met.message}", TIP)


def decodable(root: Path, names: Sequence[str], read: Read) -> NDArray[np.bool_]:
    """Which of the files root/name can be decoded, (n,); remembered as their contents are."""
    statuses = np.array([_status(f"{root}/{name}") for name in names], np.int64).reshape(-1, 4)

    def look(i: int) -> tuple[bytes, Status | None]:
        now, status = time.time_ns(), _status(f"{root}/{names[i]}")
        value = WHOLE if _decodes(read, i, asked=True) else BROKEN
        return value, None if may_change_unseen(status, now) else status

    place = f"decoded by PIL {PIL.__version__}: {os.path.realpath(root)}"
    found = remembered(place, names, statuses, look)
    return np.asarray((found == np.frombuffer(WHOLE, np.uint8)).all(axis=1))


def _status(path: str) -> Status:
    try:
        return status_of(os.stat(path))  # noqa: PTH116  (a third of pathlib's time)
    except OSError:
        return 0, 0, 0, 0


def _decodes(read: Read, i: int, asked: bool = False) -> bool:
    """Whether an image is one; DataError, where that is `asked`, if its disk does not answer."""
    try:
        read(i)
    except DataError as error:
        # What the system refuses has a number; a link may lead nowhere.
        met = error.__cause__
        if asked and isinstance(met, OSError) and met.errno not in (None, errno.ENOENT):
            said = f"cannot read {met.filename}: {met.strerror}"
            raise DataError(said, "See to its disk.") from error
        return False
    return True
