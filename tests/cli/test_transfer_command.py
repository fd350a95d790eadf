"""`kt transfer` as its user meets it: screens, what stays after a failure, kills."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import kt_cli
from kt_cli import files
from kt_cli.cli import screen, transfer_view
from kt_cli.data.remembered import forget
from kt_cli.data.sources import open_data
from kt_cli.distillation import checkpoint
from kt_cli.errors import KtError, StudentLost, WriteError
from kt_cli.knowledge.significance import mcnemar
from kt_cli.rows import store
from kt_cli.settings import DataSpec
from kt_cli.zoo import hub_push

Kt = Callable[..., tuple[int, str, str]]
SaveTiny = Callable[..., str]
DATA = ("--data", "digits", "--fraction", "0.1", "--limit", "60")
QUICK = (
    *DATA, "--epochs", "2", "--lr", "0.5", "-b", "32", "--micro-batch", "16", "--augment", "none",
    "--crop", "1", "--side", "32",
)  # fmt: skip


class Zoo(NamedTuple):
    vit: str
    resnet: str
    mambaout: str


@pytest.fixture
def zoo(save_tiny: SaveTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Zoo:
    """Three models, beside the empty folder in which commands run."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    names = Zoo._fields
    return Zoo(*(save_tiny(tmp_path / n, seed=i, arch=f"test_{n}") for i, n in enumerate(names)))


def content() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*"))


def predictions() -> list[Path]:
    return [path for path in Path(os.environ["KT_CACHE"]).rglob("*") if path.is_file()]


# --- screens ---------------------------------------------------------------------------------


def numbers(out: str, name: str) -> Any:
    """Those of a line of the table."""
    (line,) = [line for line in out.splitlines() if line.startswith(name)]
    return pytest.approx([float(part) for part in line.removeprefix(name).split()], abs=0.006)


def test_the_screen_says_what_the_row_says(kt: Kt, zoo: Zoo) -> None:
    code, out, err = kt("transfer", zoo.vit, zoo.resnet, *QUICK, "-m", "kl", "-o", "a")
    assert code == 0 and "Saved the student to a" in err
    code, text, _ = kt("transfer", zoo.vit, zoo.resnet, *QUICK, "-m", "kl", "-o", "b", "--json")
    row = json.loads(text)
    signed = f"{row['delta']:+.2f}".replace("-", "−")
    assert f"vit → resnet by kl, on {row['n_train']} images; evaluated on 60" in out
    assert f"transfer delta Δ {signed} points = gain {row['gain']:.2f} − loss" in out
    assert f"transfer rate {row['transfer_rate']:.1f}% of ρ⁺ · the teacher taught 100.0%" in out
    assert numbers(out, "student's top-1") == [row["student_acc"], row["after_acc"]]
    assert numbers(out, "vit's top-1") == [row["teacher_acc"]]
    assert numbers(out, "teacher right, student wrong (ρ⁺)") == [
        row["pos_flips"], row["pos_flips_after"],
    ]  # fmt: skip
    assert numbers(out, "student right, teacher wrong (ρ⁻)") == [
        row["neg_flips"], row["neg_flips_after"],
    ]  # fmt: skip
    assert ("running statistics alone" in out) == bool(row["delta_statistics"])
    assert "guard" not in out and content()[0] == "a"


def test_a_student_that_lost_too_much_fails_and_is_kept(kt: Kt, zoo: Zoo) -> None:
    """What it called everything is another class now: Δ of the one is −100, of all of them 0."""
    moved = (zoo.vit, zoo.resnet, *QUICK, "-m", "kl", "--lr", "30")
    code, text, _ = kt("transfer", *moved, "--fail-if-worse", "0", "-o", "free", "--json")
    row = json.loads(text)
    assert code == 0 and row["delta"] == 0 < row["loss"] and row["worse"] is None
    assert "more than was allowed" not in Path("free/README.md").read_text()
    code, text, err = kt("transfer", *moved, "--fail-if-class-worse", "99", "-o", "a", "--json")
    judged = json.loads(text)
    assert code == 3 and re.search(r"resnet lost more than was allowed: \d −100.00 points", err)
    assert "It is saved, and marked, in a." in err and judged["delta"] == 0
    assert judged["worse"] in Path("a/README.md").read_text()
    assert json.loads(Path("a/config.json").read_text())["kt"]["worse"] == judged["worse"]
    assert kt("transfer", *moved, "--fail-if-class-worse", "100", "-o", "b")[0] == 0
    code, _, err = kt("transfer", *moved, "--fail-if-worse=-1")
    assert code == 2 and "fail_if_worse must be zero or more, not -1.0" in err


