"""Pushing a saved model to the hub, from where `hf-hub:ORG/NAME` loads it again."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from kt_cli.errors import DataError, KtError, UsageError, command, first_line
from kt_cli.zoo.local_models import CONFIG, ORIGIN, PREFERRED, PROCESSOR
from kt_cli.zoo.save import front

CARD = "README.md"
WEIGHTS = PREFERRED[0]
FILES = (CONFIG, WEIGHTS, CARD)
FOLDER = "PATH/TO/THIS/FOLDER"  # where a saved card says to load from


def require_pushable(repo: str) -> None:
    """Refuse, before any work, what could not be pushed after it (UsageError, KtError)."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(
            f"{repo!r} is no name for a repository of the hub: {first_line(error)}",
            "Write ORG/NAME, or NAME for one of your own.",
        ) from error
    if constants.HF_HUB_OFFLINE:
        raise KtError(f"cannot push to {repo}: HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE.")
    if not get_token():
        raise KtError(
            f"cannot push to {repo}: there is no token of the hub",
            "Log in with `hf auth login`, or set HF_TOKEN to a token that may write.",
        )


def push(folder: Path, repo: str, private: bool, message: str) -> str:
    """Upload the model in a folder that `save` wrote, as one commit, and return its address.

    Args:
        repo: ORG/NAME, or NAME alone for the user's own; created where there is none.
        private: nobody else may see it; one that is public already is then refused.

    Raises:
        DataError: the folder holds no saved model. KtError: the upload failed.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder} holds no model that kt saved: {', '.join(missing)} missing",
            "Name a folder that kt transfer or kt pretrain wrote.",
        )
    try:
        return _upload(folder, repo, private, message)
    except KtError:
        raise
    except Exception as error:  # whatever the HTTP library of the day raises
        flag = " --private" if private else ""
        raise KtError(
            f"the student is saved in {folder}; pushing failed: {first_line(error)}",
            f"Push it later: hf upload{flag} {repo} {shlex.quote(str(folder))} .",
        ) from error


def _upload(folder: Path, repo: str, private: bool, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    created = api.create_repo(repo, private=private, exist_ok=True)
    if private and not api.model_info(created.repo_id).private:
        raise KtError(
            f"the student is saved in {folder}; it was not pushed, since {created} is public",
            "Make the repository private in its settings, or name another one.",
        )
    names = [CONFIG, WEIGHTS, *([PROCESSOR] if (folder / PROCESSOR).is_file() else [])]
    content: dict[str, Path | bytes] = {name: folder / name for name in names}
    content |= {CONFIG: _config(folder), CARD: _card(folder, created.repo_id).encode()}
    files = [CommitOperationAdd(name, held) for name, held in content.items()]
    api.create_commit(created.repo_id, files, commit_message=message)
    return str(created)


def _config(folder: Path) -> bytes:
    """config.json without the places of this machine that the student came from."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if isinstance(config.get("kt"), dict):
        config["kt"].pop(ORIGIN, None)
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _card(folder: Path, repo: str) -> str:
    """The card as it goes up: it says how to load the model from there, and no place of here."""
    card = _placeless((folder / CARD).read_text(encoding="utf-8"))
    card = card.replace(f"local-dir:{FOLDER}", f"hf-hub:{repo}").replace(FOLDER, repo)
    if card.startswith("---\n"):
        return card
    return front(json.loads((folder / CONFIG).read_text(encoding="utf-8"))) + card


def _placeless(card: str) -> str:
    """A card with PATH/TO/NAME in place of paths of this machine, in its command too."""

    def short(path: str) -> str:
        return re.sub(r"(^|[:@])/(.*/)?", r"\1PATH/TO/", path, flags=re.S)

    def again(found: re.Match[str]) -> str:
        return command(*map(short, shlex.split(found[0])[1:]))

    card = re.sub(r"(?<=`)/[^`\n]+(?=`)", lambda found: short(found[0]), card)
    return re.sub(r"(?<=^```\n)kt .*?(?=\n```$)", again, card, flags=re.M | re.S)
