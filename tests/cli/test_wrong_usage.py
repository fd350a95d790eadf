"""Wrong usage: one clear message that names the thing, a way out, exit code 2, no traceback."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from kt_cli.api import complementarity
from kt_cli.errors import KtError

Kt = Callable[..., tuple[int, str, str]]
SaveTiny = Callable[..., str]
MODELS = ("resnet50", "deit_s")


@pytest.mark.parametrize(
    ("arguments", "message", "tip"),
    [
        (("complementarity", *MODELS), "no data", "--data"),
        (("complementarity", *MODELS, "--data", "/no/such"), "/no/such", "--data"),
        (("complementarity", *MODELS, "--data", "digits"), "1000", "10"),
        (("complementarity", "resnet5O", "deit_s", "--data", "digits"), "resnet5O", "resnet50"),
        (("complementarity", "resnet50", "--data", "digits"), "one model", "two"),
        (("complementarity", "resnet50", "resnet50", "--data", "digits"), "one model", "two"),
        (("complementarity", "local-dir:/no/such", "resnet50", "--data", "digits"), "/no/such", ""),
        (("transfer", "resnet50", "--data", "digits"), "a teacher and a student", ""),
        (("transfer", "resnet50", "resnet50", "--data", "digits"), "different models", ""),
        (("transfer", "timm-top300", "--data", "digits"), "one model alone", ""),
        (("transfer", "timm-top300", "deit_s", "--data", "digits"), "timm-top300", "kt sweep"),
        (("transfer", *MODELS, "vit_b", "--data", "digits"), "2 teachers", "--together sequential"),
        (("transfer", *MODELS, "vit_b", "--data", "digits", "--together", "parallel", "-m", "kl"),
         "parallel", "kl-dp"),
        (("transfer", *MODELS, "--data", "digits", "--together", "soup"), "soup", "Leave out"),
        (("transfer", *MODELS, "vit_b", "--data", "digits", "--together", "seq"), "seq",
         "sequential"),
        (("transfer", *MODELS, "--data", "digits", "--order", "dsc"), "dsc", "desc"),
        (("transfer", *MODELS, "--data", "digits", "--bn", "evl"), "evl", "eval"),
        (("transfer", *MODELS, "--data", "digits", "--distil-on", "positive"), "--distil-on", ""),
        (("transfer", *MODELS, "--data", "digits", "--reference-compat"), "--reference-compat",
         "xekl"),
        (("transfer", *MODELS, "--data", "digits", "--amp", "--amp-dtype", "half"), "half",
         "float16"),
        (("transfer", *MODELS, "--data", "digits", "--kd-lambda", "2"), "kd_lambda", ""),
        (("transfer", *MODELS, "--data", "digits", "--mcl-tau", "nan"), "mcl_tau", ""),
        (("transfer", *MODELS, "--data", "digits", "--guard", "safe"), "the guard needs images",
         "--guard-data"),
        (("transfer", *MODELS, "--data", "digits", "--guard"), "--guard", "requires an argument"),
        (("transfer", "--guard", *MODELS, "--data", "digits"), "unknown guard", "safe"),
        (("sweep", "--models", "resnet50,deit_s", "--methods", "kl+sfe"), "unknown guard '+sfe'",
         "+safe"),
        (("transfer", *MODELS, "--data", "digits", "--guard", "sfe"), "unknown guard 'sfe'",
         "safe"),
        (("transfer", *MODELS, "--data", "digits", "-m", "kl+sfe"), "unknown guard '+sfe'",
         "+safe"),
        (("transfer", *MODELS, "--data", "digits", "--guard", "safe:x"), "no margin of 'x'",
         "+safe:0.5"),
        (("transfer", *MODELS, "--data", "digits", "--guard", "gain:1"), "gain has no margin",
         "Only safe"),
        (("transfer", *MODELS, "--data", "digits", "--guard", "gain", "-m", "kl+safe"),
         "kl+safe has a guard already", ""),
        (("transfer", *MODELS, "--data", "digits", "--guard", "gain", "--guard-share", "0.1"),
         "may have been trained on the guard slice", "--force-guard"),
        (("transfer", *MODELS, "--data", "digits", "--guard-data", "x"), "without --guard",
         "--guard"),
        (("transfer", *MODELS, "--data", "digits", "--force-guard"), "without --guard", "--guard"),
        (("transfer", *MODELS, "--data", "digits", "--private"), "without --push-to-hub", ""),
        (("transfer", *MODELS, "--data", "digits", "--push-to-hub", "a b"), "a b", "ORG/NAME"),
        (("transfer", *MODELS, "--data", "digits", "--unlabelled", "/no/such"), "/no/such",
         "--unlabelled"),
        (("transfer", *MODELS, "--data", "digits", "-m", "kl-pd"), "kl-pd", "kl-dp"),
        (("transfer", *MODELS, "--data", "digits", "-m", "kd"), "kd", "flip-st, flip-t, kl, kl-dp"),
        (("transfr",), "unknown command 'transfr'", "transfer"),
        (("sweep", "--results", "x"), "unknown option '--results'", "Did you mean --output?"),
        (("transfer", "--epoch", "3", *MODELS), "unknown option '--epoch'", "--epochs"),
        (("transfer", *MODELS, "--data", "digits", "--augment", "papr"), "papr", "paper"),
        (("transfer", *MODELS, "--data", "digits", "--lr", "-1"), "lr must be positive", ""),
        (("transfer", *MODELS, "--data", "digits", "--lr", "nan"), "lr must be positive", ""),
        (("complementarity", *MODELS, "--data", "torch/cifar10"), "torch/cifar10", "folder"),
        (("sweep",), "needs models", "--models"),
        (("sweep", "none.toml"), "none.toml", "--models"),
        (("sweep", "."), "Is a directory", "--models"),
        (("sweep", "--gpus", "0", "--models", "a,b"), "gpus must be positive", ""),
        (("sweep", "--executor", "slrm"), "--executor 'slrm'", "slurm"),
        (("sweep", "--models", "resnet50,deit_s", "--pairs", "-3"), "-3", ""),
        (("sweep", "--models", "resnet50,deit_s", "--pairs", "some"), "some", ""),
        (("sweep", "--models", "resnet50,deit_s", "--methods", "kd"), "kd", "kl"),
        (("sweep", "--models", "resnet50,deit_s", "--seeds", "a"), "--seeds", ""),
        (("sweep", "--models", "resnet50,deit_s", "--pair-seed", "-1"), "pair_seed", ""),
        (("sweep", "--models", "resnet50"), "two models", ""),
        (("sweep", "--models", "resnet50,deit_s"), "no data", "--data"),
        (("report", "/no/such"), "/no/such", ""),
        (("report", "--top", "0"), "top must be positive", ""),
        (("status", "x"), "no sweep has results", "-o"),
        (("cancel", "x"), "no sweep has results", "-o"),
        (("cache", "ls", "--kind", "prediction"), "--kind 'prediction'", "predictions"),
        (("doctor", "--partition", "x"), "--partition", "--slurm-test"),
        (("models", "--sort", "size"), "--sort 'size'", "top1"),
        (("models", "prefech", "vit_b"), "prefech", "prefetch"),
        (("models", "/no/such"), "no folder or file /no/such", "hf-hub:"),
        (("models", "resnet18", "--arch", "resnet18"), "--arch", "checkpoints"),
        (("complementarity", *MODELS, "--baseline", "rand"), "baseline 'rand'", "random"),
        (("complementarity", *MODELS, "--class-embedding", "clipp"), "'clipp'", "clip"),
        (("complementarity", *MODELS, "--data", "digits", "--real-labels", "/no/such"),
         "cannot read the labels /no/such: No such file or directory\n", ""),
        (("pretrain", "test_vitt", "--data", "digits"), "test_vitt", "test_vit"),
        (("pretrain", "test_vit", "test_resnet", "--data", "digits", "--name", "x"), "--name", ""),
        (("pretrain", "test_vit", "--data", "digits", "--fraction", "2"), "fraction", ""),
        (("pretrain", "test_vit", "--data", "digits", "--name", "../x"), "'../x'", "letters"),
    ],
)  # fmt: skip
def test_one_message_and_exit_code_2(
    kt: Kt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], message: str, tip: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, out, err = kt(*arguments)
    assert code == 2, err
    assert message in err and tip in err
    assert "Traceback" not in err and not out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [("report", "--format", "word"), ("nothing",), ("complementarity", "--no-such-option"),
     ("transfer",), ("report", "--top", "x"), ("sweep", "a", "b"),
     ("sweep", "--gpus")],
)  # fmt: skip
def test_what_the_command_line_itself_refuses(kt: Kt, arguments: tuple[str, ...]) -> None:
    code, _, err = kt(*arguments)
    assert code == 2 and err.startswith("Error: ") and "\nTip: " in err and "─" not in err


def test_numbers_of_classes_that_disagree(kt: Kt, save_tiny: SaveTiny, tmp_path: Path) -> None:
    nine, ten = (save_tiny(tmp_path / f"m{n}", n) for n in (9, 10))
    other = save_tiny(tmp_path / "other9", 9, seed=1)
    code, _, err = kt("complementarity", nine, ten, "--data", "digits")
    assert code == 2 and "m9 has 9 classes, digits has 10" in err
    for command in ("complementarity", "transfer"):
        code, _, err = kt(command, nine, other, "--data", "digits")
        assert code == 2 and "9 classes" in err and "10" in err and "kt pretrain" in err
    code, _, err = kt("sweep", "--models", f"{nine},{other}", "--data", "digits", "--dry-run")
    assert code == 2 and "9 classes" in err and "10" in err


QUICK = ("--data", "digits", "--epochs", "1", "--crop", "1.0", "--side", "32", "--augment", "none")


def test_nothing_but_a_model_of_ours_is_replaced_and_that_on_request(
    kt: Kt, save_tiny: SaveTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    zoo = [save_tiny(tmp_path / "zoo" / name, seed=seed) for seed, name in enumerate("ab")]
    thesis = tmp_path / "mine" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    before = sorted(tmp_path.rglob("*"))
    for target in ("mine", "zoo", "zoo/a", "zoo/b", ".", "mine/thesis.txt"):
        for overwrite in ((), ("--overwrite",)):
            code, _, err = kt("transfer", *zoo, *QUICK, "-o", target, *overwrite)
            assert code == 2 and "-o" in err, target
    assert sorted(tmp_path.rglob("*")) == before

    code, out, _ = kt("transfer", *zoo, *QUICK, "-o", "student")
    assert code == 0 and "transfer delta" in out
    code, _, err = kt("transfer", *zoo, *QUICK, "-o", "student")
    assert code == 2 and "--overwrite" in err
    code, out, _ = kt("transfer", *zoo, *QUICK, "-o", "student", "--overwrite", "--json")
    row = json.loads(out)
    assert code == 0 and row["delta"] == pytest.approx(row["gain"] - row["loss"])
    student = f"local-dir:{tmp_path / 'student'}"
    code, out, _ = kt("complementarity", student, zoo[0], "--data", "digits", "--json")
    found = {m["model"]: m["accuracy"] for m in json.loads(out)["models"]}
    assert code == 0 and found["student"] == pytest.approx(row["after_acc"])
    code, _, err = kt("pretrain", "test_vit", "--data", "digits", "-o", "zoo", "--name", "a")
    assert code == 2 and "--overwrite" in err


def test_a_fault_of_ours_is_said_in_two_lines(kt: Kt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complementarity, "data_spec", lambda *_, **__: 1 / 0)
    code, _, err = kt("complementarity", *MODELS)
    assert code == 1 and "ZeroDivisionError" in err and "KT_DEBUG" in err
    assert "Traceback" not in err
    monkeypatch.setenv("KT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        kt("complementarity", *MODELS)


def test_a_corrupt_image_is_named(kt: Kt, save_tiny: SaveTiny, tmp_path: Path) -> None:
    for name in ("0", "1"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "data" / name / "fine.png")
    (tmp_path / "data" / "1" / "broken.png").write_bytes(b"no picture")
    models = [save_tiny(tmp_path / m, 2, s) for s, m in enumerate(("one", "two"))]
    code, _, err = kt("complementarity", *models, "--data", str(tmp_path / "data"))
    assert code == 2 and "broken.png" in err and "Traceback" not in err


def test_missing_weights_are_named_without_a_network(kt: Kt, tmp_path: Path) -> None:
    for i in range(1000):
        (tmp_path / f"c{i:03d}").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "c000" / "x.png")
    code, _, err = kt("complementarity", *MODELS, "--data", str(tmp_path))
    assert code == 1
    assert "resnet50.a1_in1k" in err
    assert "deit_small_patch16_224" in err and "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("other", [None, AttributeError])
def test_an_interrupt_is_no_traceback(
    kt: Kt, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int,
    other: type[Exception] | None,
) -> None:  # fmt: skip
    """Neither where a library, as NumPy while it is imported, makes another error of it."""

    def interrupted(*_: object) -> None:
        try:
            os.kill(os.getpid(), number)
        except BaseException as stopped:
            raise other() if other else stopped  # noqa: B904

    monkeypatch.setattr(complementarity, "data_spec", interrupted)
    found, _, err = kt("complementarity", *MODELS)
    assert found == code and "Interrupted" in err
    assert "Traceback" not in err and "Error" not in err


def test_an_interrupt_in_a_finaliser_is_not_lost(kt: Kt, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loader:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    def work(*_: object) -> None:
        Loader()
        time.sleep(60)

    monkeypatch.setattr(complementarity, "data_spec", work)
    start = time.monotonic()
    code, _, err = kt("complementarity", *MODELS)
    assert (code, err) == (143, "Interrupted.\n") and time.monotonic() - start < 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_of_a_command_end_silently(
    kt: Kt, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """With an exit code of their own: with a traceback it would be 1."""

    def work(*_: object) -> None:
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
        time.sleep(0.3)
        os.kill(worker.pid or 0, number)
        worker.join(30)
        raise KtError(f"the worker ended with {worker.exitcode}")

    monkeypatch.setattr(complementarity, "data_spec", work)
    _, _, err = kt("complementarity", *MODELS)
    assert err == f"Error: the worker ended with {128 + number}\n"


@pytest.mark.parametrize("imported", ["typer", "rich.console", "kt_cli.cli.report"])
def test_an_interrupt_before_the_command_runs_is_none_either(imported: str) -> None:
    code = (
        "import os, signal, sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {imported!r}:\n"
        "            sys.meta_path.remove(self)\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "sys.argv = ['kt', 'models']\n"
        "from kt_cli.cli.app import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")
