from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from kt_cli.cli.app import main

Kt = Callable[..., tuple[int, str, str]]


@pytest.fixture
def kt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kt:
    """Run a command in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kt", *arguments])
        try:
            main()
            code = 0
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else 0 if done.code is None else 1
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run
