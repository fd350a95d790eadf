from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from kt_cli.diagnosis.finding import Asked, Check, Finding

Look = Callable[..., list[tuple[str, str]]]
Commands = Callable[..., None]


@pytest.fixture
def look() -> Look:
    """Run one check: level and message with advice of each finding."""

    def run(check: Check, asked: Asked | None = None) -> list[tuple[str, str]]:
        said = check(asked or Asked())
        found = [said] if isinstance(said, Finding) else list(said)
        for finding in found:
            assert bool(finding.advice) == (finding.level != "green")
        return [(f.level, f"{f.message} → {f.advice}") for f in found]

    return run


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Nothing but these scripts, and what every shell has, can be called."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def only(scripts: dict[str, str], also: Iterable[str] = ()) -> None:
        for name, script in scripts.items():
            path = folder / name
            path.write_text(f"#!/bin/bash\n{script}\n")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", os.pathsep.join([str(folder), *also]))

    return only
