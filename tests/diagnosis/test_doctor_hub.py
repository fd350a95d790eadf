from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from kt_cli.diagnosis import hub
from kt_cli.zoo import timm_registry

Look = Callable[..., list[tuple[str, str]]]


@pytest.mark.parametrize(
    ("offline", "answers", "level", "said"),
    [
        (True, True, "yellow", "HF_HUB_OFFLINE"),
        (False, True, "green", "https://hub.example answers"),
        (False, False, "yellow", "does not answer"),
    ],
)
def test_whether_the_hub_answers(
    look: Look, monkeypatch: pytest.MonkeyPatch, offline: bool, answers: bool, level: str, said: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    monkeypatch.setattr(timm_registry, "hub_answers", lambda: answers)
    ((found, message),) = look(hub.reachable)
    assert found == level and said in message
    assert ("kt models prefetch" in message) == (level == "yellow")


def who(token: str) -> dict[str, str]:
    if token != "right":
        raise OSError("Invalid user token.\nSee")
    return {"name": "ada"}


@pytest.mark.parametrize(
    ("token", "answers", "level", "said"),
    [
        (None, True, "green", "no token"),
        ("right", False, "green", "cannot be tried"),
        ("right", True, "green", "logged in as ada"),
        ("wrong", True, "yellow", "not accepted: Invalid user token. →"),
    ],
)
def test_the_token(
    look: Look, monkeypatch: pytest.MonkeyPatch, token: str, answers: bool, level: str, said: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    monkeypatch.setattr(huggingface_hub, "whoami", who)
    monkeypatch.setattr(timm_registry, "hub_answers", lambda: answers)
    ((found, message),) = look(hub.token)
    assert found == level and said in message


def test_the_models_of_the_cache_are_counted(
    look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert look(hub.weights)[0][0] == "yellow"
    for name in ("models--timm--a", "models--timm--b", "datasets--c"):
        (tmp_path / "hub" / name).mkdir(parents=True)
    assert look(hub.weights) == [("green", f"{tmp_path / 'hub'} (HF_HOME): 2 models → ")]
