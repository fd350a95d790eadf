"""What is submitted, how it is asked after, and how refusals are met; the cluster is faked."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_slurm import FakeSlurm, fake_slurm

from kt_cli.errors import KtError, UsageError
from kt_cli.settings import DataSpec, EvalSpec, SlurmSpec, SweepSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps import cluster, slurm
from kt_cli.sweeps.cluster import Facts
from kt_cli.sweeps.config import build, to_toml, tomllib
from kt_cli.sweeps.schedule import read_manifest
from kt_cli.sweeps.slurm import Submitter

DATA = DataSpec("digits")
RUNS = [Run("predict", (Model(f"m{i}", f"m{i}", f"m{i}"),), "eval", EvalSpec(), DATA)
        for i in range(40)]  # fmt: skip
EIGHT = SlurmSpec(gpus=8, time=60)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)
    return fake_slurm(tmp_path / "fake", monkeypatch)


def submit(folder: Path, runs: list[Run] = RUNS, spec: SlurmSpec = EIGHT, size: int = 1000):
    submitter = Submitter(folder / "x", spec, Facts(size, True, 4), minutes=5)
    return submitter.stage("predict", runs, [1.0] * len(runs))


def test_a_stage_is_one_array_with_so_many_at_once(fake: FakeSlurm, tmp_path: Path) -> None:
    submitted = submit(tmp_path)
    (job,) = fake.submitted
    options = fake.options(job)
    assert submitted.job == job and submitted.tasks == 16
    assert options["array"] == "0-15%8"
    assert (options["gpus-per-node"], options["cpus-per-task"], options["time"]) == ("1", "4", "60")
    assert "wckey" not in options and "requeue" in options
    assert "--cpus-per-task=4" in fake.script(job).splitlines()[-1]
    assert "export HF_HUB_OFFLINE=1" in fake.script(job)


def test_the_chunks_cover_all_runs_once(fake: FakeSlurm, tmp_path: Path) -> None:
    submitted = submit(tmp_path)
    runs = read_manifest(tmp_path / "x" / submitted.manifest)
    assert sorted(runs, key=RUNS.index) == RUNS
    asked = []
    for task in range(submitted.tasks):
        path = tmp_path / "x" / "logs" / f"{submitted.job}_{task}_submitted.pkl"
        said = pickle.loads(path.read_bytes())
        manifest, start, stop, threads, minutes = said.args
        assert Path(manifest).is_absolute() and (threads, minutes) == (4, 5)
        again = said._checkpoint_function()
        assert again is not None and again.args == said.args
        asked += range(start, stop)
    assert asked == list(range(40))


def test_resources_reach_sbatch(fake: FakeSlurm, tmp_path: Path) -> None:
    spec = SlurmSpec(
        gpus=2, partition="a b", account="me", qos="high", constraint="v100|a100",
        time="1-02:00:00", mem="32G", cpus_per_gpu=3, setup=("module load x",),
        srun_args=("--mpi=none",), wckey="w",
    )  # fmt: skip
    submit(tmp_path, spec=spec)
    (job,) = fake.submitted
    options = fake.options(job)
    wanted = {
        "partition": "'a b'", "account": "me", "qos": "high", "constraint": "'v100|a100'",
        "time": "1560", "mem": "32G", "cpus-per-task": "3", "wckey": "w",
    }  # fmt: skip
    assert {key: options[key] for key in wanted} == wanted
    assert "module load x" in fake.script(job) and "--mpi=none" in fake.script(job)


def test_arrays_stay_below_the_limits(fake: FakeSlurm, tmp_path: Path) -> None:
    assert submit(tmp_path, size=5).tasks == 5
    refusal = "sbatch: error: AssocMaxSubmitJobLimit"
    fake.refuse(refusal, refusal)
    submitted = submit(tmp_path)
    assert submitted.tasks == 4
    assert submitted.edges[0] == 0 and submitted.edges[-1] == 40


def test_a_silent_controller_is_asked_again(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.refuse(*["sbatch: error: Batch job submission failed: Socket timed out"] * 2)
    submitted = submit(tmp_path)
    assert fake.submitted == [submitted.job]
    # What it may have taken in spite of that is ended.
    assert len(fake.cancelled) == 2 and all("--name=kt-x-predict-" in c for c in fake.cancelled)


def test_a_refusal_is_said(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.refuse("sbatch: error: invalid partition specified: nowhere")
    with pytest.raises(KtError, match="invalid partition"):
        submit(tmp_path)


def test_the_continuation_waits_for_the_array_without_a_gpu(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    submitter = Submitter(tmp_path / "x", EIGHT, Facts())
    job = submitter.continuation("55", ["kt", "sweep", "a b"])
    options = fake.options(job)
    assert options["dependency"] == "afterany:55" and "gpus-per-node" not in options
    assert not re.search(r"^srun", fake.script(job), re.MULTILINE)
    # Some partitions take no job without a GPU.
    fake.refuse("sbatch: error: no GPU asked for")
    job = submitter.continuation("55", ["kt"])
    assert fake.options(job)["gpus-per-node"] == "1"
    fake.refuse("sbatch: error: access denied", "sbatch: error: still")
    with pytest.raises(KtError, match="access denied"):
        submitter.continuation("55", ["kt"])


POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.mark.parametrize(
    ("said", "error"),
    [(f"sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: {POLICY}", slurm.TooMany),
     (f"sbatch: error: {POLICY}", slurm.TooMany),
     (f"sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: {POLICY}", KtError),
     ("sbatch: error: Socket timed out on send/recv operation", slurm.Silent)],
)  # fmt: skip
def test_what_a_refusal_means(tmp_path: Path, said: str, error: type[KtError],
                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(slurm, "_try", lambda submit: (None, said))
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(cluster, "cancel_named", lambda name: None)
    executor = SimpleNamespace(parameters={"job_name": "kt-x"})
    with pytest.raises(KtError) as caught:
        slurm._submit(lambda: None, executor)
    assert type(caught.value) is error and said.splitlines()[0] in caught.value.message


def test_what_was_interrupted_is_ended(fake: FakeSlurm, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """The array is there, but nobody was told."""

    def interrupted(submit: Callable[[], object]) -> tuple[str | None, str]:
        submit()
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm, "_try", interrupted)
    with pytest.raises(KeyboardInterrupt):
        submit(tmp_path)
    assert len(fake.submitted) == 1
    assert len(fake.cancelled) == 1 and "--name=kt-x-predict-" in fake.cancelled[0]


def test_nothing_of_the_job_that_submits_is_inherited(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "9")
    monkeypatch.setenv("SLURM_CONF", "/etc/other.conf")
    monkeypatch.setenv("SBATCH_ACCOUNT", "lab")
    job = submit(tmp_path).job
    assert re.findall(r"^(SLURM_.*?)=", fake.environment(job), re.MULTILINE) == ["SLURM_CONF"]
    assert "SBATCH_ACCOUNT=lab" in fake.environment(job)  # defaults of the user's own
    assert os.environ["SLURM_JOB_ID"] == "7"


def test_facts_of_the_cluster(fake: FakeSlurm) -> None:
    assert cluster.look_at() == Facts(1000, True, 1)
    fake.nodes("64+|gpu:a100:4(S:0-1),craynetwork:2", "96|gpu:h100:8(S:0-1)", "48|(null)")
    assert cluster.look_at() == Facts(1000, True, 12)
    for gres in ("gpu:2080ti:8(S:0-1)", "gpu:1g.10gb:8,shard:32", "gpu:8", "gpu:a:4,gpu:b:4",
                 "gpu:a100:no_consume:8"):  # fmt: skip
        fake.nodes(f"96|{gres}")
        assert cluster.look_at() == Facts(1000, True, 12), gres
    fake.nodes("48|(null)")
    assert cluster.look_at() == Facts(1000, False, 1)
    fake.is_down()
    assert cluster.look_at() is None


def test_one_call_tells_what_is_active(fake: FakeSlurm) -> None:
    fake.queue("101|0|RUNNING", "101|3|PENDING", "102|N/A|PENDING", "999|1|RUNNING")
    wanted = {"101": {0: "RUNNING", 3: "PENDING"}, "102": {0: "PENDING"}}
    assert cluster.active(["101", "102", "103"]) == wanted
    assert fake.calls == ["squeue"]


def test_sacct_helps_where_squeue_fails_and_neither_is_needed(fake: FakeSlurm) -> None:
    fake.squeue_fails()
    assert cluster.active(["101"]) is None
    fake.accounts("101_1|RUNNING", "101_[2-3,7%8]|PENDING", "101_0|CANCELLED by 0", "102|COMPLETED",
                  "103_0|PREEMPTED")  # fmt: skip
    assert cluster.active(["101", "102", "103"]) == {
        "101": {1: "RUNNING", 2: "PENDING", 3: "PENDING", 7: "PENDING"}
    }
    # Accounting lags behind: a job that it does not know has not ended.
    assert cluster.active(["101", "104"]) is None


def test_filters_of_the_user_hide_no_jobs(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    fake.script_of("squeue", 'env | grep -q ^SQUEUE_ || echo "101|0|PENDING"')
    assert cluster.active(["101"]) == {"101": {0: "PENDING"}}


@pytest.mark.parametrize(
    ("time", "minutes"),
    [(60, 60), ("90", 90), ("1:30", 2), ("2:00:00", 120), ("1-0", 1440), ("1-02:30", 1590)],
)
def test_time_limits(time: int | str, minutes: int) -> None:
    assert SlurmSpec(time=time).minutes == minutes


@pytest.mark.parametrize(
    "table",
    [{"time": "soon"}, {"time": 0}, {"time": 4}, {"gpus": 0}, {"max_gpu_hours": -1.0},
     {"setup": [1]}, {"partition": "a\nb"}],
)  # fmt: skip
def test_impossible_resources_are_refused(table: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        build({"models": ["a", "b"], "slurm": table}, "x")


def test_what_is_said_of_resources_comes_back() -> None:
    spec = replace(EIGHT, partition="p", setup=("a", "b"))
    for resources in (spec, SlurmSpec()):
        text = to_toml(SweepSpec("x", ("a", "b"), slurm=resources))
        assert ("[slurm]" in text) == (resources != SlurmSpec())
        assert build(tomllib.loads(text), "x").slurm == resources
