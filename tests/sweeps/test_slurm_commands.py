"""`kt sweep` on a cluster, `kt status` and `kt cancel`, in this process; the cluster is faked."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from fake_slurm import FakeSlurm, fake_slurm

from kt_cli.rows import parts, store
from kt_cli.spec import Run
from kt_cli.sweeps import chunk, jobs, slurm
from kt_cli.sweeps import place as places
from kt_cli.sweeps.execute import run_inline
from kt_cli.sweeps.schedule import read_manifest
from kt_cli.sweeps.session import Session
from kt_cli.zoo import prefetch, timm_registry
from kt_cli.zoo.prefetch import Failures, Wanted

Kt = Callable[..., tuple[int, str, str]]
SWEEP = """
models = []
[data]
source = "digits"
[pretrain]
img_size = 32
side = 32
epochs = 1
[[zoo]]
name = "one"
arch = "test_vit"
[[zoo]]
name = "two"
arch = "test_resnet"
[slurm]
partition = "gpu"
time = "2:00:00"
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.toml").write_text(SWEEP)
    return fake_slurm(tmp_path / "fake", monkeypatch)


def test_the_plan_says_jobs_and_hours_and_submits_nothing(fake: FakeSlurm, kt: Kt) -> None:
    code, out, _ = kt("sweep", "x.toml", "--gpus", "4", "--dry-run")
    assert code == 0 and not fake.submitted
    assert "4 jobs of 120 min, one GPU and 1 CPU each" in out
    assert re.search(r"stage +runs +done +to do +jobs +GPU-hours", out)
    assert re.search(r"train the zoo +2 +0 +2 +2 +<0.1", out) and "disk, about: predictions" in out


def test_a_plan_for_this_machine_has_time_and_disk(fake: FakeSlurm, kt: Kt) -> None:
    code, out, _ = kt("sweep", "x.toml", "--processes", "2", "--dry-run")
    assert code == 0 and re.search(r"stage +runs +done +to do +time, about\n", out)
    assert re.search(r"train the zoo +2 +0 +2 +\d+ s\n", out)
    assert re.search(r"transfer +2 +0 +2 +\d[^\n]* s\n", out)
    assert "disk, about: predictions" in out and "training images" in out


@pytest.mark.parametrize("role", ["--students", "--teachers"])
def test_the_plan_counts_pairs_of_one_role_only(fake: FakeSlurm, kt: Kt, role: str) -> None:
    _, out, _ = kt("sweep", "x.toml", role, "o*", "--seeds", "0,1", "--dry-run")
    assert "2 ordered pairs; transfer for 1 pair " in out
    assert re.search(r"transfer +2 +0 +2 ", out)


def test_detach_submits_the_first_stage_once(fake: FakeSlurm, kt: Kt, tmp_path: Path) -> None:
    code, _, err = kt("sweep", "x.toml", "--detach", "--time", "30", "--setup", "module load a")
    assert code == 0 and "kt status x shows them, kt cancel x ends them" in err
    array, continuation = fake.submitted
    assert fake.options(array)["partition"] == "gpu" and fake.options(array)["time"] == "30"
    pickled = (tmp_path / "results" / "x" / "logs" / f"{continuation}_submitted.pkl").read_bytes()
    assert (
        b"--follow" in pickled
        and str(tmp_path / "results" / "x" / "sweep.toml").encode() in pickled
    )
    # The job that follows finds the same resources in the file.
    kept = (tmp_path / "results" / "x" / "sweep.toml").read_text()
    assert "module load a" in kept and "time = 30" in kept
    fake.queue(f"{array}|0|PENDING", f"{array}|1|PENDING", f"{continuation}|N/A|PENDING")
    code, _, again = kt("sweep", "x.toml", "--detach")
    assert code == 0 and fake.submitted == [array, continuation]
    assert f"queued or running ({array}, {continuation}): nothing is submitted twice" in again
    assert "already" not in err and "are submitted" in err and "are submitted" not in again