def test_python_gets_the_student_that_lost_with_the_error(zoo: Zoo) -> None:
    with pytest.raises(
        StudentLost, match=r"resnet lost more than was allowed: .* points"
    ) as caught:
        kt_cli.transfer(
            zoo.vit, zoo.resnet, method="kl", lr=30.0, data="digits", fraction=0.1, limit=60,
            epochs=2, augment="none", batch_size=32, micro_batch=16, crop=1.0, side=32,
            fail_if_class_worse=50, output="lost",
        )  # fmt: skip
    assert caught.value.transferred.delta == 0
    assert caught.value.transferred.path == Path("lost") and Path("lost/config.json").exists()


def test_the_screen_of_several_teachers(kt: Kt, zoo: Zoo) -> None:
    several = (zoo.vit, zoo.mambaout, zoo.resnet, *QUICK)
    code, out, _ = kt("transfer", *several, "--together", "sequential", "-o", "s")
    assert code == 0 and "vit + mambaout → resnet by kl-dp (sequential)" in out
    assert "student's top-1 after each teacher: " in out and "all teachers wrong (ρ⁻)" in out
    assert "vit's top-1" in out and "mambaout's top-1" in out and "mambaout taught" in out
    code, out, _ = kt("transfer", *several, "--together", "soup", "-o", "p")
    assert code == 0 and "(soup)" in out and "student's top-1 of each part: " in out
    card = Path("p/README.md").read_text()
    assert "Several teachers: soup" in card and "| mambaout |" in card


