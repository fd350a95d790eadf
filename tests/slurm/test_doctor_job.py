"""The test job of `kt doctor --slurm-test`, on the real thing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kt_cli.diagnosis import slurm, slurm_job
from kt_cli.diagnosis.finding import Asked

pytestmark = pytest.mark.slurm


def test_a_job_tells_what_its_node_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert all(finding.level == "green" for finding in slurm.controller(Asked()))
    ran, *rest = slurm_job.test_job(Asked(slurm_test=True))
    assert ran.level == "green" and " ran on " in ran.message
    # The node's GPUs are pretended: where there are no real ones, torch sees none, and it says so.
    assert bool(rest) == (not torch.cuda.is_available())
    assert all("torch saw none" in finding.message for finding in rest)
    assert not list(tmp_path.iterdir())


def test_what_the_cluster_does_not_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (refused,) = slurm_job.test_job(Asked(slurm_test=True, sbatch={"partition": "none"}))
    assert refused.level == "red" and "partition" in refused.message
    assert not list(tmp_path.iterdir())
