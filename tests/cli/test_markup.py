"""Names of folders with brackets are shown as they are: they are no markup."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from kt_cli.cli import screen

Kt = Callable[..., tuple[int, str, str]]
SaveTiny = Callable[..., str]


def test_models_and_pairs(kt: Kt, save_tiny: SaveTiny, tmp_path: Path) -> None:
    names = ("[bold]a", "b[red]")
    models = [save_tiny(tmp_path / name, seed=seed) for seed, name in enumerate(names)]
    code, out, err = kt("complementarity", *models, "--data", "digits", "--limit", "50")
    assert code == 0, err
    assert "[bold]a → b[red]\n" in out and "b[red] → [bold]a\n" in out
    assert all(any(line.startswith(name) for line in out.splitlines()) for name in names)


def test_classes(kt: Kt, save_tiny: SaveTiny, tmp_path: Path) -> None:
    names = ("[red]cat", "[b]", ":dog:")
    for c, name in enumerate(names):
        for i in range(3):
            path = tmp_path / "data" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (80 * c, 255 - 90 * i, 0)).save(path)
    models = [save_tiny(tmp_path / f"m{seed}", 3, seed) for seed in range(2)]
    asked = ("complementarity", *models, "--data", str(tmp_path / "data"))
    code, out, err = kt(*asked, "--by-position", "--samples", "9")
    assert code == 0, err
    assert all(name in out for name in ("[red]cat", ":dog:"))
    code, _, err = kt(*asked)
    assert code == 2 and all(name in err for name in names)


@pytest.mark.parametrize("text", ["[red]cat", ":dog:"])
def test_tables_and_bars(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    screen.out.print(screen.table((text, text), [(text, text)], title=text))
    assert capsys.readouterr().out.count(text) == 5
    shown = io.StringIO()
    bars = screen._Bars()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screen, "err", screen.console(file=shown, force_terminal=True))
        bars(1, 2, text)
        bars.stop()
    assert text in shown.getvalue()


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
