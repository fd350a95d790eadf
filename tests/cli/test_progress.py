"""What is seen while a command works."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from kt_cli.cli import screen
from kt_cli.progress import label
from kt_cli.sweeps.chunk import _tell_epochs
from kt_cli.sweeps.worker_log import told

Kt = Callable[..., tuple[int, str, str]]


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(screen, "err", Console(file=text, force_terminal=True, width=100))
    return text


def test_a_command_shows_life_before_its_libraries_are_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = on_terminal(monkeypatch)
    with screen.progress() as progress:
        assert "Starting" in seen.getvalue()
        progress(0, 3, "resnet: epoch")
        progress(1, 3, "resnet: 50.0% right, epoch")
        progress(3, 3, "resnet: 81.2% right, epoch")
    last = seen.getvalue().rpartition("81.2% right, epoch")[2]
    assert "3/3" in last and "left" in last and last.count("0:00:00") == 2


def test_training_shows_model_epoch_and_accuracy(
    kt: Kt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = list[tuple[int, int, str]]()
    monkeypatch.setattr(screen._Lines, "__call__", lambda _, *what: told.append(what))
    code, out, err = kt("pretrain", "test_vit", "--data", "digits", "--img-size", "32",
                        "--side", "32", "--epochs", "2")  # fmt: skip
    assert code == 0, err
    epochs = [what for what in told if what[2].endswith(" epoch") or what[2].endswith(": epoch")]
    assert [what[:2] for what in epochs] == [(0, 2), (1, 2), (2, 2)]
    assert all(what[2].startswith("test_vit: ") for what in epochs)
    share = float(epochs[-1][2].split()[1].rstrip("%"))
    assert 10 < share <= 100 and "2 epochs" in out


def test_workers_of_a_sweep_tell_what_they_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _tell_epochs(3, 20, "resnet: 81.2% right, epoch")
    _tell_epochs(1, 5, "decode training images")
    (tmp_path / "log").write_text(capsys.readouterr().out)
    assert told(tmp_path / "log").doing == "resnet: 81.2% right, epoch 3/20"
    assert label("pretrain") == "train the zoo" and label("pairs") == "pairs"


def test_lines_of_a_log_name_what_is_done_first(capsys: pytest.CaptureFixture[str]) -> None:
    lines = screen._Lines()
    lines(1, 2, "train the zoo: resnet: 81.2% right, epoch 3/20")
    lines(2, 2, "train the zoo")
    lines(2, 2, "train the zoo")
    assert capsys.readouterr().err == "train the zoo: 2/2\n"
    lines._last -= screen.QUIET_SECONDS
    lines(1, 20, "resnet: 81.2% right, epoch")
    assert capsys.readouterr().err == "resnet: 1/20 (81.2% right, epoch)\n"
    lines._last -= screen.QUIET_SECONDS
    lines(0, 2, "zoo:\n  resnet: epoch 0/6\n  vit: epoch 1/6")
    assert capsys.readouterr().err == "zoo: 0/2 (resnet: epoch 0/6; vit: epoch 1/6)\n"
