"""A real job of a minute, which tells what a node sees."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import submitit

from kt_cli import cache
from kt_cli.diagnosis.finding import Asked, Finding, green, red, yellow
from kt_cli.errors import first_line
from kt_cli.files import write_text
from kt_cli.progress import Progress
from kt_cli.sweeps import cluster
from kt_cli.sweeps.slurm import not_of_this_job
from kt_cli.sweeps.worker_log import last_line
from kt_cli.zoo.prefetch import hub_folder

MINUTES = 5  # of its limit; it takes seconds, and a signal comes long before a shorter one
WAIT, LOOK = 600.0, 2.0  # seconds to wait for the job, and between two looks
SETTLE = 10.0  # seconds in which a job may be seen by nobody, between its end and its file
ANSWER = "answer.json"
REFUSED = (
    "Name what your cluster wants: --partition, --account, --qos; kt sweep has the same options."
)


def test_job(asked: Asked) -> Iterator[Finding]:
    """Submit a job where that is asked for, wait for it, and judge what it says."""
    if not asked.slurm_test or not cluster.is_there():
        return
    folder = Path(tempfile.mkdtemp(prefix=".kt-doctor-", dir=Path.cwd()))
    facts = cluster.look_at()
    gpus = int(facts is not None and facts.gpus)
    try:
        job = _submit(folder, gpus, asked.sbatch or {})
    except Exception as error:  # submitit's own, sbatch's, or pickle's
        shutil.rmtree(folder, ignore_errors=True)
        yield red(f"Slurm does not take a job: {first_line(error)}", REFUSED)
        return
    number = str(job.job_id)
    try:
        waited = _wait(job.paths.result_pickle, number, asked.progress)
        yield from _judged(folder, number, gpus, *waited)
    except BaseException:  # interrupts too
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        cluster.cancel([number])


def _submit(folder: Path, gpus: int, sbatch: Mapping[str, str | int]) -> Any:
    executor = submitit.SlurmExecutor(folder=folder, python=sys.executable)
    asked = {**({"gpus_per_node": gpus} if gpus else {}), **sbatch}
    executor.update_parameters(job_name="kt-doctor", time=MINUTES, signal_delay_s=1, **asked)
    # Also where kt itself runs in a job, whose variables would reach the new one.
    with not_of_this_job(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return executor.submit(answer, str(folder / ANSWER), str(cache.root()), str(hub_folder()))


def answer(path: str, *shared: str) -> None:
    """What the job does: write down what it sees of GPUs and of folders that it needs."""
    import torch

    said = {
        "host": socket.gethostname(),
        "gpus": torch.cuda.device_count(),
        "missing": [folder for folder in shared if not Path(folder).exists()],
    }
    write_text(Path(path), json.dumps(said))


def _judged(folder: Path, job: str, gpus: int, seconds: float, state: str) -> Iterator[Finding]:
    try:
        said = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if state:
            shutil.rmtree(folder, ignore_errors=True)
            yield yellow(
                f"job {job} is still {state.lower()} after {seconds:.0f} seconds; it is cancelled",
                f"The cluster is busy, or no node fits. {REFUSED}",
            )
        else:
            yield red(
                f"job {job} ended without an answer: {_last_line(folder)}",
                f"Its logs are in {folder}. Nodes need this folder, this Python and kt, too.",
            )
        return
    shutil.rmtree(folder, ignore_errors=True)
    yield green(f"job {job} ran on {said['host']}, answered after {seconds:.0f} seconds")
    if gpus and not said["gpus"]:
        yield red(
            "the job asked for a GPU, but torch saw none on the node",
            "The node's driver may be older than torch needs, or its GPUs are no CUDA devices.",
        )
    here = [path for path in said["missing"] if Path(path).exists()]
    if here:
        yield red(
            f"nodes do not see {', '.join(here)}",
            "Let KT_CACHE and HF_HOME name folders that login node and nodes share.",
        )


def _wait(path: Path, job: str, progress: Progress) -> tuple[float, str]:
    """Seconds waited for what a job leaves last, and its state; empty where it has ended."""
    start = time.monotonic()
    seen, state = 0.0, "UNKNOWN"
    while (waited := time.monotonic() - start) < WAIT and not path.exists():
        progress(int(waited), int(WAIT), f"job {job}")
        states = cluster.active([job])
        if states is not None:
            state = next(iter(states.get(job, {}).values()), "")
            seen = waited if state else seen
            if waited - seen > SETTLE:  # files of other machines may show late
                return waited, ""
        time.sleep(LOOK)
    return waited, state


def _last_line(folder: Path) -> str:
    logs = sorted(folder.glob("*.err"))
    return (last_line(logs[-1]) if logs else "") or "it wrote no log"
