from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kt_cli.diagnosis import slurm, slurm_job
from kt_cli.diagnosis.finding import Asked
from kt_cli.sweeps import cluster as cluster_module

Look = Callable[..., list[tuple[str, str]]]
Commands = Callable[..., None]
CONFIG = """cat <<'END'
Configuration data as of 2026-11-24T14:00:00
AccountingStorageType   = accounting_storage/slurmdbd
JobRequeue              = 1
MaxArraySize            = 1001
SLURM_VERSION           = 23.02.7
END"""
SINFO = "echo 'gpu|up|4|mix|gpu:a100:8(S:0-1)'; echo 'gpu|up|1|down*|gpu:a100:8'"
WORKING = {
    "sbatch": "exit 1", "srun": "exit 1", "squeue": "exit 0", "scancel": "exit 0",
    "scontrol": CONFIG, "sinfo": SINFO, "sacct": "exit 0",
}  # fmt: skip
SYSTEM = ("/bin", "/usr/bin")


def test_no_slurm_is_no_fault_unless_it_is_to_be_tested(look: Look, commands: Commands) -> None:
    commands({})
    assert look(slurm.controller)[0][0] == "green"
    assert look(slurm.controller, Asked(slurm_test=True))[0][0] == "red"
    assert look(slurm_job.test_job, Asked(slurm_test=True)) == []


def test_a_cluster_that_works(look: Look, commands: Commands) -> None:
    commands(WORKING, SYSTEM)
    said = look(slurm.controller)
    assert said == [
        ("green", "gpu: 4 mix, gpu:a100:8(S:0-1); gpu: 1 down*, gpu:a100:8 → "),
        ("green", "Slurm 23.02.7, arrays of up to 1,000 jobs → "),
        ("green", "sacct answers (accounting_storage/slurmdbd) → "),
    ]


@pytest.mark.parametrize(
    ("changed", "place", "level", "said"),
    [
        ({"scontrol": "echo 'no route' >&2; exit 1"}, 0, "red", "no route"),
        ({"scontrol": "exit 3"}, 0, "red", "scontrol gave 3"),
        ({"scontrol": "echo MaxArraySize = 1"}, 1, "red", "no job arrays"),
        ({"scontrol": CONFIG.replace("= 1\n", "= 0\n")}, 1, "yellow", "JobRequeue=0"),
        ({"sinfo": "exit 1"}, 0, "yellow", "sinfo fails"),
        ({"sinfo": "echo 'gpu|up|4|down*|gpu:8'; echo 'gpu|drain|4|idle|gpu:8'"}, 0, "red",
         "no node takes jobs"),
        ({"sinfo": "echo 'cpu|up|4|idle|(null)'"}, 0, "yellow", "no GPUs among the nodes"),
        ({"sacct": "echo 'Slurm accounting storage is disabled' >&2; exit 1"}, 2, "green",
         "no accounting"),
    ],
)  # fmt: skip
def test_what_a_cluster_lacks(
    look: Look, commands: Commands, changed: dict[str, str], place: int, level: str, said: str
) -> None:
    commands({**WORKING, **changed}, SYSTEM)
    found, message = look(slurm.controller)[place]
    assert found == level and said in message


def test_missing_commands_are_named(look: Look, commands: Commands) -> None:
    commands({"sbatch": "", "srun": "", "squeue": ""})
    ((level, message),) = look(slurm.controller)
    assert level == "red" and "but not scancel, scontrol" in message


