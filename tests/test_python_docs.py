"""The notebook of docs/python.md, as it stands there."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from kt_cli.errors import KtWarning


def test_the_notebook_runs(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (repository / "docs" / "python.md").read_text(encoding="utf-8")
    cells = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(cells) == 6
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KtWarning)
        for number, cell in enumerate(cells):
            exec(compile(cell, f"docs/python.md, cell {number + 1}", "exec"), names)
    assert (tmp_path / "student" / "model.safetensors").exists()
