"""A sweep as tests on a real Slurm start, watch and check it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from kt_cli.rows import store

SWEEP = """
name = "small"
[data]
source = "digits"
guard = 0.1
fraction = 0.5
limit = 300
[pretrain]
img_size = 32
side = 32
epochs = 1
lr = 2e-3
[[zoo]]
name = "vit"
arch = "test_vit"
[[zoo]]
name = "mamba_out"
arch = "test_mambaout"
[[zoo]]
name = "resnet"
arch = "test_resnet"
[transfer]
methods = ["kl-dp"]
pairs = 3
epochs = 4
lr = 0.05
augment = "none"
crop = 1.0
side = 32
"""
TABLES = ("pretrain", "models", "complementarity", "transfer")
# What tells where and when a row was made, not what came out.
PROVENANCE = {
    "host", "job_id", "created", "seconds", "samples_per_s", "peak_memory_mb", "waiting_share",
    "batch_size", "attempt", "git_commit", "measured_with",
}  # fmt: skip


def slurm_answers() -> bool:
    try:
        return subprocess.run(["scontrol", "ping"], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


class Sweep:
    """One sweep in a folder of its own, run by the command line."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.results = folder / "results" / "small"
        (folder / "small.toml").write_text(SWEEP)

    def start(
        self, *arguments: str, command: tuple[str, ...] = ("sweep", "small.toml"), **env: str
    ) -> subprocess.Popen[str]:
        environment = {
            **os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "160", "KT_CACHE": str(self.cache),
            "PYTHONPATH": str(Path(__file__).parents[2]), **env,
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-m", "kt_cli", *command, *arguments], cwd=self.folder, text=True,
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
        out, err = process.communicate(timeout=500)
        assert process.returncode == code, err + self.logs()
        assert "Traceback" not in err
        return out, err

    def on_slurm(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return self.start("--gpus", "8", "--time", "60", "--executor", "slurm", *arguments, **env)

    def rows(self, table: str) -> pd.DataFrame:
        found = store.read([self.results], table)
        return found.sort_values("run_id").reset_index(drop=True)

    def raw_ids(self, table: str) -> list[str]:
        parts = store.list_parts(self.results / table)
        return sorted(i for part in parts for i in pd.read_parquet(part)["run_id"])

    def tasks(self, *states: str) -> list[str]:
        """JOB_TASK of the jobs of chunks in these states; not of those that go on after them."""
        listed = subprocess.run(
            ["squeue", "-h", "-r", "-o", "%i %T %j"], capture_output=True, text=True
        ).stdout
        found = [line.split() for line in listed.splitlines()]
        chunks = [x for x in found if x[2].startswith("kt-small-") and "-next-" not in x[2]]
        return [task for task, state, _ in chunks if state in states]

    def cancel_all(self) -> None:
        """End every job of this sweep."""
        listed = subprocess.run(["squeue", "-h", "-o", "%A %j"], capture_output=True, text=True)
        found = [line.split() for line in listed.stdout.splitlines()]
        own = [job for job, name in found if name.startswith("kt-small-")]
        if own:
            subprocess.run(["scancel", *own], check=False)
        wait_for(lambda: not self.tasks("PENDING", "RUNNING", "COMPLETING"), 60)

    def logs(self) -> str:
        files = sorted((self.results / "logs").glob("*.err"))
        return "\n".join(f"{f.name}: {f.read_text()[-600:]}" for f in files if f.stat().st_size)


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


def same_rows(found: Sweep, wanted: Sweep) -> None:
    """Exactly the planned rows, none twice, with equal results."""
    for table in TABLES:
        got, reference = found.rows(table), wanted.rows(table)
        columns = [c for c in got.columns if c not in PROVENANCE]
        pd.testing.assert_frame_equal(got[columns], reference[columns])
        assert found.raw_ids(table) == got["run_id"].tolist()
        assert (got["status"] == store.OK).all()
