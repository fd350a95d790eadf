"""What is printed to be typed: commands that a shell reads as meant, and paths that are there."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from kt_cli.errors import command, near

Kt = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", ["a b", "it's", 'x"y', "$HOME", "`ls`;#", "-o", "plain"])
def test_commands_are_read_as_meant(name: str) -> None:
    words = shlex.split(command("status", Path(name), "-o", Path("/r s") / name))
    assert [Path(word) for word in words[2::2]] == [Path(name), Path("/r s") / name]
    assert not words[2].startswith("-")


def test_paths_nearly_so(tmp_path: Path) -> None:
    (tmp_path / "image net" / "val").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    meant = f"Did you mean '{tmp_path}/image net'? Or not."
    assert near(tmp_path / "imagenet", "Or not.") == meant
    assert near(tmp_path / "imagenet" / "val" / "deeper", "Or not.") == meant
    assert near(tmp_path / "quite different", "Or not.") == "Or not."


@pytest.mark.parametrize(
    "asked",
    [
        (
            "complementarity",
            "predictions:{}/said.csv",
            "predictions:{}/more.csv",
            "--data",
            "{}/photoz",
        ),
        ("complementarity", "random:test_vit", "random:test_resnet", "predictions:{}/said.cvs"),
        ("complementarity", "test_vit@{}/weight.pth", "random:test_vit"),
        ("complementarity", "local-dir:{}/photoz", "random:test_vit"),
        ("complementarity", "@{}/list.tx", "random:test_vit"),
        ("sweep", "{}/sweep.tml"),
        ("report", "{}/photoz"),
        ("status", "-o", "{}/photoz"),
        ("models", "list", "{}/photoz"),
    ],
)
def test_commands_say_what_was_meant(kt: Kt, tmp_path: Path, asked: tuple[str, ...]) -> None:
    (tmp_path / "photos/a").mkdir(parents=True)
    for name in ("said.csv", "more.csv", "weights.pth", "list.txt", "sweep.toml"):
        (tmp_path / name).write_text(name)
    code, _, err = kt(*(word.replace("{}", str(tmp_path)) for word in asked))
    assert code == 2 and "Did you mean" in err and str(tmp_path) in err.partition("Did you")[2]
