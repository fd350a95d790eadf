"""The file that keeps the state of a training, and what is ignored in its place."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from kt_cli import files
from kt_cli.distillation import checkpoint as checkpoints
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.errors import WriteError
from tests.distillation.toys import (
    DAMAGES,
    assert_same,
)

TENSORS = {"module.weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)}
ABOUT: dict[str, Any] = {"order": "Order()", "epoch": 2, "scaler": {}}


# --- the file ------------------------------------------------------------------------------------


def saved(folder: Path, tensors: Mapping[str, Tensor] = TENSORS) -> Checkpoint:
    made = Checkpoint(folder / "runs" / "state.safetensors")
    made.save(tensors, ABOUT)
    return made


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    found = saved(tmp_path).load()
    assert found is not None
    assert_same(found[0], TENSORS)
    assert found[0]["count"].dtype == torch.long and found[1] == ABOUT


def test_tensors_may_share_memory_and_be_strided(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(2, 3, 2, 2)
    tensors = {
        "a": whole, "b": whole, "part": whole[:, 1], "turned": whole.permute(3, 2, 1, 0),
        "last": whole.to(memory_format=torch.channels_last), "learned": whole.requires_grad_(),
    }  # fmt: skip
    found = saved(tmp_path, tensors).load()
    assert found is not None
    assert_same(found[0], tensors)


def test_loaded_tensors_do_not_hang_on_the_file(tmp_path: Path) -> None:
    made = saved(tmp_path)
    found = made.load()
    assert found is not None
    made.path.write_bytes(b"\0" * made.path.stat().st_size)
    assert_same(found[0], TENSORS)
    found[0]["module.weight"].add_(1)  # writable


def test_nothing_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "none" / "state.safetensors").load() is None


@pytest.mark.parametrize("damage", DAMAGES, ids=["half", "end", "header", "empty", "noise"])
def test_a_damaged_file_is_ignored(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    made = saved(tmp_path)
    made.path.write_bytes(damage(made.path.read_bytes()))
    assert made.load() is None


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"kt": "{"}])
def test_another_programs_file_is_ignored(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "state.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path, metadata=metadata)
    assert Checkpoint(path).load() is None


def test_what_was_there_is_replaced_as_a_whole(tmp_path: Path) -> None:
    made = saved(tmp_path)
    made.save({"count": torch.tensor(4)}, {"epoch": 3})
    found = made.load()
    assert found is not None
    assert set(found[0]) == {"count"} and found[1] == {"epoch": 3}
    assert list(made.path.parent.iterdir()) == [made.path]


def test_a_failed_write_leaves_the_earlier_one(
    small_disk: Callable[..., Path],
) -> None:
    made = saved(small_disk("64k"))
    with pytest.raises(WriteError, match="cannot write"):
        made.save({"large": torch.zeros(100_000)}, {"epoch": 3})
    found = made.load()
    assert found is not None
    assert_same(found[0], TENSORS)
    assert list(made.path.parent.iterdir()) == [made.path]


def test_an_interrupted_write_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = saved(tmp_path)

    def interrupted(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.save({"count": torch.tensor(4)}, {"epoch": 3})
    found = made.load()
    assert found is not None and found[1] == ABOUT
    assert list(made.path.parent.iterdir()) == [made.path]


def test_it_is_due_after_its_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of an epoch sooner, but not where the epoch is sooner done again."""
    made = Checkpoint(tmp_path / "state", seconds=60)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for start in range(2):
        assert not made.due() and not made.due(epoch_ended=True)
        now += 4
        assert not made.due() and not made.due(epoch_ended=True)
        now += 2
        assert not made.due() and made.due(epoch_ended=True)
        now += 55
        assert made.due() and made.due(epoch_ended=True)
        made.save(TENSORS, {"start": start})
    always = Checkpoint(tmp_path / "state", seconds=0)
    assert always.due() and always.due(epoch_ended=True)


def test_a_state_of_another_training_is_none(tmp_path: Path) -> None:
    for identity in ("", "one"):
        checkpoints.of_run(tmp_path, "abc", identity).save(TENSORS, ABOUT)
        assert checkpoints.of_run(tmp_path, "abc", "another").load() is None
        assert checkpoints.of_run(tmp_path, "abc", identity).load() is not None


def test_those_of_a_run_are_removed_alone(tmp_path: Path) -> None:
    for run, part in itertools.product(("abc", "def"), ("0", "1")):
        checkpoints.of_run(tmp_path, run, "", part).save(TENSORS, ABOUT)
    home = tmp_path / ".checkpoints"
    assert len(list(home.glob("*/*"))) == 4
    # What a process leaves that is killed while it writes: ours, and safetensors' own.
    for name in (".0.safetensors.0123456789ab.tmp", ".tmpOXjdI9"):
        (home / "abc" / name).write_bytes(b"half")
    checkpoints.remove_all(tmp_path, "abc")
    assert [path.name for path in home.iterdir()] == ["def"]
    checkpoints.remove_all(tmp_path, "def")
    assert not home.exists()
    checkpoints.remove_all(tmp_path, "def")  # nothing there is no trouble


HAMMER = """
import sys, torch
from pathlib import Path
from kt_cli.distillation import checkpoint
for _ in range(300):
    checkpoint.of_run(Path(sys.argv[1]), sys.argv[2], "").save({"a": torch.zeros(2)}, {})
    checkpoint.remove_all(Path(sys.argv[1]), sys.argv[2])
"""


def test_two_processes_that_save_and_remove_in_one_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HAMMER, str(tmp_path)]
    both = [subprocess.Popen([*command, run], stderr=subprocess.PIPE) for run in ("abc", "def")]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    assert not list(tmp_path.iterdir())


def test_a_bit_that_changed_is_no_state(tmp_path: Path) -> None:
    made = saved(tmp_path)
    whole = bytearray(made.path.read_bytes())
    for place in range(len(whole) - 32, len(whole)):  # the last are tensors' bytes
        changed = bytearray(whole)
        changed[place] ^= 1
        made.path.write_bytes(changed)
        assert made.load() is None
    made.path.write_bytes(whole)
    assert made.load() is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half, torch.bool, torch.int64])
def test_tensors_of_the_cache_are_what_was_written(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"w": torch.ones(3, 2).to(dtype), "scalar": torch.tensor(1).to(dtype),
               "empty": torch.ones(0, 4).to(dtype)}  # fmt: skip
    path = tmp_path / "kept.safetensors"
    files.keep_tensors(path, tensors)
    assert_same(files.read_tensors(path), tensors)
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(ValueError, match="not what was written"):
        files.read_tensors(path)