def test_the_command_of_a_card_is_the_same_transfer(
    kt: Kt, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its models are called, wherever it is run; pushed, it shows no place of here."""
    weights = tmp_path / "own weights" / "resnet.safetensors"
    weights.parent.mkdir()
    shutil.copy(f"{zoo.resnet.partition(':')[2]}/model.safetensors", weights)
    labels = tmp_path / "valid labels.txt"
    labels.write_text("".join(f"{i}\n" for i in range(10)))
    asked = (zoo.vit, f"test_resnet@{weights}", *QUICK, "--valid-labels", str(labels), "--guard",
             "safe", "--guard-share", "0.02", "--force-guard", "--bn", "eval",
             "--limit", "20")  # fmt: skip
    code, out, err = kt("transfer", *asked, "-o", "a", "--json")
    assert code == 0, err
    (said,) = re.findall(r"^kt transfer .*", Path("a/README.md").read_text(), flags=re.M)
    pushed = hub_push._card(Path("a"), "org/student")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, again, err = kt(*shlex.split(said)[1:], "-o", "b", "--json")
    assert code == 0, err
    folders = tmp_path / "work/results/transfers", Path("results/transfers")
    rows = kt_cli.results(*folders, all_rows=True).rows("transfer")
    assert len(rows) == 2 and rows["run_id"].nunique() == 1
    assert json.loads(again)["delta"] == json.loads(out)["delta"]
    assert str(tmp_path) not in pushed and "kt transfer local-dir:PATH/TO/vit" in pushed
    assert "test_resnet@PATH/TO/resnet.safetensors" in pushed
    assert "--valid-labels 'PATH/TO/valid labels.txt'" in pushed


def test_the_screen_of_a_guard(kt: Kt, zoo: Zoo) -> None:
    images = ("--guard-share", "0.2", "--force-guard")
    guarded = (*images, "--guard", "gain")
    code, out, _ = kt("transfer", zoo.vit, zoo.resnet, *QUICK, "-m", "self", *guarded, "-o", "s")
    held = len(open_data(DataSpec("digits", guard=0.2), training=True).guard or ())
    assert code == 0 and "by self+guard" in out
    assert f"guard: the student stays as it was (α = 0), judged on {held} images" in out
    # A guarded method may be named as such, too.
    assert "nothing is proven; over the whole way these images bear out a Δ of " in out
    again = ("-m", "self+guard", *images, "-o", "t", "--json")
    code, text, _ = kt("transfer", zoo.vit, zoo.resnet, *QUICK, *again)
    row = json.loads(text)
    assert code == 0 and row["method"] == "self+guard" and row["guard_n"] == held
    assert Path("s/model.safetensors").read_bytes() == Path("t/model.safetensors").read_bytes()
    for guard, name, said in (
        ("safe:20", "safe:20", "guard: 100% of the way (α = 1)"), ("safe:20", "safe:20", "(p = "),
        ("shrink", "shrink", "Δ to be expected there, given the stated prior: "),
    ):  # fmt: skip
        asked = ("-m", "self", *images, "--guard", guard, "-o", "u", "--overwrite")
        code, out, _ = kt("transfer", zoo.vit, zoo.resnet, *QUICK, *asked)
        assert code == 0 and f"by self+{name}" in out and said in out


def test_names_are_no_markup(kt: Kt, save_tiny: SaveTiny, zoo: Zoo, tmp_path: Path) -> None:
    odd = save_tiny(tmp_path / "vit[b]", seed=9)
    code, out, _ = kt("transfer", odd, zoo.vit, *QUICK, "-o", "s")
    assert code == 0 and "vit[b] → vit" in out and "vit[b]'s top-1" in out


def test_without_a_name_the_student_has_its_own(kt: Kt, zoo: Zoo) -> None:
    code, _, err = kt("transfer", zoo.vit, zoo.resnet, *QUICK, "-m", "kl")
    (folder,) = Path("students").iterdir()
    assert code == 0 and folder.name.startswith("resnet-from-vit-kl-") and str(folder) in err


def test_settings_that_hardly_move_a_student_are_told(kt: Kt, zoo: Zoo) -> None:
    code, _, err = kt("transfer", zoo.vit, zoo.resnet, *DATA, "--epochs", "1", "--side", "32",
                      "-m", "kl", "-o", "s")  # fmt: skip
    assert code == 0 and "1 updates at learning rate 0.0001 will hardly move" in err
    slow = ("transfer", zoo.vit, zoo.resnet, *QUICK, "-m", "kl-mcl")
    code, out, err = kt(*slow, "-o", "t")
    assert code == 0 and "Lower --mcl-every" in err and "gain 0.00 − loss 0.00" in out
    code, _, err = kt(*slow, "--mcl-every", "1", "-o", "u")
    assert code == 0 and "Lower --mcl-tau" in err and "learning rate" not in err
    suggested = float(err.split("(say ")[1].split(")")[0])
    code, text, err = kt(*slow, "--mcl-every", "1", "--mcl-tau", str(suggested), "-o", "v",
                         "--json")  # fmt: skip
    assert code == 0 and "--mcl" not in err
    # Of the weights before, as much is left as after 10,000 updates with one step in two.
    updates = 2 * (json.loads(text)["n_train"] // 32)
    assert suggested**updates == pytest.approx(0.9999**5_000, abs=0.05)


def test_images_without_labels(kt: Kt, zoo: Zoo, tmp_path: Path) -> None:
    images = open_data(DataSpec("digits"), training=True).training()
    (tmp_path / "flat").mkdir()
    for i in range(40):
        images.read(i).save(tmp_path / "flat" / f"{i}.png")
    flat = ("--unlabelled", str(tmp_path / "flat"))
    for method in ("kl", "kl-dp-u", "self"):
        code, out, err = kt("transfer", zoo.vit, zoo.resnet, *QUICK, *flat, "-m", method,
                            "--fraction", "1", "-o", method)  # fmt: skip
        assert code == 0 and "on 40 images; evaluated on 60" in out, err
    before = content(), len(predictions())
    code, _, err = kt("transfer", zoo.vit, zoo.resnet, *QUICK, *flat, "-m", "kl-dp", "-o", "x")
    assert code == 2 and "kl-dp needs labels" in err and "kl-dp-u" in err
    assert (content(), len(predictions())) == before


def test_each_transfer_has_a_row_for_reports(kt: Kt, zoo: Zoo) -> None:
    rows = []
    for method, target in (("kl", "a"), ("kl-dp", "b"), ("kl", "a")):
        code, text, err = kt(
            "transfer", zoo.vit, zoo.resnet, *QUICK, "-m", method, "-o", target, "--json",
            "--overwrite",
        )  # fmt: skip
        assert code == 0, err
        rows.append(json.loads(text))
    assert [path.name for path in Path("results").iterdir()] == ["transfers"]
    found = kt_cli.results().rows().set_index("method")
    assert sorted(found.index) == ["kl", "kl-dp"]  # the same transfer again is the same row
    for row in rows:
        assert found.delta[row["method"]] == row["delta"]
        assert (Path("results/transfers") / found.path[row["method"]] / "config.json").exists()
    code, out, err = kt("report")
    assert code == 0 and "kl-dp" in out and "transfers" in out, err
    kt("transfer", zoo.vit, zoo.resnet, *QUICK, "--results", "mine", "-o", "c")
    assert len(kt_cli.results("mine").rows()) == 1


def test_a_row_that_cannot_be_kept_is_shown_all_the_same(
    kt: Kt, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, *_: Any) -> None:
        raise WriteError(f"cannot write {folder}: No space left on device")

    monkeypatch.setattr(store, "write", full)
    code, out, err = kt("transfer", zoo.vit, zoo.resnet, *QUICK, "-o", "a", "--results", "mine")
    assert code == 0 and "Verdict: " in out and Path("a/config.json").exists()
    assert "cannot write mine: No space left on device: kt report will not have" in err


def changed(gained: list[int], lost: list[int], n: int = 10_000, **more: Any) -> dict[str, Any]:
    """What the end of a screen goes by, of images gained and lost by class."""
    gain, loss = sum(gained), sum(lost)
    return {
        "n": n, "gain": 100 * gain / n, "loss": 100 * loss / n, "delta": 100 * (gain - loss) / n,
        "transfer_p": float(mcnemar(gain, loss)), "gain_by_class": gained, "loss_by_class": lost,
        "bn": "train", "delta_statistics": None, "delta_control": None, "schedule": "constant",
        "average": "none", **more,
    }  # fmt: skip


def test_the_classes_that_changed_most_by_name() -> None:
    names = ["ant", "bee-eater", "cat", "dog", "elk"]
    row = changed([3, 0, 9, 1, 5], [1, 4, 2, 1, 0])
    assert transfer_view._classes(row, names) == [
        "classes that gained most images: cat +7, elk +5, ant +2",
        "classes that lost most images: bee-eater −4",
    ]
    assert transfer_view._classes(changed([1, 0], [1, 0]), names[:2]) == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (changed([160], [150]), ["no significant change; with 10,000 images, of which 310 changed, "
                                 "a Δ of ±0.36 could be seen"]),
        (changed([0], [0]), ["no change: all 10,000 images are right or wrong as before"]),
        (changed([90], [30]), ["a significant gain of 0.60 points"]),
        (changed([30], [90]), ["a significant loss of 0.60 points", "--preset keep .*--guard"]),
        (changed([30], [90], schedule="cosine"), ["a significant loss", "^Tip: --guard"]),
        (changed([30], [90], guard_alpha=1.0), ["a significant loss of 0.60 points"]),
        (changed([30], [90], delta_statistics=-1.3, delta_control=-0.2),
         ["a significant loss", "statistics alone cost 1.30 points: --bn recompute"]),
        (changed([90], [30], delta_statistics=-1.3, delta_control=-2.0),
         ["a significant gain", "statistics alone cost 1.30 points: --bn eval"]),
        (changed([30], [90], delta_statistics=-0.01, bn="recompute"), ["loss", "--guard"]),
    ],
)  # fmt: skip
def test_the_verdict_in_words_and_a_tip_where_there_is_one(
    row: dict[str, Any], said: list[str]
) -> None:
    lines = transfer_view._verdict(row)
    assert len(lines) == len(said)
    assert all(re.search(part, line) for line, part in zip(lines, said, strict=True))


# --- failures ----------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_one_line(kt: Kt, zoo: Zoo) -> None:
    code, out, err = kt("transfer", zoo.vit, zoo.resnet, *QUICK, "--lr", "1e12", "-o", "s")
    assert code == 1 and "Error: the loss is " in err and "smaller learning rate" in err
    assert not out and "Traceback" not in err and not content()


@pytest.mark.parametrize("target", ["file/student", "file/deep/student"])
def test_a_place_that_takes_nothing_is_refused_before_any_work(
    kt: Kt, zoo: Zoo, target: str
) -> None:
    Path("file").write_text("not a folder")
    code, _, err = kt("transfer", zoo.vit, zoo.resnet, *QUICK, "-o", target)
    assert code == 1 and "cannot write" in err and target in err and "another folder" in err
    assert content() == ["file"]
    assert not [path for path in predictions() if "predictions" in path.parts]


def test_a_full_disk_leaves_nothing_half_written(
    kt: Kt, zoo: Zoo, small_disk: Callable[..., Path]
) -> None:
    disk = small_disk("300k")
    command = ("transfer", zoo.vit, zoo.resnet, *QUICK, "-o", str(disk / "s"))
    code, _, err = kt(*command)
    assert code == 1 and "No space left" in err and "Free some space" in err
    assert "Traceback" not in err and not list(disk.iterdir())


@pytest.mark.parametrize("command", ["transfer", "complementarity"])
@pytest.mark.parametrize(("seam", "number"), [("_fsync", errno.ENOSPC), ("_make", errno.EACCES)])
def test_a_full_or_forbidden_cache_costs_time_only(
    kt: Kt, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    command: str, seam: str, number: int,
) -> None:  # fmt: skip
    """Permissions do not bind root, so the system's refusal is made where all writes pass."""
    how = (*QUICK, "-o", "student") if command == "transfer" else ("--data", "digits")
    code, wanted, _ = kt(command, zoo.vit, zoo.resnet, *how)
    assert code == 0
    shutil.rmtree("student", ignore_errors=True)
    full, usual = tmp_path / "full", getattr(files, seam)

    def refused(path: Path) -> None:
        if full in path.parents:
            raise OSError(number, os.strerror(number))
        usual(path)

    monkeypatch.setattr(files, seam, refused)
    monkeypatch.setenv("KT_CACHE", str(full))
    forget()
    code, out, err = kt(command, zoo.vit, zoo.resnet, *how)
    assert code == 0, err
    assert re.findall(r"[-+]?\d+\.\d\d", out) == re.findall(r"[-+]?\d+\.\d\d", wanted)
    assert err.count(f"cannot be written ({os.strerror(number)})") == 1 and str(full) in err
    assert not [path for path in full.rglob("*") if path.is_file()]


# --- the hub -----------------------------------------------------------------------------------


class Hub:
    def __init__(self) -> None:
        self.pushed: list[tuple[Path, str, bool, str]] = []

    def push(self, folder: Path, repo: str, private: bool, message: str) -> str:
        assert (folder / "model.safetensors").exists()
        self.pushed.append((folder, repo, private, message))
        return f"https://hub.example/{repo}"


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub()
    monkeypatch.setattr(hub_push, "require_pushable", lambda repo: None)
    monkeypatch.setattr(hub_push, "push", found.push)
    return found


@pytest.mark.parametrize("private", [True, False])
def test_the_student_is_pushed(kt: Kt, zoo: Zoo, remote: Hub, private: bool) -> None:
    flags = ("--push-to-hub", "me/student", *["--private"] * private)
    code, out, err = kt("transfer", zoo.vit, zoo.resnet, *QUICK, "-o", "s", *flags, "--json")
    assert code == 0 and json.loads(out)["student"] == "resnet"
    assert remote.pushed == [(Path("s"), "me/student", private, "resnet taught by vit (kl-dp)")]
    assert "https://hub.example/me/student" in err


def test_what_cannot_be_pushed_is_refused_before_any_work(
    kt: Kt, zoo: Zoo, remote: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(repo: str) -> None:
        raise KtError(f"cannot push to {repo}: no token", "Log in.")

    monkeypatch.setattr(hub_push, "require_pushable", refuse)
    code, _, err = kt("transfer", zoo.vit, zoo.resnet, *QUICK, "--push-to-hub", "me/student")
    assert code == 1 and "cannot push to me/student" in err and "Log in." in err
    assert not content() and not predictions() and not remote.pushed


def test_a_push_that_fails_leaves_the_student(
    kt: Kt, zoo: Zoo, remote: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> str:
        raise KtError("pushing failed: 503", "Push it later.")

    monkeypatch.setattr(hub_push, "push", fail)
    flags = ("--push-to-hub", "me/student", "-o", "s")
    code, out, err = kt("transfer", zoo.vit, zoo.resnet, *QUICK, *flags)
    assert code == 1 and "pushing failed" in err and "transfer delta" in out
    assert Path("s/model.safetensors").exists()


def test_teams_that_cannot_be_taught_so_are_refused_by_the_plan(kt: Kt, zoo: Zoo) -> None:
    models = ",".join((zoo.vit, zoo.resnet, zoo.mambaout))
    way = ("--together", "sequential", "--team", "2", "--subtract-drift")
    code, _, err = kt("sweep", "--models", models, "--data", "digits", *way, "--dry-run")
    assert code == 2 and "--subtract-drift cannot be had with sequential teachers" in err


# --- interrupts and kills ------------------------------------------------------------------------


@pytest.fixture
def every_update(monkeypatch: pytest.MonkeyPatch) -> None:
    of_run = checkpoint.of_run
    monkeypatch.setattr(checkpoint, "of_run", lambda *where: replace(of_run(*where), seconds=0.0))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_transfer_goes_on_with_the_same_command(
    kt: Kt, zoo: Zoo, every_update: None, monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals, code: int,
) -> None:  # fmt: skip
    command = ("transfer", zoo.vit, zoo.resnet, *QUICK, "-m", "crd")
    assert kt(*command, "-o", "whole")[0] == 0
    done: list[int] = []

    def interrupt(lines: object, at: int, total: int, what: str) -> None:
        if what == "transfer":
            done.append(at)
            if at == 1:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(screen._Lines, "__call__", interrupt)
    found, out, err = kt(*command, "-o", "cut")
    assert found == code and "the same command goes on from there" in err
    assert not out and "Traceback" not in err and not Path("cut").exists()
    assert kt(*command, "-o", "cut")[0] == 0
    assert done == [1, 2]
    assert not list(Path().rglob("*.checkpoints*"))
    whole, cut = (Path(name, "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


# Imports once; the command runs in a child, which is killed when its checkpoint has been written
# a random number of times, a random moment later, until FOLDER/cut/s is there; then undisturbed in
# FOLDER/whole/s. Prints how many were killed.
KILLER = """
import os, random, signal, sys, time
from dataclasses import replace
from pathlib import Path
import timm, torch
import kt_cli.runs.transfer
from kt_cli.cli.app import main
from kt_cli.distillation import checkpoint

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
whole, cut = folder / "whole" / "s", folder / "cut" / "s"
of_run = checkpoint.of_run
checkpoint.of_run = lambda *where: replace(of_run(*where), seconds=0.0)
rng = random.Random(0)

def written():
    try:
        found = [p.stat() for p in cut.parent.glob(".checkpoints/*/*.safetensors")]
    except FileNotFoundError:
        return None
    return [(s.st_ino, s.st_mtime_ns) for s in found]

def start(target):
    pid = os.fork()
    if pid:
        return pid
    torch.set_num_threads(1)
    sys.argv = ["kt", "transfer", *sys.argv[3:], "-o", str(target)]
    try:
        main()
    except SystemExit as done:
        os._exit(done.code or 0)
    os._exit(0)

def killed(wanted):
    pid, seen, before = start(cut), 0, written()
    while seen < wanted:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            raise SystemExit(f"it ended too early: {os.waitstatus_to_exitcode(status)}")
        now = written()
        if now not in (None, before):
            seen, before = seen + 1, now
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.03))
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])

print(sum(killed(rng.randint(1, 3)) for _ in range(kills)))
codes = [os.waitstatus_to_exitcode(os.waitpid(start(one), 0)[1]) for one in (cut, whole)]
sys.exit(max(map(abs, codes)))
"""


def killed(folder: Path, kills: int, arguments: tuple[str, ...]) -> None:
    for name in ("cut", "whole"):
        (folder / name).mkdir()
    command = [sys.executable, "-c", KILLER, str(folder), str(kills), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"{kills}\n" in done.stdout and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("method", "teachers", "kills"),
    [("crd", ("vit", "mambaout"), 3), ("xekl-mcl", ("vit",), 2)],
)
def test_killed_again_and_again_it_ends_in_the_same_student(
    zoo: Zoo, tmp_path: Path, method: str, teachers: tuple[str, ...], kills: int
) -> None:
    models = [*(getattr(zoo, name) for name in teachers), zoo.resnet]
    together = ("--together", "sequential") if len(teachers) > 1 else ()
    # 5 updates an epoch, in 3 epochs of each teacher.
    arguments = (*models, *QUICK, "--epochs", "3", "-b", "16", "--micro-batch", "8", "--lr", "0.2",
                 "--mcl-tau", "0.5", "--mcl-every", "2", "--augment", "paper", "-m", method,
                 *together)  # fmt: skip
    killed(tmp_path, kills, arguments)
    for name in ("model.safetensors", "config.json", "README.md"):
        whole, cut = (tmp_path / folder / "s" / name for folder in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes(), name
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["s"]
