"""How the library says how far it is. Only `kt_cli.cli` draws."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def __call__(self, done: int, total: int, what: str) -> None:
        """`done` of `total` units of `what` are finished. Cheap: it may be called often."""


def silent(done: int, total: int, what: str) -> None:
    """Say nothing."""
