"""What goes up to the hub, at the seam of its library: nothing here reaches a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, ModelCard, RepoUrl, constants
from torch import nn

from kt_cli.distillation.cards import HOW_TO_LOAD
from kt_cli.errors import DataError, KtError, UsageError
from kt_cli.zoo import hub_push, save

SaveModel = Callable[..., Path]


@dataclass
class Hub:
    """The hub as far as a push sees it: who may see which repository, and what is in it."""

    private: dict[str, bool] = field(default_factory=dict)
    content: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    broken: Exception | None = None

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> RepoUrl:
        assert exist_ok
        full = repo_id if "/" in repo_id else f"me/{repo_id}"
        self.private.setdefault(full, private)
        return RepoUrl(f"https://huggingface.co/{full}")

    def model_info(self, repo_id: str) -> Any:
        @dataclass
        class Info:
            private: bool

        return Info(self.private[repo_id])

    def create_commit(
        self, repo_id: str, operations: Iterable[CommitOperationAdd], *, commit_message: str
    ) -> None:
        if self.broken is not None:
            raise self.broken
        files = self.content.setdefault(repo_id, {})
        for operation in operations:
            with operation.as_file() as file:
                files[operation.path_in_repo] = file.read()
        self.messages.append(commit_message)


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: found)
    return found


@pytest.fixture
def logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")


@pytest.mark.parametrize("name", ["me/student", "student", "Org-1/a.b_c-2"])
def test_what_can_be_pushed(logged_in: None, name: str) -> None:
    hub_push.require_pushable(name)


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "https://huggingface.co/a/b", "a b", "-a", "a--b", "x" * 97, "a/b.git"]
)
def test_names_that_no_repository_can_have(logged_in: None, name: str) -> None:
    with pytest.raises(UsageError, match="no name for a repository") as raised:
        hub_push.require_pushable(name)
    assert repr(name) in raised.value.message and "ORG/NAME" in raised.value.tip


def test_offline_nothing_is_pushed(monkeypatch: pytest.MonkeyPatch, logged_in: None) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(KtError, match="me/student: HF_HUB_OFFLINE is set"):
        hub_push.require_pushable("me/student")


def test_without_a_token_nothing_is_pushed(
    monkeypatch: pytest.MonkeyPatch, logged_in: None
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(KtError, match="me/student: there is no token") as raised:
        hub_push.require_pushable("me/student")
    assert "hf auth login" in raised.value.tip and "HF_TOKEN" in raised.value.tip


@pytest.mark.parametrize(("repo", "full"), [("org/student", "org/student"), ("mine", "me/mine")])
def test_only_the_files_of_the_model_go_up(
    remote: Hub, save_model: SaveModel, repo: str, full: str
) -> None:
    folder = save_model("student")
    (folder / "notes.txt").write_text("mine")
    (folder / ".checkpoints").mkdir()
    (folder / ".checkpoints" / "state.safetensors").write_bytes(b"state")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert hub_push.push(folder, repo, False, "a student") == f"https://huggingface.co/{full}"
    up = remote.content[full]
    assert sorted(up) == ["README.md", "config.json", "model.safetensors"]
    assert up["config.json"] == before["config.json"]
    assert up["model.safetensors"] == before["model.safetensors"]
    assert remote.messages == ["a student"] and remote.private == {full: False}
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_the_card_has_what_the_hub_reads_and_says_how_to_load(
    remote: Hub, save_model: SaveModel
) -> None:
    folder = save_model("student")
    (folder / "README.md").write_text(f"# Schüler\n{HOW_TO_LOAD}", encoding="utf-8")
    hub_push.push(folder, "mine", False, "")
    card: Any = ModelCard(remote.content["me/mine"]["README.md"].decode())
    assert card.data.to_dict() == {
        "library_name": "timm",
        "tags": ["image-classification", "timm", "kt"],
    }
    assert card.text.startswith("\n# Schüler\n")
    assert 'timm.create_model("hf-hub:me/mine", pretrained=True)' in card.text
    assert "local-dir:" not in card.text


def test_front_matter_that_is_there_stays(remote: Hub, save_model: SaveModel) -> None:
    folder = save_model("student")
    mine = "---\nlicense: mit\n---\n# Mine\n"
    (folder / "README.md").write_text(mine)
    hub_push.push(folder, "org/student", False, "")
    assert remote.content["org/student"]["README.md"].decode() == mine


def test_a_module_that_is_not_of_timm_does_not_claim_to_be(remote: Hub, tmp_path: Path) -> None:
    config = {
        "input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3,
        "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "center",
    }  # fmt: skip
    save.save(
        nn.Linear(3, 2), tmp_path / "own", data_config=config, num_classes=2, label_names=None,
        card="# own\n", extra={},
    )  # fmt: skip
    assert "architecture" not in json.loads((tmp_path / "own" / "config.json").read_text())
    hub_push.push(tmp_path / "own", "org/own", False, "")
    card: Any = ModelCard(remote.content["org/own"]["README.md"].decode())
    assert card.data.to_dict() == {"tags": ["image-classification", "kt"]}


def test_private_is_private(remote: Hub, save_model: SaveModel) -> None:
    hub_push.push(save_model("student"), "org/student", True, "")
    assert remote.private == {"org/student": True} and "org/student" in remote.content


def test_what_is_to_be_private_does_not_go_to_a_public_repository(
    remote: Hub, save_model: SaveModel
) -> None:
    remote.private["org/student"] = False
    folder = save_model("student")
    with pytest.raises(KtError, match="org/student is public") as raised:
        hub_push.push(folder, "org/student", True, "")
    assert f"saved in {folder}" in raised.value.message and raised.value.tip
    assert not remote.content


@pytest.mark.parametrize(("private", "flag"), [(False, ""), (True, " --private")])
def test_when_the_upload_fails_the_student_is_not_lost(
    remote: Hub, save_model: SaveModel, private: bool, flag: str
) -> None:
    remote.broken = RuntimeError("403 Forbidden: no\nmore about it")
    folder = save_model("my student")
    with pytest.raises(KtError) as raised:
        hub_push.push(folder, "org/student", private, "")
    said = f"the student is saved in {folder}; pushing failed: 403 Forbidden: no"
    assert raised.value.message == said and raised.value.exit_code == 1
    assert raised.value.tip == f"Push it later: hf upload{flag} org/student '{folder}' ."
    assert (folder / "model.safetensors").is_file() and not remote.content


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md"])
def test_a_folder_without_a_model_is_refused(remote: Hub, save_model: SaveModel, name: str) -> None:
    folder = save_model("student")
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} missing"):
        hub_push.push(folder, "org/student", False, "")
    assert not remote.private


def test_a_card_names_no_place_of_this_machine() -> None:
    said = (
        "on 9 images of `/data/my photos`.\n```\nkt transfer local-dir:/home/me/zoo/vit "
        "'local-dir:/home/my models/resnet' test_vit@/tmp/a.pth --data '/data/my photos' "
        '--labels /data/labels.csv\n```\ntimm.create_model("hf-hub:me/mine")'
    )
    assert hub_push._placeless(said) == (
        "on 9 images of `PATH/TO/my photos`.\n```\nkt transfer local-dir:PATH/TO/vit "
        "local-dir:PATH/TO/resnet test_vit@PATH/TO/a.pth --data 'PATH/TO/my photos' "
        '--labels PATH/TO/labels.csv\n```\ntimm.create_model("hf-hub:me/mine")'
    )
