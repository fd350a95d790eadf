from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError

import pytest

from kt_cli.diagnosis import installation

Look = Callable[..., list[tuple[str, str]]]
Fake = Callable[[list[str], dict[str, str]], None]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """What kt says that it needs, and what is installed."""

    def make(needed: list[str], there: dict[str, str]) -> None:
        def version(name: str) -> str:
            if name not in there:
                raise PackageNotFoundError(name)
            return there[name]

        monkeypatch.setattr(installation, "requires", lambda name: needed)
        monkeypatch.setattr(installation, "version", version)
        monkeypatch.setattr(installation, "SHOWN", tuple(there))

    return make


def absent(name: str) -> None:
    raise PackageNotFoundError(name)


def test_what_is_met_is_shown(look: Look, fake: Fake) -> None:
    fake(["torch>=2.4", "tomli>=2; python_version < '3'", "x; extra == 'dev'"], {"torch": "2.5.0"})
    assert look(installation.packages) == [("green", "torch 2.5.0 → ")]


def test_versions_of_local_builds_count(look: Look, fake: Fake) -> None:
    fake(["torch>=2.4"], {"torch": "2.6.0.dev20250101+cu124"})
    assert look(installation.packages)[0][0] == "green"


def test_what_is_missing_or_too_old_is_named_with_what_to_install(look: Look, fake: Fake) -> None:
    fake(["torch>=2.4", "timm>=1.0.31", "rich"], {"torch": "2.3.1", "rich": "13"})
    ((level, said),) = look(installation.packages)
    assert level == "red"
    assert "torch 2.3.1, but >=2.4 is needed; timm is missing" in said
    assert "pip install 'torch>=2.4' 'timm>=1.0.31'" in said


def test_kt_that_is_not_installed(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "requires", absent)
    monkeypatch.setattr(installation, "metadata", absent)
    assert look(installation.packages)[0][0] == "yellow"
    assert look(installation.python)[0][0] == "yellow"


@pytest.mark.parametrize(("needed", "level"), [(">=3.10", "green"), (">=3.99", "red")])
def test_python(look: Look, monkeypatch: pytest.MonkeyPatch, needed: str, level: str) -> None:
    monkeypatch.setattr(installation, "metadata", lambda name: {"Requires-Python": needed})
    ((found, said),) = look(installation.python)
    assert found == level and platform.python_version() in said
    assert (needed in said) == (level == "red")


def test_here_everything_can_be_imported(look: Look) -> None:
    assert look(installation.libraries)[0][0] == "green"


def test_a_library_that_is_broken_is_red(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    ((level, said),) = look(installation.libraries)
    assert level == "red" and re.match(r"import pyarrow.parquet: \w+Error: ", said)
