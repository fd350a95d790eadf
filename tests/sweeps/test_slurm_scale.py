"""All pairs of 300 models against MaxArraySize=1001: quick, legal and small."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
from fake_slurm import fake_slurm

from kt_cli.settings import DataSpec, SlurmSpec, TransferSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps.cluster import Facts
from kt_cli.sweeps.coordinator import lost_rows
from kt_cli.sweeps.cost_model import Costs
from kt_cli.sweeps.slurm import Submitter
from kt_cli.zoo import imagenet_facts

MODELS = [Model(name, name, name) for name in imagenet_facts.top(300)]
SPEC, DATA = TransferSpec(), DataSpec("digits")


def test_every_pair_of_300_models_is_one_legal_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_slurm(tmp_path / "fake", monkeypatch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    runs = [Run("transfer", (t, s), "train", SPEC, DATA) for s in MODELS for t in MODELS
            if t is not s]  # fmt: skip
    costs = Costs(tmp_path / "x", training=128_000, evaluation=50_000)
    submitter = Submitter(tmp_path / "x", SlurmSpec(), Facts())
    submitted = submitter.stage("transfer", runs, costs.seconds(runs))
    assert time.process_time() - began < 60
    assert len(runs) == 89_700 and submitted.edges[-1] == 89_700
    assert submitted.tasks == 1000
    assert fake.options(submitted.job)["array"] == "0-999%8"
    # All of them lost before they began is known as quickly.
    began = time.process_time()
    assert lost_rows(tmp_path / "x", submitted) == []
    assert time.process_time() - began < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 2**20  # KiB
