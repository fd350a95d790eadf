"""Many downloads at a time, which Ctrl-C ends at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import TypeVar

NAME = "kt-download"
T = TypeVar("T")
U = TypeVar("U")


def each(
    items: Sequence[T], work: Callable[[T], U], jobs: int
) -> Iterator[tuple[T, U | Exception]]:
    """Each item with what `work` gave or raised, as they finish, `jobs` at a time.

    Where the caller stops asking, nothing more is begun. An executor would be waited for at exit.
    """
    todo = deque(items)
    done: SimpleQueue[tuple[T, U | Exception]] = SimpleQueue()

    def run() -> None:
        while True:
            try:
                item = todo.popleft()
            except IndexError:  # nothing is left
                return
            try:
                done.put((item, work(item)))
            except Exception as error:  # judged by whoever asked
                done.put((item, error))

    for _ in range(min(jobs, len(items))):
        threading.Thread(target=run, name=NAME, daemon=True).start()
    try:
        for _ in items:
            yield done.get()
    finally:
        todo.clear()
