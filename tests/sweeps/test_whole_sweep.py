"""Whole sweeps as a user runs them: processes, Parquet rows, kills, resumption."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from kt_cli.rows import schema, store
from kt_cli.runs.kinds import decode_training_images, failed_row
from kt_cli.settings import DataSpec, TransferSpec
from kt_cli.spec import Model, Run
from tests.conftest import Kt
from tests.slurm import real_sweep

SWEEP = real_sweep.SWEEP.replace(
    'methods = ["kl-dp"]\npairs = 3\nepochs = 4',
    'methods = ["kl", "kl-dp"]\npairs = 2\nepochs = 2',
)
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "160"}
RESULTS = {
    "pretrain": ["model", "final_loss", "n_train", "train_data"],
    "models": ["model", "model_key", "accuracy", "n"],
    "complementarity": ["teacher", "student", "pos_flips", "neg_flips", "kappa", "flip_entropy"],
    "transfer": ["teacher", "student", "method", "after_acc", "delta", "gain", "loss"],
}


def start(folder: Path, cache: Path, *arguments: str, processes: int = 1) -> subprocess.Popen[str]:
    (folder / "small.toml").write_text(SWEEP)
    command = [
        sys.executable, "-m", "kt_cli", "sweep", "small.toml", "--processes", str(processes),
        *arguments,
    ]  # fmt: skip
    return subprocess.Popen(
        command, cwd=folder, text=True, env={**ENVIRONMENT, "KT_CACHE": str(cache)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


def rows(folder: Path, table: str) -> pd.DataFrame:
    found = store.read([folder / "results" / "small"], table)
    return found.sort_values("run_id").reset_index(drop=True)


def raw_ids(folder: Path, table: str) -> list[str]:
    """Row by row what any Parquet reader sees, duplicates included."""
    parts = store.list_parts(folder / "results" / "small" / table)
    return [i for part in parts for i in pd.read_parquet(part)["run_id"]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    out, err = finish(start(folder, folder / "cache", processes=2))
    assert "kl-dp" in out and "results/small" in err
    assert re.search(r"Runs were estimated at .*\d s in all, and took .*\d s\.\n", err)
    return folder


def test_every_planned_row_is_there(undisturbed: Path) -> None:
    assert {t: len(rows(undisturbed, t)) for t in schema.TABLES} == {
        "pretrain": 3,
        "models": 3,
        "complementarity": 6,
        "transfer": 4,
    }
    for table in schema.TABLES:
        assert (rows(undisturbed, table)["status"] == store.OK).all()
        assert len(raw_ids(undisturbed, table)) == len(set(raw_ids(undisturbed, table)))


def test_rows_hold_the_identities(undisturbed: Path) -> None:
    found = rows(undisturbed, "transfer")
    pd.testing.assert_series_equal(found["delta"], found["gain"] - found["loss"], check_names=False)
    pd.testing.assert_series_equal(
        found["delta"], found["after_acc"] - found["student_acc"], check_names=False
    )
    assert (found["gain"] + found["loss"] > 0).any()
    by_pair = rows(undisturbed, "complementarity").set_index(["teacher", "student"])
    for (teacher, student), row in by_pair.iterrows():
        assert row["pos_flips"] == by_pair.loc[(student, teacher), "neg_flips"]
    pairs = by_pair.loc[list(zip(found["teacher"], found["student"], strict=True))]
    assert found["pos_flips"].tolist() == pytest.approx(pairs["pos_flips"].tolist())
    provenance = found[["kt_version", "device", "threads", "host", "created", "seconds"]]
    assert provenance.notna().all(axis=None)
    assert by_pair["measured_with"].nunique(dropna=False) == 1
    models = rows(undisturbed, "models")
    assert set(models["measured_with"]) <= set(models["run_id"])


def test_running_again_does_nothing_and_says_so(
    undisturbed: Path, kt: Kt, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {table: raw_ids(undisturbed, table) for table in schema.TABLES}
    plan = undisturbed / "results" / "small" / "plan.json"
    estimate = json.loads(plan.read_text())["estimate"]
    out, err = finish(start(undisturbed, undisturbed / "cache"))
    assert 0 < json.loads(plan.read_text())["estimate"] == estimate
    assert "Nothing to do" in err and "kl-dp" in out
    keys = json.loads((undisturbed / "results" / "small" / "models.json").read_text())
    assert set(keys) == set(rows(undisturbed, "models")["model_key"])
    # A method taken out, where nothing is left to do: its rows stay, and reports leave them out.
    monkeypatch.chdir(undisturbed)
    monkeypatch.setenv("KT_CACHE", str(undisturbed / "cache"))
    again = ("sweep", "small.toml", "--processes", "1")
    _, _, err = kt(*again, "--save-students")
    assert "finished transfers kept no student, and are not done again" in err
    _, out, err = kt(*again, "--methods", "kl")
    assert "2 rows of images, methods" in err and "--all-rows" in err and "kl-dp" not in out
    assert kt(*again)[0] == 0
    assert before == {table: raw_ids(undisturbed, table) for table in schema.TABLES}


def test_whoever_leads_never_starts_cuda(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, kt: Kt
) -> None:
    """Its context would take memory on the first GPU from the worker that computes there."""
    started: list[str] = []

    def starts(name: str) -> Callable[..., bool]:
        def start(*_: object, **__: object) -> bool:
            started.append(name)
            return False

        return start

    for module, name in (
        (torch.cuda, "is_available"), (torch.cuda, "_lazy_init"), (torch.cuda, "mem_get_info"),
        (torch.accelerator, "is_available"), (torch.Tensor, "pin_memory"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, starts(name))
    monkeypatch.chdir(undisturbed)
    code, out, err = kt("sweep", "small.toml", "--gpus", "2")
    assert code == 0 and "Nothing to do" in err and "kl-dp" in out
    run = Run("transfer", (Model("t"), Model("s")), "", TransferSpec(side=32), DataSpec("digits"))
    decode_training_images([run])
    failed_row(run, "the worker died")
    assert started == []


def test_more_methods_add_only_their_runs(undisturbed: Path, tmp_path: Path) -> None:
    out, _ = finish(
        start(undisturbed, undisturbed / "cache", "--methods", "kl,kl-dp-u", "--dry-run")
    )
    (line,) = [line for line in out.splitlines() if line.startswith("transfer")]
    assert line.split()[:4] == ["transfer", "4", "2", "2"]


BROKEN = """
import os
import timm
import torch


