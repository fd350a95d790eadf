"""On a terminal tables have the columns that fit: no row and no word is broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from kt_cli.cli import screen

Kt = Callable[..., tuple[int, str, str]]
SaveTiny = Callable[..., str]
WIDTHS = [80, 120]
HEADERS = ("model", "top-1 %", "95% interval", "only it knows %")


def terminal(width: int) -> Console:
    return Console(width=width, force_terminal=True, color_system=None, highlight=False)


def drawn(width: int, rows: list[tuple[str, ...]], headers: tuple[str, ...] = HEADERS) -> list[str]:
    console = terminal(width)
    with console.capture() as captured:
        console.print(screen.table(headers, rows, console=console))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_headers_break_first_then_the_last_columns_go() -> None:
    row = ("vit_base_patch16_clip_224", "85.10", "84.79–85.41", "3.20")
    whole, broken, fewer = (drawn(width, [row]) for width in (80, 52, 45))
    assert whole == [
        "model                      top-1 %  95% interval  only it knows %",
        "vit_base_patch16_clip_224    85.10   84.79–85.41             3.20",
    ]
    assert broken[-1] == "vit_base_patch16_clip_224  85.10  84.79–85.41   3.20"
    assert "vit_base_patch16_clip_224  85.10  84.79–85.41" in fewer
    assert " ".join(fewer[-2:]) == "In a wider terminal, or piped: only it knows %"


def test_prose_alone_is_broken_between_words() -> None:
    said = "the loss is nan at update 12 (epoch 1). Try a smaller learning rate, or --amp-dtype."
    lines = drawn(60, [("transfer", "3", said)], ("stage", "runs", "error"))
    assert " ".join(" ".join(lines[1:]).split()) == f"transfer 3 {said}"
    assert all(len(line) <= 60 for line in lines)


def test_what_goes_to_a_pipe_is_whole() -> None:
    row = ("m" * 90, "85.10", "84.79–85.41", "3.20")
    console = Console(width=80, force_terminal=False)
    table = screen.table(HEADERS, [row], console=console)
    assert len(table.columns) == 4 and table.width is not None and table.width > 90


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(screen, "out", terminal(request.param))
    return int(request.param)


def test_main_screens(
    kt: Kt, save_tiny: SaveTiny, tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["a_model_with_quite_a_long_name_of_its_own", "b", "c"]
    models = [save_tiny(tmp_path / "zoo" / name, seed=seed) for seed, name in enumerate(names)]
    images = ("--data", "digits", "--limit", "60")
    quick = ("--epochs", "1", "--crop", "1.0", "--side", "32", "--augment", "none")
    sweep = ("sweep", "--models", ",".join(models[:2]), *images, *quick, "--name", "s",
             "--pairs", "1", "--executor", "inline")  # fmt: skip
    for command in (
        ("complementarity", *models, *images, "--samples", "2"),
        ("transfer", *models[:2], *images, *quick, "-o", "out"),
        (*sweep, "--dry-run"),
        sweep,
        ("status",),
        ("report", "results/s"),
        ("report", "results/s", "--table", "matrix"),
        ("cache", "ls"),
        ("models", "--top", "5"),
        ("models", "zoo"),
        ("doctor", "--limit", "1"),
    ):
        code, out, err = kt(*command)
        assert code == 0 or command[0] == "doctor", err
        assert out and max(map(len, out.splitlines())) <= width, command
        assert "…" not in out
