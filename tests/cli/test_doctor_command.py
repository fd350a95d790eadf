from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kt_cli.diagnosis import checks
from kt_cli.diagnosis.finding import Asked, Check, Finding, green, red, yellow

Kt = Callable[..., tuple[int, str, str]]
LONG = "as long as a line of a log may be, and then some more; " * 5 + "end"


def says(*findings: Finding, asked: list[Asked] | None = None) -> Check:
    def check(given: Asked) -> list[Finding]:
        if asked is not None:
            asked.append(given)
        return list(findings)

    return check


def broken(asked: Asked) -> list[Finding]:
    raise OSError("the disk is gone")


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, Check]:
    """Checks in place of the real ones."""
    made: dict[str, Check] = {}
    monkeypatch.setattr(checks, "CHECKS", made)
    return made


def test_findings_are_lines_with_what_to_do_below(kt: Kt, table: dict[str, Check]) -> None:
    table |= {"python": says(green("3.12")), "disk space": says(yellow("a", LONG), green("[b]"))}
    code, out, _ = kt("doctor")
    assert code == 0
    assert out.splitlines() == [
        "green   python      3.12",
        "yellow  disk space  a",
        f"                    → {LONG}",
        "green               [b]",
    ]


def test_red_is_exit_code_1(kt: Kt, table: dict[str, Check]) -> None:
    table |= {"a": says(green("x")), "b": says(red("y", "do z"))}
    code, out, err = kt("doctor")
    assert code == 1
    assert "red     b  y" in out and "→ do z" in out
    assert "1 of 2 findings is red" in err
    table["c"] = broken
    code, out, err = kt("doctor")
    assert code == 1 and "the disk is gone" in out and "2 of 3 findings are red" in err


def test_json(kt: Kt, table: dict[str, Check]) -> None:
    table |= {"a": says(green("x")), "b": says(red("y", "do z"))}
    code, out, _ = kt("doctor", "--json")
    assert code == 1
    assert json.loads(out) == [
        {"level": "green", "message": "x", "advice": "", "check": "a"},
        {"level": "red", "message": "y", "advice": "do z", "check": "b"},
    ]


def test_options_reach_the_checks(kt: Kt, table: dict[str, Check], tmp_path: Path) -> None:
    asked: list[Asked] = []
    table["a"] = says(green("x"), asked=asked)
    assert kt("doctor")[0] == 0
    assert kt("doctor", "--data", str(tmp_path), "--limit", "7", "--slurm-test",
              "--partition", "gpu", "--qos", "high")[0] == 0  # fmt: skip
    plain, full = asked
    assert (plain.data, plain.slurm_test, dict(plain.sbatch or {})) == (None, False, {})
    assert full.data is not None and full.data.source == str(tmp_path)
    assert (full.limit, full.slurm_test) == (7, True)
    assert full.sbatch == {"partition": "gpu", "qos": "high"}


def test_the_real_checks_on_digits(kt: Kt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # neither a driver nor Slurm
    _, out, _ = kt("doctor", "--data", "digits", "--json")
    found = json.loads(out)
    said = {(f["check"], f["level"]) for f in found}
    assert {("python", "green"), ("libraries", "green"), ("slurm", "green")} <= said
    assert ("data", "green") in said and ("hub", "yellow") in said
    assert set(checks.CHECKS) - {f["check"] for f in found} == {"test job"}
    assert all(f["advice"] for f in found if f["level"] != "green")
    assert "899 evaluation images" in out


def test_a_broken_library_does_not_break_the_doctor() -> None:
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('torch', 'timm', 'pyarrow'))\n"
        "sys.argv = ['kt', 'doctor', '--data', 'digits', '--json']\n"
        "from kt_cli.cli.app import main\n"
        "main()\n"
    )
    environment = {**os.environ, "PATH": ""}  # neither a driver nor Slurm
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert shown.returncode == 1
    found = {(f["check"], f["level"]): f["message"] for f in json.loads(shown.stdout)}
    assert "import torch" in "".join(
        f["message"] for f in json.loads(shown.stdout) if f["check"] == "libraries"
    )
    assert ("python", "green") in found and ("packages", "green") in found
    assert ("gpus", "red") in found and "torch" in found["gpus", "red"]
