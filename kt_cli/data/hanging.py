"""Images that cannot be read any more and raise nothing, as where a file server hangs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kt_cli.data.images import ImageSet
from kt_cli.errors import KtError
from kt_cli.progress import Progress


@contextmanager
def noticed(images: ImageSet, minutes: float | None, progress: Progress) -> Iterator[Progress]:
    """The progress to be told while `images` are read in order; KtError after `minutes` of none.

    Only in the main thread, which alone hears an alarm; a read that no signal interrupts goes on.
    """
    if not minutes or threading.current_thread() is not threading.main_thread():
        yield progress
        return
    read = 0

    def hangs(*_: Any) -> None:
        raise KtError(
            f"reading {images.name} hangs: nothing came for {minutes:g} minutes (--timeout-run) "
            f"after {read:,} of {len(images):,} images; next is {images.ids[read]}",
            "See to its disk or file server; the same command goes on.",
        )

    def told(done: int, total: int, what: str) -> None:
        nonlocal read
        read = min(done, len(images) - 1)
        signal.setitimer(signal.ITIMER_REAL, 60 * minutes * (done < total))
        progress(done, total, what)

    before = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield told
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