def test_a_command_that_does_not_answer(
    look: Look, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands({**WORKING, "scontrol": "exec sleep 5"}, SYSTEM)
    monkeypatch.setattr(cluster_module, "SECONDS", 0.1)
    ((level, message),) = look(slurm.controller)
    assert level == "red" and "did not answer" in message


# --- the test job -----------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to submit from; the clock of waiting goes fast."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(slurm_job, "LOOK", 0.02)
    monkeypatch.setattr(slurm_job, "SETTLE", 0.1)
    return folder


def cluster(tmp_path: Path, squeue: str = "") -> dict[str, str]:
    """One that keeps what it is told, does a job at once, and tells of its node's Python."""
    told = shlex.quote(str(tmp_path / "told"))
    return {
        **WORKING,
        "sbatch": f'cp "$1" {told}.sh; SLURM_JOB_ID=77 bash {told}.sh >/dev/null 2>&1 & '
        "echo Submitted batch job 77",
        # srun's own options come before the command, each with its value or after `=`.
        "srun": 'while [ "$1" != ' + shlex.quote(sys.executable) + " ]; do shift; done; "
        'export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_NTASKS=1 SLURM_NNODES=1 '
        'SLURM_JOB_NODELIST=node1; exec "$@" >/dev/null 2>&1',
        "squeue": squeue,
        "scancel": f"echo $* >> {told}.cancelled",
    }  # fmt: skip


def test_a_job_answers(look: Look, commands: Commands, here: Path, tmp_path: Path) -> None:
    commands(cluster(tmp_path, "echo '77|N/A|RUNNING'"), SYSTEM)
    sbatch: dict[str, str | int] = {"partition": "gpu", "account": "me"}
    said = look(slurm_job.test_job, Asked(slurm_test=True, sbatch=sbatch))
    assert said[0][0] == "green" and "job 77 ran on" in said[0][1]
    # The pretend cluster has GPUs, this machine may have none.
    assert said[1:] == [] or "torch saw none" in said[1][1]
    script = (tmp_path / "told.sh").read_text()
    for line in (
        "--partition=gpu",
        "--account=me",
        "--time=5",
        "--signal=USR2@1",
        "--gpus-per-node=1",
    ):
        assert f"#SBATCH {line}\n" in script
    assert not list(here.iterdir())


def test_it_is_submitted_only_when_asked_for(look: Look, commands: Commands, here: Path) -> None:
    commands(WORKING, SYSTEM)
    assert look(slurm_job.test_job) == []


def test_a_job_that_is_refused(look: Look, commands: Commands, here: Path) -> None:
    refused = "echo 'sbatch: error: invalid partition' >&2; exit 1"
    commands({**WORKING, "sbatch": refused}, SYSTEM)
    ((level, message),) = look(slurm_job.test_job, Asked(slurm_test=True))
    assert level == "red" and "--partition" in message and "invalid partition" in message
    assert not list(here.iterdir())


def test_a_job_that_dies(look: Look, commands: Commands, here: Path, tmp_path: Path) -> None:
    dies = "cd .kt-doctor-*; printf 'a\\nno python\\n\\n' > 77_0_log.err"
    commands({**cluster(tmp_path), "srun": dies}, SYSTEM)
    ((level, message),) = look(slurm_job.test_job, Asked(slurm_test=True))
    assert level == "red" and "ended without an answer: no python →" in message
    (kept,) = here.iterdir()
    assert str(kept) in message


def test_a_job_that_does_not_start_is_cancelled(
    look: Look, commands: Commands, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_job, "WAIT", 0.1)
    scripts = cluster(tmp_path, "echo '77|N/A|PENDING'")
    commands({**scripts, "srun": "exit 0"}, SYSTEM)
    ((level, message),) = look(slurm_job.test_job, Asked(slurm_test=True))
    assert level == "yellow" and "job 77 is still pending" in message
    assert (tmp_path / "told.cancelled").read_text() == "77\n"
    assert not list(here.iterdir())


def test_folders_that_nodes_do_not_see(tmp_path: Path) -> None:
    for name in ("shared", "here", "job"):
        (tmp_path / name).mkdir()
    names = [str(tmp_path / name) for name in ("shared", "here", "none")]
    answer = tmp_path / "job" / slurm_job.ANSWER
    slurm_job.answer(str(answer), *names)
    said = json.loads(answer.read_text())
    assert said["missing"] == names[2:]  # nor is it here: nothing to warn of
    assert [f.level for f in slurm_job._judged(answer.parent, "77", 0, 3.2, "")] == ["green"]
    assert not answer.parent.exists()
    answer.parent.mkdir()
    answer.write_text(json.dumps({**said, "gpus": 1, "missing": names[1:]}))
    ran, unseen = slurm_job._judged(answer.parent, "77", 1, 3.2, "")
    assert ran.level == "green" and "3 seconds" in ran.message
    assert unseen.level == "red" and unseen.message == f"nodes do not see {names[1]}"
