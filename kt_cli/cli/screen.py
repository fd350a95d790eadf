"""What every command shares at the edge: consoles, the progress bar, and errors as two lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from kt_cli.errors import KtError

if TYPE_CHECKING:
    from kt_cli.progress import Progress

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def show_error(error: KtError) -> None:
    err.print(Text.assemble(("Error: ", "bold red"), error.message), soft_wrap=True)
    if error.tip:
        err.print(Text.assemble(("Tip: ", "bold cyan"), error.tip), soft_wrap=True)


def skipped_part(path: Path, reason: str) -> None:
    err.print(Text.assemble(("Skipped ", "yellow"), f"{path}: {reason}"), soft_wrap=True)