def test_status_and_cancel(fake: FakeSlurm, kt: Kt, tmp_path: Path) -> None:
    kt("sweep", "x.toml", "--detach")
    array, continuation = fake.submitted
    fake.queue(f"{array}|0|RUNNING", f"{array}|1|PENDING")
    code, out, _ = kt("status", "x")
    assert code == 0 and re.search(r"train the zoo +2 +0 +0 +1 +1", out)
    assert "no job will go on when these have ended" in out
    fake.queue(f"{array}|0|RUNNING", f"{continuation}|N/A|PENDING")
    assert "go on" not in kt("status")[1]
    (said,) = json.loads(kt("status", "x", "--json")[1])
    assert said["sweep"] == "x" and said["active"] and said["going_on"] and said["rows"] == {}
    assert said["stages"] == [{"name": "pretrain", "total": 2, "done": 0, "failed": 0,
                               "queued": 0, "running": 1}]  # fmt: skip
    assert kt("cancel", "x")[0] == 0 and fake.cancelled == [continuation, array]
    fake.queue()
    assert "were cancelled" in kt("status", "x")[1]
    assert "has no jobs" in kt("cancel", "x")[2]
    # Nothing counts as tried, and the same command goes on.
    kt("sweep", "x.toml", "--detach")
    (kept,) = [s for s in jobs.listed(tmp_path / "results" / "x") if s.state == jobs.OPEN]
    runs = read_manifest(tmp_path / "results" / "x" / kept.manifest)
    assert [run.attempt for run in runs] == [1, 1]


def test_jobs_that_ended_early_are_said(fake: FakeSlurm, kt: Kt) -> None:
    kt("sweep", "x.toml", "--detach")
    out = kt("status", "x")[1]
    assert "the jobs have ended, 8 runs left, about " in out and "; kt sweep " in out


