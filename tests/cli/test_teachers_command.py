"""`kt teachers`: who could make a student better, from predictions and earlier transfers."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import kt_cli
from kt_cli.rows import store

Kt = Callable[..., tuple[int, str, str]]
SaveTiny = Callable[..., str]
DATA = ("--data", "digits")


@pytest.fixture
def zoo(save_tiny: SaveTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("vit", "resnet", "convnext")):
        save_tiny(tmp_path / "zoo" / name, seed=i, arch=f"test_{name}")
    path = Path("zoo/vit/model.safetensors")
    weights = load_file(path)  # a student that is sure of nothing, so all is within its reach
    save_file({k: v * 1e-3 if k.startswith("head") else v for k, v in weights.items()}, path)
    return Path("zoo")


def test_teachers_are_ranked_and_a_command_is_given_that_runs(kt: Kt, zoo: Path) -> None:
    code, text, err = kt("teachers", "zoo/vit", "--among", "zoo", *DATA, "--json", "--team", "2")
    assert code == 0, err
    said = json.loads(text)
    scores = [row["accuracy"] for row in said["teachers"]]
    assert said["student"] == "vit" and said["n"] == 899
    assert scores == sorted(scores, reverse=True) and len(scores) == 2
    found = kt_cli.teachers("zoo/vit", ["zoo"], team=2, data="digits")
    assert found.to_dict() == said and list(found.table["teacher"]) == [
        row["teacher"] for row in said["teachers"]
    ]
    words = shlex.split(said["command"])
    assert words[:2] == ["kt", "transfer"]
    assert words[-4:] == ["--data", "digits", "--together", "parallel"]
    quick = ("--fraction", "0.05", "--epochs", "1", "--lr", "0.1", "-b", "16", "--micro-batch",
             "16", "--side", "32", "-o", "student", "--limit", "20")  # fmt: skip
    assert kt(*words[1:], *quick)[0] == 0


def test_the_screen_names_the_first_and_what_is_not_known(kt: Kt, zoo: Path) -> None:
    code, out, _ = kt("teachers", "zoo/vit", "--among", "zoo", *DATA, "--top", "1")
    assert code == 0 and out.startswith("vit: 899 images · top-1 ")
    assert "(1 more: --top, or --json for all)" in out and "a transfer will tell" in out
    assert "Try: kt transfer " in out
    unlabelled = kt_cli.teachers("zoo/vit", ["zoo"], labels=False, data="digits")
    assert unlabelled.to_dict()["accuracy"] is None
    code, out, _ = kt("teachers", "zoo/vit", "--among", "zoo", *DATA, "--no-labels")
    assert code == 0 and "top-1" not in out and "--method kl-dp-u" in out


def test_the_cache_alone_is_asked_where_nothing_may_be_predicted(kt: Kt, zoo: Path) -> None:
    asked = ("teachers", "zoo/vit", "--among", "zoo", *DATA, "--json")
    code, _, err = kt(*asked, "--cached-only")
    assert code == 2 and "no predictions of vit" in err
    assert kt(*asked)[:2] == kt(*asked, "--cached-only")[:2]
    for mode in (False, True):  # nothing that takes seconds to import
        code = (
            "import sys, kt_cli\n"
            f"kt_cli.teachers('zoo/vit', ['zoo'], data='digits', cached_only={mode})\n"
            "heavy = {'torch', 'timm'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        device = {**os.environ, "KT_DEVICE": "cpu"}
        done = subprocess.run([sys.executable, "-c", code], env=device, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()


def test_what_was_said_of_the_images_is_in_the_command(kt: Kt, zoo: Path) -> None:
    Path("kept").write_text("".join(f"{i}\n" for i in range(10)))
    said = ("--valid-labels", "kept", "--limit", "300", "--eval-size", "train")
    code, text, err = kt("teachers", "zoo/vit", "--among", "zoo", *DATA, *said, "--json")
    assert code == 0, err
    words = shlex.split(json.loads(text)["command"])
    assert words[4:] == [
        "--data", "digits", "--limit", "300", "--valid-labels", str(Path("kept").absolute()),
        "--eval-size", "train",
    ]  # fmt: skip
    code, text, err = kt(
        *words[1:], "--fraction", "0.05", "--epochs", "1", "--side", "32", "--json"
    )
    assert code == 0 and json.loads(text)["n"] == 300, err


def test_earlier_transfers_of_the_student_decide(kt: Kt, zoo: Path) -> None:
    first = kt_cli.teachers("zoo/vit", ["zoo"], data="digits")
    rows = [
        {"run_id": f"{i}", "status": store.OK, "teacher_key": model.key, "teacher": model.name,
         "student_key": first.student.key, "student": "vit", "method": "kl-dp", "seed": 0,
         "data": "digits", "delta": delta, "transfer_p": 0.001, "lr": 0.01, "epochs": 7}
        for i, (model, delta) in enumerate(zip(first.teachers, (-2.0, 1.5), strict=True))
    ]  # fmt: skip
    rows[1]["kd_topk"] = 3  # beside a null
    store.write(Path("results/transfers"), "transfer", rows)
    code, out, _ = kt("teachers", "zoo/vit", "--among", "zoo", *DATA)
    better, worse = (first.teachers[i].name for i in (1, 0))
    assert code == 0 and "helped before" in out and "harmed before" in out
    assert out.index(better) < out.index(worse) and "1 of 2 are worth a try" in out
    assert "--epochs 7 --lr 0.01" in out and "--kd-topk 3" in out and "3.0" not in out
    alone = {**rows[0], "run_id": "s", "method": "self", "delta": -0.5, "delta_control": -0.3}
    store.write(Path("results/transfers"), "transfer", [alone])
    code, out, _ = kt("teachers", "zoo/vit", "--among", "zoo", *DATA)
    assert "by running statistics −0.30, by itself (self) −0.50 points" in out
    again = kt_cli.teachers("zoo/vit", ["zoo"], data="digits")
    assert {one.count for one in again.measured if one} == {1}  # nobody taught in `self`
    unseen = kt_cli.teachers("zoo/vit", ["zoo"], data="digits", results=[])
    assert unseen.measured == (None, None)
    rows[1]["delta"] = -1.0
    store.write(Path("other"), "transfer", rows)
    code, out, _ = kt("teachers", "zoo/vit", "--among", "zoo", *DATA, "--results", "other")
    assert code == 0 and "None of these" in out and "Try:" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["zoo/vit", "--among", "zoo/vit"], "vit alone has no teacher"),
        (["zoo/vit", "--among", "zoo", "--team", "2", "--no-labels"], "chosen by labels"),
        (["zoo", "--among", "zoo"], "zoo"),
        (["zoo/vti", "--among", "zoo"], "zoo/vti"),
        (["zoo/vit", "--among", "zoo", "--results", "nowhere"], "nowhere"),
    ],
)
def test_wrong_usage_is_told(kt: Kt, zoo: Path, arguments: list[str], said: str) -> None:
    code, _, err = kt("teachers", *arguments, *DATA)
    assert code == 2 and said in err


def test_other_data_and_other_methods_say_nothing(kt: Kt, zoo: Path) -> None:
    first = kt_cli.teachers("zoo/vit", ["zoo"], data="digits")
    rows = [
        {"run_id": f"{data} {method}", "status": store.OK, "teacher_key": first.teachers[0].key,
         "teacher": "x", "student_key": first.student.key, "student": "vit", "method": method,
         "seed": 0, "data": data, "delta": delta, "transfer_p": 0.001}
        for data, method, delta in (("digits", "kl", -2.0), ("birds", "kl-dp", -3.0),
                                    ("digits", "kl-dp-u", -4.0), ("digits", "kl-dp", 1.0),
                                    ("digits", "kl-dp+safe", 40.0))
    ]  # fmt: skip
    store.write(Path("results/transfers"), "transfer", rows)
    for labels, delta in ((True, 1.0), (False, -4.0)):
        found = kt_cli.teachers("zoo/vit", ["zoo"], data="digits", labels=labels)
        assert [(one.delta, one.count) for one in found.measured if one] == [(delta, 1)]
    part = next(Path("results/transfers/transfer").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-5])
    store.write(Path("results/transfers"), "transfer", [{**rows[0], "run_id": "other"}])
    code, out, err = kt("teachers", "zoo/vit", "--among", "zoo", *DATA)
    assert code == 0 and "Δ so far" not in out and f"{part.name} is skipped" in err


def test_what_one_said_is_no_model_that_could_teach(kt: Kt, zoo: Path) -> None:
    Path("said.csv").write_text("id,pred\n0,1\n")
    code, _, err = kt("teachers", "zoo/vit", "--among", "predictions:said.csv", *DATA)
    assert code == 2 and "needs a model's weights" in err
