"""Names of folders with brackets are shown as they are: they are no markup."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Kt = Callable[..., tuple[int, str, str]]
SaveTiny = Callable[..., str]


def test_models_and_pairs(kt: Kt, save_tiny: SaveTiny, tmp_path: Path) -> None:
    names = ("[bold]a", "b[red]")
    models = [save_tiny(tmp_path / name, seed=seed) for seed, name in enumerate(names)]
    code, out, err = kt("complementarity", *models, "--data", "digits", "--limit", "50")
    assert code == 0, err
    assert "[bold]a → b[red]\n" in out and "b[red] → [bold]a\n" in out
    assert all(any(line.startswith(name) for line in out.splitlines()) for name in names)


def test_the_plan_and_the_state_of_a_sweep(
    kt: Kt, save_tiny: SaveTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models = ",".join(save_tiny(tmp_path / name, seed=seed) for seed, name in enumerate("ab"))
    asked = ("--models", models, "--data", "digits", "--limit", "20", "--pairs", "0",
             "--name", "[red]x", "-o", "[bold]", "--executor", "inline")  # fmt: skip
    code, out, err = kt("sweep", *asked, "--dry-run")
    assert code == 0, err
    assert "[red]x: 2 models" in out and "results: [bold]/[red]x" in out
    assert kt("sweep", *asked)[0] == 0
    code, out, _ = kt("status", "-o", "[bold]")
    assert code == 0 and f"[red]x: {tmp_path}/[bold]/[red]x" in out