def test_a_cancelled_job_is_said_and_what_is_left_in_all(
    fake: FakeSlurm, kt: Kt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job that goes on was cancelled alone, and one of the tasks before it."""
    kt("sweep", "x.toml", "--detach")
    folder = tmp_path / "results" / "x"
    (submitted,) = jobs.listed(folder)
    said = {"status": store.OK, "attempt": 1, "created": "1", "seconds": 7200.0}
    (one, _) = read_manifest(folder / submitted.manifest)
    store.write(folder, "pretrain", [{"run_id": one.id, **said}])
    words = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-02T03:04:05 ***\n"
    log = jobs.log_of(folder, submitted, 1, "err")
    log.parent.mkdir(exist_ok=True)
    log.write_text(words)
    out = kt("status", "x")[1]
    assert re.search(r"train the zoo +2 +1 +0\n", out) and re.search(r"transfer +2 +0 +0\n", out)
    assert "cancelled: 1 task of the jobs" in out
    assert re.search(r"the jobs have ended, 7 runs left, about 1\d min", out)
    assert "; kt sweep results/x/sweep.toml -o results goes on" in out.replace("\n", " ")
    read: list[Path] = []
    monkeypatch.setattr(parts, "_fault", lambda part: read.append(part) or "")
    (said,) = json.loads(kt("status", "x", "--json")[1])
    assert [part["total"] for part in said["planned"]] == [2, 2, 2, 2]
    assert said["rows"] == {"pretrain": {"done": 1, "failed": 0}} and len(read) == 1


def test_what_is_left_of_a_sweep_of_this_machine(kt: Kt, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "x"
    folder.mkdir(parents=True)
    (folder / "sweep.toml").write_text("")
    plan = {"predict": [2, 5.0], "transfer": [4, 30.0]}
    (folder / "plan.json").write_text(json.dumps({"at_once": 2, "stages": plan}))
    assert "estimated" not in kt("status", "-o", str(folder.parent))[1]  # of an earlier version
    told = {"at_once": 2, "stages": plan, "estimate": 130.0}
    (folder / "plan.json").write_text(json.dumps(told))
    said = {"attempt": 1, "created": "1", "seconds": 60.0}
    store.write(folder, "models", [{"run_id": "r0", **said, "status": store.OK},
                                   {"run_id": "r1", **said, "status": store.FAILED}])  # fmt: skip
    code, out, _ = kt("status", "-o", str(folder.parent))
    assert code == 0 and re.search(r"predict +2 +1 +1\n *transfer +4 +0 +0\n", out)
    # As long as rows say, others as planned; two at a time.
    assert "5 runs left, about 1 min 30 s; kt sweep " in out
    assert "runs were estimated at 2 min 10 s in all, and took 1 min 00 s so far\n" in out
    (shown,) = json.loads(kt("status", "-o", str(folder.parent), "--json")[1])
    assert shown["seconds"] == {"estimated": 130.0, "taken": 60.0}
    with jobs.claim(folder, jobs.LOCAL):
        said_now = kt("status", "-o", str(folder.parent))[1]
        assert "goes on" not in said_now and f"at work: process {os.getpid()} on " in said_now
        (shown,) = json.loads(kt("status", "-o", str(folder.parent), "--json")[1])
        assert shown["active"] and shown["leader"]["process"] == str(os.getpid())
        assert not shown["leader"]["since"].endswith("\n")
        code, _, err = kt("cancel", "x", "-o", str(folder.parent))
        assert code == 1 and f"process {os.getpid()}" in err and "Ctrl-C" in err
    (shown,) = json.loads(kt("status", "-o", str(folder.parent), "--json")[1])
    assert not shown["active"] and shown["leader"] is None
    store.write(folder, "transfer", [{"run_id": f"t{i}", **said, "status": store.OK}
                                     for i in range(5)])  # fmt: skip
    store.write(folder, "models", [{"run_id": "r1", **said, "status": store.OK}])
    out = kt("status", "-o", str(folder.parent))[1]
    assert "all is done" in out and "2 min 10 s in all, and took 7 min 00 s\n" in out
    (folder / "plan.json").write_text("{")
    _, out, err = kt("status", "-o", str(folder.parent))
    assert re.search(r"transfer +5 +0", out) and "plan.json is damaged" in err


@pytest.mark.parametrize(
    ("arguments", "environment", "where"),
    [((), {}, "8 jobs of"), (("--processes", "1"), {}, "1 process on the CPU"),
     ((), {"SLURM_JOB_ID": "7"}, "on the CPU"), (("--executor", "local"), {}, "on the CPU"),
     (("--executor", "slurm"), {"SLURM_JOB_ID": "7"}, "8 jobs of"),
     (("--executor", "inline"), {}, "one run, in this process")],
)  # fmt: skip
def test_which_executor(
    fake: FakeSlurm, kt: Kt, monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], environment: dict[str, str], where: str,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    _, out, _ = kt("sweep", "x.toml", "--dry-run", *arguments)
    assert f"at once: {where}" in out or where in out


def test_a_slurm_that_does_not_answer(fake: FakeSlurm, kt: Kt) -> None:
    fake.is_down()
    code, out, err = kt("sweep", "x.toml", "--dry-run")
    assert code == 0 and "does not answer" in err and "process" in out
    code, _, err = kt("sweep", "x.toml")
    assert code == 1 and "does not answer" in err and "--executor local works" in err
    assert kt("sweep", "x.toml", "--dry-run", "--executor", "local")[0] == 0
    code, _, err = kt("sweep", "x.toml", "--detach", "--processes", "1")
    assert code == 2 and "--detach needs a cluster" in err


def test_the_job_that_goes_on_waits_for_a_silent_controller(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.is_down()
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if waited.count(places.PATIENCE) == 2:
            (fake.folder / "down").unlink(missing_ok=True)

    monkeypatch.setattr(places.time, "sleep", sleep)
    place = places.choose("slurm", "", None, detach=True, following=True)
    assert place.facts is not None and waited.count(places.PATIENCE) == 2


def test_detached_jobs_that_nobody_follows_are_said(fake: FakeSlurm, kt: Kt) -> None:
    fake.script_of(
        "sbatch",
        """
        case $(cat "$1") in *dependency*) echo "sbatch: error: not from here" >&2; exit 1;; esac
        echo "Submitted batch job 101"
    """,
    )
    code, _, err = kt("sweep", "x.toml", "--detach")
    assert code == 0
    assert "no job will go on when they have ended (sbatch refuses: " in " ".join(err.split())


def test_nothing_is_done_in_a_folder_whose_path_stands_for_others(
    fake: FakeSlurm, kt: Kt, tmp_path: Path
) -> None:
    before = {*tmp_path.iterdir()}
    code, _, err = kt("sweep", "x.toml", "-o", "results%j")
    assert code == 2 and "results%j" in err and "--name" in err
    assert {*tmp_path.iterdir()} == before and not fake.submitted


def test_wrong_names_are_said(fake: FakeSlurm, kt: Kt) -> None:
    assert "no sweep has results" in kt("status")[2]
    kt("sweep", "x.toml", "--detach")
    code, _, err = kt("cancel", "xx")
    assert code == 2 and ("Did you mean x?" in err or "Valid: x" in err)


def _digits_for_imagenet_models() -> tuple[str, ...]:
    Path("outputs.txt").write_text("".join(f"{i}\n" for i in range(10)))
    return ("--data", "digits", "--valid-labels", "outputs.txt", "--pairs", "0", "--detach")


def test_weights_come_before_jobs(fake: FakeSlurm, kt: Kt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs have no network: the login node fetches; what cannot be had fails its own runs only."""
    asked: list[list[str]] = []

    def fetch(wanted: Wanted, jobs: int, progress: object) -> Failures:
        asked.append([model.ref for model in wanted])
        return [(model, "it is gone") for model in wanted if "vit" in model.ref]

    monkeypatch.setattr(prefetch, "fetch", fetch)
    monkeypatch.setattr(timm_registry, "cached", lambda ref: None)
    monkeypatch.setattr(timm_registry, "hub_answers", lambda: True)
    three = ["test_vit.r160_in1k", "test_resnet.r160_in1k", "test_convnext.r160_in1k"]
    digits = _digits_for_imagenet_models()
    code, _, err = kt("sweep", "--models", ",".join(three), "--name", "three", *digits)
    assert code == 0 and asked == [three] and fake.submitted, err
    assert "Jobs have no network, so weights come first: 3 models to fetch" in err
    assert f"{three[0]}: it is gone. Its runs will fail" in " ".join(err.split())
    before = fake.submitted
    code, _, err = kt("sweep", "--models", ",".join(three[:2]), "--name", "two", *digits)
    assert code == 1 and "weights could not be had of" in err and fake.submitted == before


