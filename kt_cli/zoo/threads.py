"""Many downloads at a time, which Ctrl-C ends at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

NAME = "kt-download"
T = TypeVar("T")
U = TypeVar("U")


def each(
    items: Sequence[T], work: Callable[[T], U], jobs: int
) -> Iterator[tuple[T, U | Exception]]:
    """Each item with what `work` gave or raised, as they finish, `jobs` at a time.

    Where the caller stops asking, nothing more is begun. The threads are daemons: an executor's
    would be waited for at exit.
    """
    todo: SimpleQueue[T] = SimpleQueue()
    done: SimpleQueue[tuple[T, U | Exception]] = SimpleQueue()
    for item in items:
        todo.put(item)
    for _ in range(min(jobs, len(items))):
        threading.Thread(target=_work, args=(todo, work, done), name=NAME, daemon=True).start()
    try:
        for _ in items:
            yield done.get()
    finally:
        while _next(todo):
            pass


def _work(
    todo: SimpleQueue[T], work: Callable[[T], U], done: SimpleQueue[tuple[T, U | Exception]]
) -> None:
    while waiting := _next(todo):
        (item,) = waiting
        done.put((item, _outcome(work, item)))


def _outcome(work: Callable[[T], U], item: T) -> U | Exception:
    try:
        return work(item)
    except Exception as error:  # judged by whoever asked
        return error


def _next(queue: SimpleQueue[T]) -> tuple[T] | None:
    try:
        return (queue.get_nowait(),)
    except Empty:
        return None
