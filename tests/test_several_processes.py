"""Several processes at what a sweep and the cache share: nothing is lost, torn or done twice.

Rows, and arrays of the cache, are hammered in rows/test_hammer.py.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from kt_cli import files
from kt_cli.sweeps import jobs
from tests.several import PROCESSES, hammer

TURNS = 50


def _hurry() -> None:
    """Without waiting for a disk processes meet more often."""
    files._fsync = lambda path: None  # type: ignore[assignment]


def _save(me: int, folder: Path) -> None:
    """As jobs do that met the same run, and save its student."""
    _hurry()
    for _ in range(4 * TURNS):
        with files.atomic_folder(folder / "student") as temporary:
            for name in ("config.json", "weights"):
                (temporary / name).write_text(str(me))


def test_processes_that_save_one_folder_leave_a_whole_one(tmp_path: Path) -> None:
    hammer(_save, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
    said = {path.name: path.read_text() for path in (tmp_path / "student").iterdir()}
    assert said.keys() == {"config.json", "weights"} and len(set(said.values())) == 1


def _lead(me: int, folder: Path, gone: int) -> None:
    """Leads again and again, and leaves the claim of a dead process each other time."""
    path, tally = folder / "jobs" / "claim", folder / "tally"
    led = 0
    while led < TURNS:
        with jobs.claim(folder) as mine:
            if mine:
                before = int(tally.read_text())
                tally.write_text(str(before + 1))
                led += 1
        if mine and led % 2:
            with suppress(FileExistsError), path.open("x") as claim:
                claim.write(f"{socket.gethostname()} {gone} step of {me} {led}\n")


def test_one_process_leads_at_a_time_whoever_dies(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "tally").write_text("0")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    hammer(_lead, tmp_path, gone.pid)
    assert int((tmp_path / "tally").read_text()) == PROCESSES * TURNS
    with jobs.claim(tmp_path) as mine:
        assert mine
    assert not list((tmp_path / "jobs").iterdir())


def test_a_claim_that_was_taken_over_is_left_to_who_has_it(tmp_path: Path) -> None:
    """From a process that slept for long: its machine did, or it was stopped."""
    path = tmp_path / "jobs" / "claim"
    with ExitStack() as later:
        with jobs.claim(tmp_path) as first:
            os.utime(path, (0, 0))
            second = later.enter_context(jobs.claim(tmp_path, jobs.LOCAL))
            assert first and second
        assert path.exists()
    assert not path.exists()


def _submit(me: int, folder: Path) -> None:
    """Submits, and writes down what becomes of it."""
    _hurry()
    for turn in range(TURNS):
        job = f"{me + 1}{turn:03}"
        for state in (jobs.OPEN, jobs.OVER):
            about = jobs.Submitted("predict", "models", job, "m", (0, 1), turn, state=state)
            jobs.keep(folder, about)
            mine = [s for s in jobs.listed(folder) if s.job[0] == job[0]]
            assert mine[-1] == about and len(mine) == turn + 1


def test_no_submission_is_lost(tmp_path: Path) -> None:
    hammer(_submit, tmp_path)
    assert [s.state for s in jobs.listed(tmp_path)] == [jobs.OVER] * PROCESSES * TURNS


def _record(me: int, folder: Path) -> None:
    """Writes down a sweep of its own where nobody else is at work, and reads all the while."""
    from kt_cli.report.planned import Planned
    from kt_cli.settings import SweepSpec
    from kt_cli.sweeps.config import build, read_file
    from kt_cli.sweeps.session import Session

    _hurry()
    spec = SweepSpec("x", models=("a", "b"), seeds=(me,))
    models = [SimpleNamespace(key=f"{me}-{i}") for i in range(9)]
    planner = SimpleNamespace(models=lambda: models, drawn=lambda: [(f"{me}", f"{me}")])
    images = SimpleNamespace(eval=SimpleNamespace(fingerprint="e"))
    known = {"costs": object, "data": images, "_transfers": False, "at_once": 1}
    session = cast(Session, SimpleNamespace(spec=spec, folder=folder, planner=planner, **known))
    recorded = 0
    while recorded < TURNS:
        with jobs.claim(folder, jobs.LOCAL) as mine:
            if mine:
                Session.record(session, [])
                recorded += 1
                planned = Planned.of(folder)
                assert planned.values["seed"] == {me} and f"{me}-0" in planned.values["model_key"]
                assert planned.pairs == {(f"{me}", f"{me}")}
        if (folder / "models.json").exists():  # written after the other
            assert build(read_file(folder / "sweep.toml"), "x").seeds[0] in range(PROCESSES)
            assert len(json.loads((folder / "models.json").read_text())) == 9


def test_what_is_written_down_of_a_sweep_is_whole(tmp_path: Path) -> None:
    hammer(_record, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"jobs", "models.json", "plan.json", "sweep.toml"}


def _ask(me: int, cache: Path) -> None:
    """Needs what the others need too, and now and then clears the cache."""
    import torch

    from kt_cli.distillation.partition import SampleStats
    from kt_cli.distillation.target_cache import Disk, TeacherOutputs

    os.environ["KT_CACHE"] = str(cache)
    _hurry()
    for turn in range(TURNS):
        logits = torch.full((9, 3), float(turn % 5))
        made = TeacherOutputs(logits.half(), SampleStats.of(logits, torch.zeros(9).long()))
        found = Disk().get(f"{turn % 5}" * 24, lambda made=made: made).tensors()
        assert all(torch.equal(found[name], value) for name, value in made.tensors().items())
        for path in (cache / "targets").iterdir() if turn % PROCESSES == me else ():
            path.unlink(missing_ok=True)


def test_processes_that_keep_and_clear_targets_have_what_they_asked_for(tmp_path: Path) -> None:
    hammer(_ask, tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))
