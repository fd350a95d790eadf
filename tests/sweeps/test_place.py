"""Folders of results whose paths are patterns to whoever writes logs there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kt_cli as kt_api
from kt_cli.errors import UsageError, WriteError
from kt_cli.progress import Listener
from kt_cli.sweeps import cluster, slots
from kt_cli.sweeps.config import to_toml
from kt_cli.sweeps.place import INLINE, LOCAL, SLURM, Place, chosen
from kt_cli.sweeps.session import Session

Kt = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", ["results%j", "%A/x", "50%", "a\\b", "a\nb", "a\udce9"])
def test_paths_that_stand_for_others_are_refused_by_slurm(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="the logs of jobs cannot be in "):
        Place(SLURM).require_logs(tmp_path / name)
    for executor in (LOCAL, INLINE):
        Place(executor).require_logs(tmp_path / name)


@pytest.mark.parametrize("name", ["a b", "it's", 'a"b', "$HOME", "-o", "r\u00e9sultats", "#1;x"])
def test_other_names_are_names(tmp_path: Path, name: str) -> None:
    for executor in (LOCAL, SLURM):
        Place(executor).require_logs(tmp_path / name)


@pytest.mark.parametrize(
    ("executor", "processes", "job", "wanted"),
    [("auto", None, None, SLURM), ("auto", 2, None, LOCAL), ("auto", None, "7", LOCAL),
     ("slurm", 2, "7", SLURM), ("inline", None, None, INLINE)],
)  # fmt: skip
def test_a_cluster_is_chosen_unless_processes_of_this_machine_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, executor: str, processes: int | None, job: str | None,
    wanted: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(cluster, "is_there", lambda: True)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    assert chosen(executor, processes) == wanted
    monkeypatch.setattr(cluster, "is_there", lambda: False)
    assert chosen(executor, processes) == (LOCAL if executor == "auto" else executor)


@pytest.mark.parametrize("executor", [LOCAL, INLINE])
def test_gpus_at_once_are_kept_with_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    """Whoever goes on by the file of the folder has as many; in this process all cores are one."""
    monkeypatch.setattr(slots.cpu, "cores", lambda: 8)
    monkeypatch.setattr(slots.cpu, "threads_asked", lambda: None)
    seen: list[Session] = []
    tell = Listener(plan=lambda session, stages: seen.append(session))
    how: dict[str, Any] = {"output": tmp_path, "executor": executor, "dry_run": True, "tell": tell}
    kt_api.sweep(models=["random:test_vit", "random:test_resnet"], data="digits", gpus=4, **how)
    text = to_toml(seen[0].spec)
    assert "gpus = 4" in text
    (tmp_path / "again.toml").write_text(text)
    kt_api.sweep(tmp_path / "again.toml", **how)
    for session in seen:
        count, threads = (4, 2) if executor == LOCAL else (1, 8)
        assert [slot.threads for slot in session.slots] == count * [threads]


def test_a_folder_below_a_file_is_refused_by_a_plan_too(kt: Kt, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    asked = ("sweep", "--models", "random:test_vit,random:test_resnet", "--data", "digits")
    for output in (tmp_path / "file", tmp_path / "file" / "deeper"):
        code, _, err = kt(*asked, "-o", str(output), "--executor", "local", "--dry-run")
        assert code == 2 and f"{tmp_path / 'file'} is not a folder" in err.replace("\n", " ")


def test_a_folder_that_cannot_be_named_is_an_error_of_kt(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="too long"):
        Place().require_logs(tmp_path / ("x" * 300))
