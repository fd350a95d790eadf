"""What killed writers leave in a folder of results."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

DAY_SECONDS = 24 * 3600


def remove_stale(folder: Path) -> int:
    """Remove temporary files and folders that are older than a day; how many went.

    Younger ones may belong to somebody who is writing.
    """
    count = 0
    # Beside what they become: no deeper, where a zoo may have thousands of folders.
    for path in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]:
        with suppress(OSError):
            if time.time() - path.stat().st_mtime < DAY_SECONDS:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            count += 1
    return count
