"""`kt explain`: what changed, of a student by itself or of two models that are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kt_cli.zoo import hub_push, local_models

Kt = Callable[..., tuple[int, str, str]]
SaveTiny = Callable[..., str]
DATA = ("--data", "digits", "--limit", "60")
QUICK = ("--fraction", "0.1", "--epochs", "2", "--lr", "0.5", "-b", "32", "--micro-batch", "16",
         "--augment", "none", "--crop", "1", "--side", "32")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explained")


@pytest.fixture
def student(kt: Kt, save_tiny: SaveTiny, place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A student that kt saved, beside the models that it came from: made once."""
    monkeypatch.chdir(place)
    if not Path("student").exists():
        vit, resnet = (
            save_tiny(place / name, seed=i, arch=f"test_{name}")
            for i, name in enumerate(("vit", "resnet"))
        )
        assert kt("transfer", vit, resnet, *DATA, *QUICK, "-o", "student")[0] == 0
    return "student"


def test_a_saved_student_says_itself_what_it_came_from(
    kt: Kt, student: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = kt("explain", student, "--json")
    assert code == 0, err
    alone = json.loads(out)
    monkeypatch.setenv("KT_DATA", "/no/such")
    assert kt("explain", student, "--json")[1] == out
    assert [Path(name).name for name in alone["names"]] == ["resnet", "student", "vit"]
    pair = ("local-dir:resnet", "local-dir:student", "--teacher", "local-dir:vit")
    code, out, _ = kt("explain", *pair, *DATA, "--json")
    assert code == 0 and json.loads(out) == alone
    fewer = json.loads(kt("explain", student, "--limit", "30", "--json")[1])
    assert (alone["n"], fewer["n"]) == (60, 30)


def test_the_screen_begins_with_the_verdict(kt: Kt, student: str) -> None:
    said = json.loads(kt("explain", student, "--json")[1])
    listed = json.loads(kt("explain", student, "--json", "--samples", "2")[1])["samples"]
    assert "samples" not in said and 0 < len(listed["gained"]) <= 2
    code, out, _ = kt("explain", student, "--samples", "2")
    assert listed["gained"][0]["id"] in out
    assert code == 0 and out.startswith(said["verdict"])
    for title in ("classes that gained and lost most", "confusions that moved most"):
        assert title in out
    assert "images that were gained" in out and "teacher's answer" in out


@pytest.mark.parametrize("ending", ["html", "png"])
def test_a_gallery_shows_what_was_gained_and_lost(kt: Kt, student: str, ending: str) -> None:
    code, _, err = kt("explain", student, "--gallery", f"changed.{ending}")
    assert code == 0 and f"Drew changed.{ending}" in err
    content = Path(f"changed.{ending}").read_bytes()
    if ending == "html":
        text = content.decode()
        assert text.count("<h2>") == 2 and "vit: " in text
    else:
        assert content.startswith(b"\x89PNG")


def test_what_goes_to_the_hub_names_no_place_of_this_machine(student: str) -> None:
    kept = json.loads(Path(student, "config.json").read_text())["kt"]
    sent = json.loads(hub_push._config(Path(student)))["kt"]
    assert kept.pop(local_models.ORIGIN)["models"] and sent == kept


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "none is no student that kt transfer saved"),
        (["resnet"], "does not say what the model came from"),
        (["a", "b", "c"], "one model or two"),
        (["local-dir:resnet", "local-dir:resnet", *DATA], "one model"),
        (["student", "--gallery", "x.docx"], "cannot draw into x.docx"),
    ],
)
def test_wrong_usage_is_told(kt: Kt, student: str, arguments: list[str], said: str) -> None:
    code, _, err = kt("explain", *arguments)
    assert code == 2 and said in err


def test_a_teacher_that_cannot_be_evaluated_is_not_taken_for_another(kt: Kt, student: str) -> None:
    shutil.copytree("vit", "broken", dirs_exist_ok=True)
    weights = Path("broken", "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    pair = ("local-dir:resnet", f"local-dir:{student}", "--teacher", "local-dir:broken")
    code, _, err = kt("explain", *pair, *DATA)
    assert code and "1 of the models could not be evaluated" in err


def test_a_saved_student_may_be_named_as_a_model(kt: Kt, student: str) -> None:
    assert kt("explain", f"local-dir:{student}")[:2] == kt("explain", student)[:2]
