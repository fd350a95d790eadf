"""Stage after stage on a cluster that is faked: who submits, what is lost, what is seen."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from fake_slurm import FakeSlurm, fake_slurm

from kt_cli.errors import KtError, KtWarning
from kt_cli.rows import store
from kt_cli.runs.kinds import kind_of
from kt_cli.settings import DataSpec, EvalSpec, PairsSpec, SlurmSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps import chunk, cluster, cluster_loop, coordinator, jobs, slurm, worker_log
from kt_cli.sweeps import monitor as watch_module
from kt_cli.sweeps.cluster import Facts
from kt_cli.sweeps.coordinator import BUSY, CLAIMED, FINISHED, SUBMITTED, Coordinator
from kt_cli.sweeps.cost_model import Costs
from kt_cli.sweeps.monitor import Watch
from kt_cli.sweeps.place import Place, choose
from kt_cli.sweeps.schedule import write_manifest
from kt_cli.sweeps.session import DAY_SECONDS, Session, remove_stale
from kt_cli.sweeps.slots import Slot
from kt_cli.sweeps.slurm import Submitter
from kt_cli.sweeps.worker_log import LOST, NOT_REQUEUED, UNWRITABLE

DATA = DataSpec("digits")
MODELS = [Model(f"m{i}", f"m{i}", f"m{i}") for i in range(6)]
RUNS = [Run("predict", (model,), "eval", EvalSpec(), DATA) for model in MODELS]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)
    return fake_slurm(tmp_path / "fake", monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results" / "x"


def row(folder: Path, run: Run, status: str = store.OK, error: str | None = None) -> None:
    said = {"status": status, "attempt": run.attempt, "error": error, "created": "1"}
    store.write(folder, kind_of(run).table, [{"run_id": run.id, **said}])


def planned(folder: Path) -> tuple[str, Sequence[Run]] | None:
    """As the planner does: what has no row with `ok`, three times at most."""
    outcomes = store.Outcomes(folder, "models")
    tries = [
        replace(r, attempt=outcomes.attempts(r.id) + 1) for r in RUNS if not outcomes.done(r.id)
    ]
    left = [run for run in tries if run.attempt <= 3]
    return ("predict", left) if left else None


def coordinating(folder: Path, gpus: int = 1, small: bool = True) -> Coordinator:
    submitter = Submitter(folder, SlurmSpec(gpus=gpus), Facts())
    return Coordinator(
        submitter, lambda: planned(folder), lambda runs: [1.0] * len(runs), ["kt", "sweep"],
        lambda runs: small,
    )  # fmt: skip


def log(folder: Path, submitted: jobs.Submitted, err: str, *told: dict[str, object]) -> None:
    """What the first task told, and its last words."""
    out = "".join(worker_log.line(**what) for what in told)
    for kind, text in (("out", out), ("err", err)):
        path = jobs.log_of(folder, submitted, 0, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_one_step_after_the_other_to_the_end(fake: FakeSlurm, folder: Path) -> None:
    assert coordinating(folder).advance(False) == SUBMITTED
    (submitted,) = jobs.listed(folder)
    assert (submitted.stage, submitted.edges) == ("predict", (0, 3, 6))
    assert fake.submitted == [submitted.job, submitted.continuation]
    fake.queue(f"{submitted.job}|1|RUNNING")
    assert coordinating(folder).advance(False) == BUSY
    for run in RUNS:
        row(folder, run)
    fake.queue()
    assert coordinating(folder).advance(True) == FINISHED
    assert [s.state for s in jobs.listed(folder)] == [jobs.OVER]
    assert len(fake.submitted) == 2


def test_the_job_that_goes_on_is_not_in_its_own_way(
    fake: FakeSlurm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinating(folder).advance(False)
    (submitted,) = jobs.listed(folder)
    row(folder, RUNS[0])
    fake.queue(f"{submitted.continuation}|N/A|RUNNING")
    assert coordinating(folder).advance(True) == BUSY
    monkeypatch.setenv("SLURM_JOB_ID", submitted.continuation)
    assert coordinating(folder).advance(True) == SUBMITTED


def test_what_a_lost_run_took_is_in_its_row(fake: FakeSlurm, folder: Path) -> None:
    coordinating(folder).advance(False)
    (submitted,) = jobs.listed(folder)
    log(folder, submitted, "oom_kill\n", {"runs": [0, 2], "since": 1000.0})
    for kind, last in (("out", 1090), ("err", 1010)):
        os.utime(jobs.log_of(folder, submitted, 0, kind), (last, last))
    assert [row["seconds"] for row in coordinator.lost_rows(folder, submitted)] == [45.0, 45.0]


def test_a_later_attempt_is_made_though_an_earlier_one_was_ok(folder: Path) -> None:
    """As where the weights are gone that a training of the zoo had saved."""
    row(folder, RUNS[0])
    outcomes = store.Outcomes(folder, "models")
    assert chunk.tried(RUNS[0], outcomes)
    assert not chunk.tried(replace(RUNS[0], attempt=2), outcomes)


def test_an_unknown_queue_is_no_empty_one(fake: FakeSlurm, folder: Path) -> None:
    coordinating(folder).advance(False)
    fake.squeue_fails()
    assert coordinating(folder).advance(False) == BUSY
    fake.squeue_fails(False)
    assert coordinating(folder).advance(False) == SUBMITTED


def test_a_job_prepares_what_is_too_much_for_a_login_node(
    fake: FakeSlurm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert coordinating(folder, small=False).advance(False) == SUBMITTED
    (job,) = fake.submitted
    assert "dependency" not in fake.options(job) and "gpus-per-node" not in fake.options(job)
    fake.queue(f"{job}|N/A|RUNNING")
    assert coordinating(folder, small=False).advance(False) == BUSY
    monkeypatch.setenv("SLURM_JOB_ID", job)
    assert coordinating(folder).advance(True) == SUBMITTED
    assert [s.tasks for s in jobs.listed(folder)] == [0, 2]


def test_a_preparation_after_a_cancelled_array_goes_on(
    fake: FakeSlurm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinating(folder).advance(False)
    (submitted,) = jobs.listed(folder)
    jobs.keep(folder, replace(submitted, state=jobs.CANCELLED))
    coordinating(folder, small=False).advance(False)
    monkeypatch.setenv("SLURM_JOB_ID", jobs.listed(folder)[-1].job)
    assert coordinating(folder).advance(True) == SUBMITTED


def test_a_preparation_that_dies_is_not_submitted_for_ever(fake: FakeSlurm, folder: Path) -> None:
    coordinating(folder, small=False).advance(False)
    (submitted,) = jobs.listed(folder)
    log(folder, submitted, "slurmstepd: error: Detected 1 oom_kill event\n")
    with pytest.raises(KtError, match="oom_kill"):
        coordinating(folder, small=False).advance(True)


def test_only_the_runs_that_a_dead_job_was_at_count_as_tried(fake: FakeSlurm, folder: Path) -> None:
    coordinating(folder, gpus=1).advance(False)
    (submitted,) = jobs.listed(folder)
    runs = coordinator.read_manifest(folder / submitted.manifest)
    row(folder, runs[0])
    log(
        folder, submitted,
        "slurmstepd: error: *** STEP CANCELLED ***\nsrun: error: vm: task 0: Killed\n",
        {"process": 7}, {"runs": [0, 1]}, {"runs": [1, 2]},
    )  # fmt: skip
    assert coordinating(folder).advance(True) == SUBMITTED
    outcomes = store.Outcomes(folder, "models")
    assert {r.id for r in RUNS if outcomes.failed(r.id)} == {runs[1].id}
    assert "STEP CANCELLED" in (outcomes.by_id[runs[1].id].error or "")
    first, second = jobs.listed(folder)
    assert (first.state, second.state) == (jobs.OVER, jobs.OPEN)
    attempts = {r.id: r.attempt for r in coordinator.read_manifest(folder / second.manifest)}
    assert attempts == {run.id: 1 + (run == runs[1]) for run in runs[1:]}


def test_a_lost_gpu_is_said_in_the_rows_of_those_that_were_on_it(
    fake: FakeSlurm, folder: Path
) -> None:
    coordinating(folder).advance(False)
    (submitted,) = jobs.listed(folder)
    log(
        folder, submitted, "terminate called after throwing an instance of 'c10::Error'\n",
        {"process": 7}, {"runs": [0, 3]},
        {"end": LOST, "why": "the GPU computes nothing more: assert"},
    )  # fmt: skip
    assert coordinating(folder).advance(True) == SUBMITTED
    outcomes = store.Outcomes(folder, "models")
    runs = coordinator.read_manifest(folder / submitted.manifest)[:3]
    assert {r.id for r in RUNS if outcomes.failed(r.id)} == {r.id for r in runs}
    error = outcomes.by_id[runs[0].id].error or ""
    assert error.startswith("one of 3 that ran together: the GPU computes nothing more: assert")


def test_a_full_disk_is_nobodys_failure(fake: FakeSlurm, folder: Path) -> None:
    coordinating(folder).advance(False)
    (submitted,) = jobs.listed(folder)
    log(folder, submitted, "", {"runs": [0, 1]}, {"end": UNWRITABLE, "why": "cannot write x"})
    row(folder, RUNS[5])
    assert coordinating(folder).advance(True) == SUBMITTED
    outcomes = store.Outcomes(folder, "models")
    assert not any(outcomes.failed(run.id) for run in RUNS)


@pytest.mark.parametrize(
    ("last_words", "told"),
    [("*** JOB 1 CANCELLED DUE TO PREEMPTION ***", []),
     ("*** JOB 1 ON n1 CANCELLED AT 12:00:00 DUE TO NODE FAILURE, SEE SLURMCTLD LOG ***", []),
     ("*** JOB 1 ON n1 CANCELLED AT 2026-11-26T12:00:00 ***", []),
     ("something else", [{"end": NOT_REQUEUED, "why": "Command '['scontrol', …"}])],
)  # fmt: skip
def test_preemption_is_nobodys_failure(
    fake: FakeSlurm, folder: Path, last_words: str, told: list[dict[str, object]]
) -> None:
    """Where the cluster cancels instead of requeueing: however often, the runs go on."""
    for attempt in range(4):
        assert coordinating(folder).advance(True) == SUBMITTED
        submitted = jobs.listed(folder)[-1]
        said = f"slurmstepd: error: {last_words}\n"
        if attempt % 2:  # signals come later, which submitit passes over
            said += "submitit WARNING (2026-01-01 00:00:00,000) - Bypassing signal SIGTERM\n"
            said += "slurmstepd: error: Failed to send MESSAGE_TASK_EXIT: Connection refused\n"
        log(folder, submitted, said, {"runs": [0, 1]}, *told)
    outcomes = store.Outcomes(folder, "models")
    assert not any(outcomes.failed(run.id) for run in RUNS)


def test_a_requeue_that_fails_ends_the_chunk(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """submitit asks for it in a signal handler, wherever the run is."""

    def requeued(*arguments: object) -> None:
        try:
            raise subprocess.CalledProcessError(1, ["scontrol", "requeue", "7"])
        except subprocess.SubprocessError as error:
            raise ValueError("the user's own function failed") from error

    monkeypatch.setattr(chunk, "check_data", requeued)
    manifest = write_manifest(folder, RUNS[:1])
    with pytest.raises(ValueError, match="function failed"):
        chunk.run_chunk(str(manifest), 0, 1, Slot(None), alone=True)
    (folder / "out").write_text(capsys.readouterr().out)
    said = worker_log.told(folder / "out")
    assert (said.process, said.runs, said.end) == (os.getpid(), [0, 1], NOT_REQUEUED)


def test_jobs_of_which_nothing_comes_are_not_submitted_for_ever(
    fake: FakeSlurm, folder: Path
) -> None:
    coordinating(folder).advance(False)
    (submitted,) = jobs.listed(folder)
    log(folder, submitted, "ModuleNotFoundError: No module named 'torch'\n")
    with pytest.raises(KtError, match="No module named 'torch'"):
        coordinating(folder).advance(True)
    # Who types the command again has perhaps mended it.
    assert coordinating(folder).advance(False) == SUBMITTED


def test_attempts_are_bounded(fake: FakeSlurm, folder: Path) -> None:
    for attempt in (1, 2, 3):
        assert coordinating(folder).advance(True) == SUBMITTED
        for run in RUNS:
            row(folder, replace(run, attempt=attempt), store.FAILED, "no")
    assert coordinating(folder).advance(True) == FINISHED


def test_whoever_holds_the_claim_submits(fake: FakeSlurm, folder: Path) -> None:
    with jobs.claim(folder) as mine:
        assert mine
        assert coordinating(folder).advance(False) == CLAIMED
    assert coordinating(folder).advance(False) == SUBMITTED


def test_an_empty_claim_is_void_when_it_is_old(folder: Path) -> None:
    """Its holder died between creating and writing it."""
    path = folder / "jobs" / "claim"
    path.parent.mkdir(parents=True)
    path.touch()
    with jobs.claim(folder) as mine:
        assert not mine
    os.utime(path, (0, 0))
    with jobs.claim(folder) as mine:
        assert mine
    assert list(path.parent.iterdir()) == []


def test_a_claim_that_was_taken_over_stays(folder: Path) -> None:
    """Also before its new holder has written into it."""
    path = folder / "jobs" / "claim"
    for theirs in ("", "elsewhere 1 local 2026-01-01\n"):
        with jobs.claim(folder) as mine:
            assert mine
            path.write_text(theirs)
        assert path.read_text() == theirs
        path.unlink()


def test_a_claim_of_a_process_that_is_gone_refuses_nobody(folder: Path) -> None:
    path = folder / "jobs" / "claim"
    path.parent.mkdir(parents=True)
    path.write_text(f"{socket.gethostname()} {2**22 + 1} local 2026-01-01")
    jobs.refuse(folder, beside="local")
    assert not path.exists()


def test_a_refused_continuation_is_said(
    fake: FakeSlurm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def continuation(*arguments: object) -> str:
        raise KtError("sbatch refuses: access denied")

    monkeypatch.setattr(Submitter, "continuation", continuation)
    one = coordinating(folder)
    assert one.advance(False) == SUBMITTED
    assert one.refusal == "sbatch refuses: access denied"
    (submitted,) = jobs.listed(folder)
    assert (submitted.continuation, submitted.state) == ("", jobs.OPEN)


def test_where_array_and_continuation_are_too_many_the_array_is_smaller(
    fake: FakeSlurm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter([slurm.TooMany("too many"), None])

    def continuation(*arguments: object) -> str:
        refusal = next(refusals)
        if refusal is not None:
            raise refusal
        return "900"

    monkeypatch.setattr(Submitter, "continuation", continuation)
    one = coordinating(folder, gpus=3)
    assert one.advance(False) == SUBMITTED and one.refusal == ""
    given_up, kept = jobs.listed(folder)
    assert (given_up.tasks, given_up.state) == (6, jobs.CANCELLED)
    assert (kept.tasks, kept.state, kept.continuation) == (3, jobs.OPEN, "900")
    assert fake.cancelled == [given_up.job]


def test_a_submission_that_is_cut_off_leaves_no_job(
    fake: FakeSlurm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def continuation(*arguments: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(Submitter, "continuation", continuation)
    with pytest.raises(KeyboardInterrupt):
        coordinating(folder).advance(False)
    (submitted,) = jobs.listed(folder)
    assert fake.cancelled == [submitted.job] and submitted.state == jobs.CANCELLED
    # Nothing counts as tried, and nobody holds the claim.
    monkeypatch.undo()
    with jobs.claim(folder) as mine:
        assert mine


def test_a_continuation_that_was_cancelled_submits_nothing(
    fake: FakeSlurm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinating(folder).advance(False)
    (submitted,) = jobs.listed(folder)
    jobs.keep(folder, replace(submitted, state=jobs.CANCELLED))
    monkeypatch.setenv("SLURM_JOB_ID", submitted.continuation)
    with pytest.raises(KtError, match="were cancelled"):
        coordinating(folder).advance(True)
    assert len(fake.submitted) == 2


def test_the_claim_of_a_dead_process_is_void(folder: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = folder / "jobs" / "claim"
    path.parent.mkdir(parents=True)
    for holder, free in ((f"{socket.gethostname()} {gone.pid}", True), ("elsewhere 1", False)):
        path.write_text(holder)
        with jobs.claim(folder) as mine:
            assert mine == free
    os.utime(path, (0, 0))
    with jobs.claim(folder) as mine:
        assert mine


def test_a_second_sweep_in_one_folder_says_who_is_at_work(
    folder: Path, kt: Callable[..., tuple[int, str, str]]
) -> None:
    command = ("sweep", "--models", "random:test_vit,random:test_resnet", "--data", "digits",
               "--pairs", "0", "--name", "x", "-o", str(folder.parent))  # fmt: skip
    with jobs.claim(folder, jobs.LOCAL) as mine:
        assert mine
        code, _, err = kt(*command)
        assert code == 1 and f"process {os.getpid()} on {socket.gethostname()}, since 2" in err
        assert not (folder / "sweep.toml").exists()
        assert kt(*command, "--dry-run")[0] == 0
        jobs.refuse(folder, jobs.STEP)  # what only submits is soon done
        with pytest.raises(KtError, match="is at work in"):
            jobs.refuse(folder, jobs.LOCAL)
    jobs.refuse(folder, jobs.LOCAL)


def test_a_plan_does_not_wait_for_a_controller_that_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "is_there", lambda: True)
    waited = []

    def silent(*command: str, seconds: float = 60) -> tuple[str, str]:
        waited.append(seconds)
        return "", "no answer"

    monkeypatch.setattr(cluster, "ask", silent)
    with pytest.warns(KtWarning, match="for this machine alone"):
        assert choose("slurm", "", None, False, False, dry_run=True) == Place()
    with pytest.raises(KtError, match="does not answer"):
        choose("slurm", "", None, False, False)
    assert waited[0] <= 5


def test_a_look_counts_rows_and_jobs(fake: FakeSlurm, folder: Path) -> None:
    watch = Watch(folder)
    assert watch.look().stages == ()
    coordinating(folder).advance(False)
    (submitted,) = jobs.listed(folder)
    fake.queue(f"{submitted.job}|0|RUNNING", f"{submitted.job}|1|PENDING",
               f"{submitted.continuation}|N/A|PENDING")  # fmt: skip
    row(folder, RUNS[0])
    row(folder, RUNS[1], store.FAILED, "a reason")
    view = watch.look()
    (stage,) = view.stages
    assert (stage.total, stage.done, stage.failed, stage.queued, stage.running) == (6, 1, 1, 1, 1)
    assert view.active and view.going_on and view.error == "a reason"
    row(folder, replace(RUNS[1], attempt=2))
    fake.squeue_fails()
    view = watch.look()
    assert (view.stages[0].done, view.stages[0].failed, view.active) == (2, 0, None)
    fake.squeue_fails(False)
    fake.queue()
    assert watch.look().active is False


def test_the_pace_is_that_of_the_last_stage(
    fake: FakeSlurm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(watch_module.time, "monotonic", lambda: clock[0])
    watch = Watch(folder)
    coordinating(folder).advance(False)
    for run in RUNS[:3]:
        row(folder, run)
    assert watch.look().left is None
    clock[0] += 10
    row(folder, RUNS[3])
    view = watch.look()
    assert (view.rate, view.left) == (pytest.approx(0.1), pytest.approx(20))
    # What the stage before did in the meantime is not this one's pace.
    again = [replace(run, attempt=2) for run in RUNS[4:]]
    manifest = write_manifest(folder, again)
    jobs.keep(folder, jobs.Submitted("transfer", "models", "900", f"manifests/{manifest.name}",
                                     (0, 2), 2e9))  # fmt: skip
    clock[0] += 10
    assert (watch.look().rate, watch.look().left) == (0.0, None)


def test_a_look_at_pairs_counts_pairs(fake: FakeSlurm, folder: Path) -> None:
    run = Run("pairs", tuple(MODELS[:3]), "eval", PairsSpec(), DATA)
    manifest = write_manifest(folder, [run])
    table = kind_of(run).table
    jobs.keep(folder, jobs.Submitted("pairs", table, "101", f"manifests/{manifest.name}",
                                     (0, 1), 1.0))  # fmt: skip
    said = {"status": store.OK, "attempt": 1, "created": "1"}
    store.write(folder, table, [{"run_id": i, **said} for i in kind_of(run).row_ids(run)[:4]])
    (stage,) = Watch(folder).look().stages
    assert (stage.total, stage.done, stage.failed) == (6, 4, 0)


def test_a_chunk_goes_on_at_its_first_run_without_a_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def finish(runs: Sequence[Run], folder: Path) -> list[list[dict[str, object]]]:
        done.extend(run.models[0].name for run in runs)
        return [[{"run_id": r.id, "status": store.OK, "attempt": r.attempt, "created": "1"}]
                for r in runs]  # fmt: skip

    monkeypatch.setattr(chunk, "finish", finish)
    again = replace(RUNS[2], attempt=2)
    manifest = write_manifest(folder, [*RUNS[:2], again, *RUNS[3:]])
    row(folder, RUNS[0])
    row(folder, RUNS[1], store.FAILED, "no")  # this attempt of it is over
    row(folder, RUNS[2], store.FAILED, "no")  # its second is to be done
    chunk.run_chunk(str(manifest), 0, 5, Slot(None), alone=True)
    assert done == ["m2", "m3", "m4"]
    assert '"runs": [2, 3], ' in capsys.readouterr().out


def test_each_stage_is_cut_by_what_the_rows_before_it_say(folder: Path) -> None:
    session = SimpleNamespace(
        folder=folder, place=Place(facts=Facts()), next_runs=None,
        costs=lambda: Costs(folder, 100, 10),
        spec=SimpleNamespace(slurm=SlurmSpec(), timeout_run=None),
    )  # fmt: skip
    leading = cluster_loop._coordinator(cast(Session, session))
    before = leading.costs(RUNS[:1])
    key = RUNS[0].models[0].key
    store.write(folder, "models", [
        {"run_id": "r", "model_key": key, "status": store.OK, "samples_per_s": 2.0,
         "measured_with": key}
    ])  # fmt: skip
    assert leading.costs(RUNS[:1]) == [5.0] != before


def test_only_old_temporary_files_go(folder: Path) -> None:
    table = folder / "models"
    table.mkdir(parents=True)
    old, young, part = table / ".part-a.1.tmp", table / ".part-b.2.tmp", table / "part-c.parquet"
    for path in (old, young, part):
        path.touch()
    for path in (old, part):
        os.utime(path, (1, path.stat().st_mtime - DAY_SECONDS - 1))
    left = folder / "zoo" / ".vit.3.tmp"
    left.mkdir(parents=True)
    os.utime(left, (1, 1))
    remove_stale(folder)
    assert not old.exists() and not left.exists() and young.exists() and part.exists()
