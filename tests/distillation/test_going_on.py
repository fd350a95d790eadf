"""An interrupted training goes on as if nothing had happened; no other file misleads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from kt_cli.data.views import Views
from kt_cli.distillation import checkpoint as checkpoints
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.target_cache import Memory, TargetCache
from kt_cli.distillation.train import Curve, NotFinite
from kt_cli.settings import TransferSpec
from tests.distillation.toys import (
    DAMAGES,
    SPEC,
    Tiny,
    assert_same,
    make_views,
    state,
    train,
)


class Breaking(Views):
    """Views that come to an end after so many batches."""

    def __init__(self, augment: str, after: float) -> None:
        self.__dict__ |= vars(make_views(augment))
        self.left = after

    def stream(self, *arguments: Any) -> Iterator[Tensor]:
        for images in super().stream(*arguments):
            self.left -= 1
            if self.left < 0:
                raise InterruptedError
            yield images


PASSES = 18  # three epochs of three updates, each of two micro-batches
CASES: dict[str, dict[str, Any]] = {
    "kl": {},
    "kl-dp": {"augment": "flip"},
    "xekl": {"amp": "bfloat16", "augment": "flip"},
    "kl-mcl": {"mcl_tau": 0.7, "augment": "paper"},
    "xekl-mcl": {"mcl_tau": 0.7, "reference_compat": True, "kd_topk": 2},
    "crd": {"augment": "flip", "lr": 0.5},
    "flip-avg": {"bn": "recompute"},
    "kl-dp-u": {"average": "last-half", "schedule": "cosine", "margin": 0.05},
}


def spec_of(method: str) -> TransferSpec:
    return replace(SPEC, method=method, **CASES[method])


def attempt(
    spec: TransferSpec, path: Path | None, after: float = float("inf"), seconds: float = 0,
    cache: TargetCache | None = None,
) -> tuple[dict[str, Tensor], Curve]:  # fmt: skip
    """As a fresh process does it; InterruptedError after so many micro-batches."""
    torch.manual_seed(int(min(after, 1e6)))  # whatever random numbers came before
    student = Tiny(1, norm=True, dropout=0.3)
    curve = train(
        spec, student, [Tiny(0, norm=True)], Tiny(1, norm=True),
        Breaking(spec.augment, after), cache, Checkpoint(path, seconds) if path else None,
    )  # fmt: skip
    return state(student), curve


def interrupted(spec: TransferSpec, path: Path, after: float, seconds: float = 0) -> None:
    with pytest.raises(InterruptedError):
        attempt(spec, path, after, seconds)


def assert_equal(found: tuple[dict[str, Tensor], Curve], wanted: Any) -> None:
    assert_same(found[0], wanted[0])
    assert replace(found[1], waiting=0, earlier=0) == replace(wanted[1], waiting=0, earlier=0)
    assert 0 <= found[1].waiting <= 100


@pytest.mark.parametrize("method", CASES)
def test_a_training_stopped_anywhere_goes_on_to_the_same_student(
    method: str, tmp_path: Path
) -> None:
    """Before the first update, within one, between two, between epochs, within the last."""
    spec = spec_of(method)
    wanted = attempt(spec, None)
    for after in (0, 1, 2, 5, 6, 7, 10, 12, 17):
        path = tmp_path / f"{after}.safetensors"
        interrupted(spec, path, after)
        assert path.exists() == (after >= 2)
        # What is done is not done again.
        assert_equal(attempt(spec, path, after=PASSES - after // 2 * 2), wanted)


@pytest.mark.parametrize("method", ["kl-dp", "kl-mcl", "crd"])
def test_stopped_again_and_again(method: str, tmp_path: Path) -> None:
    spec, path = spec_of(method), tmp_path / "state"
    for _ in range(PASSES // 2 - 1):
        interrupted(spec, path, 3)  # an update and a half
    found = attempt(spec, path, after=2)
    assert_equal(found, attempt(spec, None))
    about = json.loads(safetensors.safe_open(path, "pt").metadata()["kt"])
    assert 0 < found[1].earlier <= about["seconds"]


@pytest.mark.parametrize("method", ["kl-dp", "xekl-mcl", "crd"])
def test_it_goes_on_from_the_end_of_an_epoch(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "WORTH_SECONDS", 0.0)
    spec, path = spec_of(method), tmp_path / "state"
    interrupted(spec, path, 11, seconds=1e9)
    about = json.loads(metadata(path))
    assert (about["epoch"], about["update"]) == (1, 0)
    assert_equal(attempt(spec, path, after=12), attempt(spec, None))


def metadata(path: Path) -> str:
    with safetensors.safe_open(path, "pt") as file:
        return str(file.metadata()["kt"])


def test_a_training_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    spec, path = spec_of("kl-mcl"), tmp_path / "state"
    wanted = attempt(spec, path)
    assert_equal(attempt(spec, path, after=0), wanted)


def test_it_goes_on_with_kept_targets_too(tmp_path: Path) -> None:
    spec, path, memory = spec_of("kl-dp"), tmp_path / "state", Memory()
    wanted = attempt(spec, None, cache=memory)
    with pytest.raises(InterruptedError):
        attempt(spec, path, 9, cache=memory)
    assert_equal(attempt(spec, path, 10, cache=memory), wanted)


def test_checkpoints_alone_change_nothing(tmp_path: Path) -> None:
    for seconds in (0, 1e9):
        spec = spec_of("kl-mcl")
        found = attempt(spec, tmp_path / str(seconds), seconds=seconds)
        assert_equal(found, attempt(spec, None))


@pytest.mark.parametrize(
    "changed", [{"epochs": 4}, {"micro_batch": 4}, {"batch_size": 24}, {"seed": 1},
                {"method": "kl-mcl", "mcl_tau": 0.7}, {"method": "crd", "lr": 0.5}],
)  # fmt: skip
def test_a_checkpoint_of_other_settings_is_ignored(changed: dict[str, Any], tmp_path: Path) -> None:
    spec, path = spec_of("kl"), tmp_path / "state"
    interrupted(spec, path, 9)
    other = replace(spec, **changed)
    assert_equal(attempt(other, path), attempt(other, None))


@pytest.mark.parametrize("damage", DAMAGES, ids=["half", "end", "header", "empty", "noise"])
def test_with_a_damaged_checkpoint_it_starts_anew(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    spec, path = spec_of("kl-dp"), tmp_path / "state"
    interrupted(spec, path, 9)
    path.write_bytes(damage(path.read_bytes()))
    assert_equal(attempt(spec, path), attempt(spec, None))


def test_with_another_programs_file_it_starts_anew(tmp_path: Path) -> None:
    spec, path = spec_of("kl-dp"), tmp_path / "state"
    safetensors.torch.save_file(Tiny(5, norm=True).state_dict(), path)
    assert_equal(attempt(spec, path), attempt(spec, None))


def test_a_checkpoint_of_another_architecture_is_ignored(tmp_path: Path) -> None:
    """Same names, other shapes: nothing of it may reach the module."""
    spec, path = spec_of("kl"), tmp_path / "state"
    interrupted(spec, path, 9)
    found = Checkpoint(path).load()
    assert found is not None
    tensors, about = found
    changed = {**tensors, "module.head.weight": torch.zeros(3, 5)}
    Checkpoint(path).save(changed, about)
    assert_equal(attempt(spec, path), attempt(spec, None))


def test_numbers_that_are_none_do_not_reach_the_checkpoint(tmp_path: Path) -> None:
    spec, path = replace(spec_of("kl-mcl"), lr=1e30), tmp_path / "state"
    for _ in range(2):  # and again it is the same
        with pytest.raises(NotFinite) as caught:
            attempt(spec, path)
        found = Checkpoint(path).load()
        assert found is not None and f"update {found[1]['update'] + 1}" in caught.value.message
        assert torch.isfinite(found[0]["losses"]).all()