def test_without_the_hub_what_is_missing_is_named(
    fake: FakeSlurm, kt: Kt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = {"test_resnet.r160_in1k", "test_convnext.r160_in1k"}
    monkeypatch.setattr(timm_registry, "cached", lambda ref: tmp_path if ref in there else None)
    digits = _digits_for_imagenet_models()
    models = ",".join(["test_vit.r160_in1k", *sorted(there)])
    code, _, err = kt("sweep", "--models", models, "--name", "three", *digits)
    assert code == 0 and fake.submitted
    assert "no weights of test_vit.r160_in1k: their runs will fail" in " ".join(err.split())
    there.clear()
    code, _, err = kt("sweep", "--models", models, "--name", "none", *digits)
    assert code == 1 and "the cache holds no weights of" in err


def test_what_jobs_may_be_doing_is_not_done_here(
    fake: FakeSlurm, kt: Kt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queued, running, or of which the cluster does not say; when they have ended it is."""
    worked: list[Session] = []
    monkeypatch.setattr(Session, "work", lambda session: worked.append(session))
    kt("sweep", "x.toml", "--detach")
    (array, _), here = fake.submitted, ("sweep", "x.toml", "--executor", "local")
    fake.queue(f"{array}|0|RUNNING", f"{array}|1|PENDING")
    code, _, err = kt(*here)
    assert code == 1 and f"may be queued or running on the cluster: {array}, " in err
    assert "kt cancel ends them" in err and jobs.leader(tmp_path / "results" / "x") is None
    fake.queue()
    fake.squeue_fails()
    assert kt(*here)[0] == 1 and not worked
    fake.squeue_fails(False)
    kt(*here)
    assert len(worked) == 1 and not jobs.waiting(tmp_path / "results" / "x")


def test_inline_does_the_runs_here(
    fake: FakeSlurm, kt: Kt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def finish(runs: Sequence[Run], folder: Path) -> list[list[dict[str, object]]]:
        return [[{"run_id": run.id, "status": store.OK, "attempt": 1, "created": "1"}]
                for run in runs]  # fmt: skip

    kt("sweep", "x.toml", "--detach")
    folder = tmp_path / "results" / "x"
    runs = read_manifest(folder / jobs.listed(folder)[0].manifest)
    monkeypatch.setattr(chunk, "finish", finish)
    capsys.readouterr()
    threads = torch.get_num_threads()
    assert run_inline(folder, runs) == 0
    # Standard output is for results, and the process is somebody's own.
    assert capsys.readouterr() == ("", "")
    assert torch.get_num_threads() == threads and "CUDA_VISIBLE_DEVICES" not in os.environ
    outcomes = store.Outcomes(folder, "pretrain")
    assert all(outcomes.done(run.id) for run in runs)
