"""The runs of a stage as a file: one JSON line each, read by index."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from kt_cli.files import write_text
from kt_cli.runs.kinds import from_json
from kt_cli.settings.declared import digest
from kt_cli.spec import Run


def write_manifest(folder: Path, runs: Sequence[Run]) -> Path:
    """Write the runs below the results in `folder`; equal runs are the same file.

    Raises:
        WriteError: that is not possible.
    """
    lines = [run.to_json() for run in runs]
    path = folder / "manifests" / f"{runs[0].kind}-{digest(lines)[:12]}.jsonl"
    write_text(path, "\n".join(lines) + "\n")
    return path


def read_manifest(path: Path, start: int = 0, stop: int | None = None) -> list[Run]:
    """The runs `start` to `stop`."""
    with path.open(encoding="utf-8") as lines:
        return [from_json(line) for line in itertools.islice(lines, start, stop)]
