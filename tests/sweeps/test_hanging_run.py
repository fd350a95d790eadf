"""A run that hangs: it costs itself, and what comes after it is done."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kt_cli.data.canonical import canonical
from kt_cli.data.hanging import noticed
from kt_cli.data.images import ImageSet
from kt_cli.data.sources import open_data
from kt_cli.errors import KtError
from kt_cli.progress import silent
from kt_cli.rows import store
from kt_cli.settings import DataSpec, EvalSpec
from kt_cli.spec import Run
from kt_cli.sweeps.execute import LocalStage
from kt_cli.sweeps.slots import Slot
from kt_cli.sweeps.worker_log import Told, cause
from kt_cli.sweeps.workers import Workers
from kt_cli.zoo.names import resolve
from tests.conftest import Kt

# Inside a C function that keeps the interpreter's lock, as a driver may.
MODELS = """
import re

def hangs():
    re.match(r"(a+)+$", 60 * "a" + "b")

def raises():
    raise RuntimeError("no such weights")
"""
DATA = DataSpec("digits", limit=50)


def test_a_run_that_hangs_costs_itself_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hanging.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    models = resolve(["py:hanging:hangs", "py:hanging:raises"])
    images = open_data(DATA).eval.fingerprint
    runs = [Run("predict", (m,), images, EvalSpec(), DATA, attempt=2) for m in models]
    with Workers(tmp_path) as workers:
        stage = LocalStage(tmp_path, runs, [Slot(None, 1)], workers, pytest.fail, minutes=0.1)
        stage.run(silent, "evaluate")
    found = store.read([tmp_path], "models").set_index("model")
    assert (found["status"] == store.FAILED).all() and (found["attempt"] == 2).all()
    assert found.loc["hangs", "seconds"] >= 6  # of the worker that ended, for the budget
    assert found["device"].isna().all()
    error = found.loc["hangs", "error"]
    assert error.startswith("took longer than --timeout-run 0.1 minutes; see logs/")
    assert "hanging.py" in (tmp_path / error.split("see ")[1]).read_text()
    assert "no such weights" in found.loc["raises", "error"]


def test_images_that_are_not_read_any_more_are_named(tmp_path: Path) -> None:
    pipe, told = tmp_path / "pipe", []
    os.mkfifo(pipe)

    def read(i: int) -> Image.Image:
        if i == 70:
            pipe.read_bytes()  # for ever: nobody writes
        return Image.new("RGB", (8, 8))

    ids = [f"{i}.png" for i in range(100)]
    images = ImageSet("/data/train", ("a",), ids, np.zeros(100, int), read, "folder")
    with (
        pytest.raises(KtError, match=r"/data/train hangs.* 64 of 100 images; next is 64\.png"),
        noticed(images, 0.005, lambda done, *_: told.append(done)) as progress,
    ):
        canonical(images, 1.0, 8, progress)
    assert told == [64] and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert not list(Path(os.environ["KT_CACHE"]).rglob("*.npy"))


def test_where_no_process_could_be_ended_it_is_refused(kt: Kt) -> None:
    code, _, err = kt("sweep", "--models", "random:test_vit,random:test_resnet", "--data", "digits",
                      "--timeout-run", "1", "--executor", "inline", "--dry-run")  # fmt: skip
    assert code == 2 and "--timeout-run needs processes" in err and "Leave one" in err


def test_a_model_that_says_timeout_has_not_timed_out(tmp_path: Path) -> None:
    log = tmp_path / "err"
    log.write_text('Timeout (0:05:00)!\n  File "loader.py", line 3 in read\nsrun: error: exited\n')
    assert cause(Told(minutes=5), log, "job") == "took longer than --timeout-run 5 minutes"
    assert cause(Told(), log, "job").startswith("the job died (")