def raises() -> torch.nn.Module:
    raise RuntimeError("no such weights")


def dies() -> torch.nn.Module:
    os._exit(7)


def once() -> torch.nn.Module:
    if not os.path.exists("tried"):
        open("tried", "w").close()
        os._exit(7)
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=10)
"""


def test_runs_that_fail_and_workers_that_die_cost_their_own_rows_only(
    undisturbed: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    zoo = undisturbed / "results" / "small" / "zoo"
    models = f"py:broken:raises,{zoo / 'vit'},py:broken:dies,{zoo / 'resnet'},py:broken:once"
    command = [
        sys.executable, "-m", "kt_cli", "sweep", "--models", models, "--data", "digits",
        "--pairs", "0", "--processes", "1", "--name", "small",
    ]  # fmt: skip
    environment = {**ENVIRONMENT, "KT_CACHE": str(tmp_path / "cache")}
    for _ in range(2):
        done = subprocess.run(
            command, cwd=tmp_path, text=True, capture_output=True, env=environment, timeout=200
        )
        assert done.returncode == 1, done.stderr
        assert "2 runs failed" in done.stderr and "Traceback" not in done.stderr
        found = rows(tmp_path, "models").set_index("model")
        assert found["status"].to_dict() == {
            "raises": "failed", "vit": "ok", "dies": "failed", "resnet": "ok", "once": "ok",
        }  # fmt: skip
        assert "no such weights" in found.loc["raises", "error"]
        assert "worker died" in found.loc["dies", "error"]
        # All before others build on them.
        assert found.loc[["raises", "dies", "once"], "attempt"].tolist() == [3, 3, 2]
        assert len(rows(tmp_path, "complementarity")) == 3 * 2


def test_a_full_disk_is_said_and_nothing_is_lost(
    undisturbed: Path, tmp_path: Path, small_disk: Callable[..., Path]
) -> None:
    results = small_disk("300k", "results")
    process = start(tmp_path, tmp_path / "cache")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1 and "Traceback" not in err
    assert "No space left" in err or "Free some space" in err
    subprocess.run(["mount", "-o", "remount,size=200m", str(results)], check=True)
    finish(start(tmp_path, tmp_path / "cache"))
    for table in schema.TABLES:
        assert set(rows(tmp_path, table)["run_id"]) == set(rows(undisturbed, table)["run_id"])


def test_killed_again_and_again_it_ends_with_the_same_rows(
    undisturbed: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results" / "small"

    def some_rows(table: str, count: int) -> Callable[[], bool]:
        def reached() -> bool:
            return len(store.read([results], table, ["run_id"])) >= count

        return reached

    for reached in (
        some_rows("pretrain", 1),
        some_rows("transfer", 2),
    ):
        process = start(tmp_path, tmp_path / "cache")
        deadline = time.monotonic() + 120
        while not reached() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        wait_until_no_worker_is_left(results)
    finish(start(tmp_path, tmp_path / "cache"))
    for table, columns in RESULTS.items():
        wanted, found = rows(undisturbed, table), rows(tmp_path, table)
        pd.testing.assert_frame_equal(found[["run_id", *columns]], wanted[["run_id", *columns]])
        assert sorted(raw_ids(tmp_path, table)) == found["run_id"].tolist()


def wait_until_no_worker_is_left(results: Path) -> None:
    """Workers must end by themselves when the sweep that started them is gone."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not workers_of(results):
            return
        time.sleep(0.1)
    pytest.fail(f"workers left behind: {workers_of(results)}")


def workers_of(results: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "kt_cli.sweeps.workers" in command and str(results.parent.parent) in command:
            found.append(command)
    return found
