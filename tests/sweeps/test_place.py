"""Folders of results whose paths are patterns to whoever writes logs there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kt_cli.errors import UsageError
from kt_cli.sweeps.place import INLINE, LOCAL, SLURM, Place

Kt = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", ["results%j", "%A", "a%t", "%a/x"])
def test_paths_with_numbers_of_jobs_are_refused(tmp_path: Path, name: str) -> None:
    for executor in (LOCAL, SLURM):
        with pytest.raises(UsageError, match=f"logs of jobs cannot be in .*: %{name[-1]}|%"):
            Place(executor).require_logs(tmp_path / name)
    Place(INLINE).require_logs(tmp_path / name)


@pytest.mark.parametrize("name", ["50%", "a\\b", "a\nb", "a\udce9"])
def test_slurm_refuses_more(tmp_path: Path, name: str) -> None:
    Place(LOCAL).require_logs(tmp_path / name)
    with pytest.raises(UsageError):
        Place(SLURM).require_logs(tmp_path / name)


@pytest.mark.parametrize("name", ["a b", "it's", 'a"b', "$HOME", "-o", "r\u00e9sultats", "#1;x"])
def test_other_names_are_names(tmp_path: Path, name: str) -> None:
    for executor in (LOCAL, SLURM):
        Place(executor).require_logs(tmp_path / name)


def test_nothing_is_done_before(kt: Kt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ("sweep", "--models", "random:test_vit,random:test_resnet", "--data", "digits")
    code, _, err = kt(*asked, "--name", "x", "-o", "results%j", "--executor", "local")
    assert code == 2 and "results%j" in err and "--name" in err
    assert not [*tmp_path.iterdir()]
