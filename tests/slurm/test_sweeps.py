"""Sweeps through a real Slurm, undisturbed and disturbed: always the planned rows, none twice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from real_sweep import Sweep, same_rows, slurm_answers, wait_for

from kt_cli.settings import DataSpec, SlurmSpec, TransferSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps import cluster
from kt_cli.sweeps.slurm import Submitter
from kt_cli.sweeps.worker_log import told
from kt_cli.zoo import imagenet_facts

pytestmark = pytest.mark.slurm


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def worker_of(task: str, sweep: Sweep) -> int:
    log = sweep.results / "logs" / f"{task}_0_log.out"
    wait_for(lambda: told(log).process)
    process = told(log).process
    assert process is not None
    return process


def busy(sweep: Sweep, count: int) -> list[str]:
    """JOB_TASK of `count` jobs that are at a run."""
    logs = sweep.results / "logs"

    def working() -> list[str]:
        return [t for t in sweep.tasks("RUNNING") if told(logs / f"{t}_0_log.out").runs]

    wait_for(lambda: len(working()) >= count)
    return working()[:count]


def start_at_once(sweep: Sweep) -> None:
    """Slurm holds a requeued job back for two minutes."""
    for task in sweep.tasks("PENDING"):
        subprocess.run(["scontrol", "update", f"JobId={task}", "StartTime=now"], check=False)


def test_a_whole_sweep_gives_the_rows_of_a_local_one(local: Sweep, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, tmp_path / "cache")
    _, err = sweep.finish(sweep.on_slurm())
    assert "8 jobs of 60 min, one GPU" in err
    same_rows(sweep, local)
    _, err = sweep.finish(sweep.on_slurm())
    assert "Nothing to do" in err


def test_eight_at_a_time_each_with_its_own_device(sweep: Sweep, local: Sweep) -> None:
    process = sweep.on_slurm("--seeds", "0,1,2")
    wait_for(lambda: len(sweep.tasks("RUNNING")) == 8)
    shown = run("scontrol", "show", "job", "-d")
    devices = re.findall(r"GRES=gpu:1\(IDX:(\d)\)", shown)
    assert len(devices) == len(set(devices)) == 8
    assert sweep.tasks("PENDING")
    sweep.finish(process)
    assert len(sweep.rows("transfer")) == 9


def test_preempted_jobs_go_on(sweep: Sweep, local: Sweep) -> None:
    process = sweep.on_slurm()
    tasks = busy(sweep, 3)
    for task in tasks:
        run("scancel", "--signal=USR2", task)
    wait_for(lambda: set(tasks) & set(sweep.tasks("PENDING")))
    start_at_once(sweep)
    wait_for(lambda: not (start_at_once(sweep) or sweep.tasks("PENDING")), 200)
    sweep.finish(process)
    same_rows(sweep, local)
    assert (sweep.rows("transfer")["attempt"] == 1).all()


def test_cancelled_jobs_and_killed_workers_are_done_again(sweep: Sweep, local: Sweep) -> None:
    process = sweep.on_slurm()
    tasks = busy(sweep, 3)
    run("scancel", *tasks[:2])
    os.kill(worker_of(tasks[2], sweep), signal.SIGKILL)
    sweep.finish(process)
    same_rows(sweep, local)
    assert sweep.rows("transfer")["attempt"].max() == 2


def test_daemons_that_restart_cost_nothing(sweep: Sweep, local: Sweep) -> None:
    process = sweep.on_slurm()
    busy(sweep, 2)
    for daemon in ("slurmctld", "slurmd"):
        pid = int(Path(f"/run/{daemon}.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists())
        run(daemon)
        wait_for(slurm_answers)
    sweep.finish(process)
    same_rows(sweep, local)


def test_a_login_that_is_lost_and_one_that_detaches(sweep: Sweep, local: Sweep) -> None:
    process = sweep.on_slurm()
    busy(sweep, 1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "kt status small" in err and "kt cancel small" in err
    out, _ = sweep.finish(sweep.start(command=("status", "small")))
    assert re.search(r"transfer +3 ", out), out
    # Jobs are there: they are not submitted again.
    before = len(list((sweep.results / "jobs").glob("*.json")))
    sweep.finish(sweep.on_slurm("--detach"))
    assert len(list((sweep.results / "jobs").glob("*.json"))) == before
    sweep.finish(sweep.on_slurm())
    same_rows(sweep, local)


def test_kt_cancel_ends_everything_and_counts_nothing(sweep: Sweep, local: Sweep) -> None:
    sweep.finish(sweep.on_slurm("--detach"))
    busy(sweep, 1)
    sweep.finish(sweep.start(command=("cancel", "small")))
    wait_for(lambda: not sweep.tasks("PENDING", "RUNNING", "COMPLETING"))
    sweep.finish(sweep.on_slurm())
    same_rows(sweep, local)
    assert (sweep.rows("transfer")["attempt"] == 1).all()


def test_two_sweeps_at_once_submit_once(sweep: Sweep, local: Sweep) -> None:
    for process in [sweep.on_slurm(), sweep.on_slurm()]:
        sweep.finish(process)
    same_rows(sweep, local)
    assert len(list((sweep.results / "jobs").glob("transfer-*.json"))) == 1


def test_squeue_that_fails_and_no_sacct(sweep: Sweep, local: Sweep, tmp_path: Path) -> None:
    fails = tmp_path / "fails"
    fails.mkdir()
    for command in ("squeue", "sacct"):
        path = fails / command
        real = subprocess.run(["which", command], capture_output=True, text=True).stdout.strip()
        path.write_text(f'#!/bin/sh\n[ -e {tmp_path}/works ] || exit 1\nexec {real} "$@"\n')
        path.chmod(0o755)
    process = sweep.on_slurm(PATH=f"{fails}{os.pathsep}{os.environ['PATH']}")
    wait_for(lambda: len(sweep.rows("transfer")) == 3)
    assert process.poll() is None
    (tmp_path / "works").touch()
    sweep.finish(process)
    same_rows(sweep, local)


def test_results_that_cannot_be_written_for_a_while(
    local: Sweep, tmp_path: Path, small_disk: Callable[..., Path]
) -> None:
    disk = small_disk("40m", "results")
    sweep = Sweep(tmp_path, local.cache)
    run("cp", "-r", str(local.results), str(sweep.results))
    run("rm", "-r", str(sweep.results / "transfer"))
    process = sweep.on_slurm()
    busy(sweep, 1)
    # A tmpfs in use cannot shrink, and logs are open for writing: it is filled instead.
    subprocess.run(["dd", "if=/dev/zero", f"of={disk}/filler"], capture_output=True)
    wait_for(lambda: not sweep.tasks("RUNNING", "PENDING", "COMPLETING"), 200)
    (disk / "filler").unlink()
    process.communicate(timeout=300)
    sweep.finish(sweep.on_slurm())
    same_rows(sweep, local)
    sweep.cancel_all()


def test_rows_that_are_read_only_for_a_while(
    sweep: Sweep, local: Sweep, read_only: Callable[[Path], AbstractContextManager[None]]
) -> None:
    with read_only(sweep.results / "transfer"):
        _, err = sweep.finish(sweep.on_slurm(), code=1)
        assert "Read-only file system" in err
    sweep.finish(sweep.on_slurm())
    same_rows(sweep, local)
    assert (sweep.rows("transfer")["attempt"] == 1).all()


def test_all_pairs_of_300_models_are_taken_in_less_than_a_minute(tmp_path: Path) -> None:
    models = [Model(name, f"py:nothing:{name}", name) for name in imagenet_facts.top(300)]
    spec, data = TransferSpec(), DataSpec(str(tmp_path / "nowhere"))
    runs = [Run("transfer", (t, s), "train", spec, data)
            for s in models for t in models if t is not s]  # fmt: skip
    limits = cluster.look_at()
    assert limits is not None and limits.array_size == 1000
    began = time.monotonic()
    submitter = Submitter(tmp_path / "x", SlurmSpec(gpus=1, time=60), limits)
    submitted = submitter.stage("transfer", runs, [1.0] * len(runs))
    try:
        assert time.monotonic() - began < 60
        states = cluster.active([submitted.job])
        assert states is not None and len(states[submitted.job]) >= 990
        assert submitted.edges[-1] == 89_700
    finally:
        assert cluster.cancel([submitted.job])
    wait_for(lambda: not cluster.active([submitted.job]))
