"""What was opened is kept for the rest of a command, and looked at again by the next one."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")
_clear: list[Callable[[], None]] = []


def remembered(most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate what opens folders or files: its last `most` answers are kept until `forget`."""

    def decorate(opens: Callable[P, T]) -> Callable[P, T]:
        kept = lru_cache(maxsize=most)(opens)
        _clear.append(kept.cache_clear)
        return cast("Callable[P, T]", kept)

    return decorate


def forget() -> None:
    """Look at folders and files again when they are opened next: they may be others by now."""
    for clear in _clear:
        clear()
