"""How the library says how far it is and what happens. Only `kt_cli.cli` draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# (done, total, what): so many units of `what` are finished. Cheap: it may be called often. What
# follows a colon may change from one call to the next.
Progress = Callable[[int, int, str], None]


def label(stage: str) -> str:
    """What a stage is called for people."""
    return "train the zoo" if stage == "pretrain" else stage


def silent(*told: Any) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Listener:
    """Who hears of a sweep."""

    progress: Progress = silent
    note: Callable[[str], None] = silent  # one line about what happens, which is no result
    plan: Callable[[Any, Any], None] = silent  # the session and its stages, before it begins
    # A `View` of a cluster's jobs, at each look; None when there is nothing more to see.
    jobs: Callable[[Any], None] = silent
    skipped: Callable[[Path, str], None] = silent  # a part of the results, and why
