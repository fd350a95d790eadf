"""Answers, and what they are kept in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor

from kt_cli.distillation.losses import TopK
from kt_cli.distillation.partition import SampleStats
from kt_cli.distillation.target_cache import MEMORY, Disk, Memory, TeacherOutputs, joined
from kt_cli.errors import KtWarning
from kt_cli.files import cache_folder
from kt_cli.runs.target_plan import decide

CPU = torch.device("cpu")
N, CLASSES, MANY, K = 20, 12, 100, 4
KEY = "0123456789abcdef" * 4


def answers(
    seed: int = 0, topk: int = 0, features: int = 0, n: int = N, classes: int = CLASSES
) -> TeacherOutputs:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=generator)
    said = SampleStats.of(logits, torch.randint(classes, (n,), generator=generator))
    return TeacherOutputs(
        TopK.of(logits, topk, 2.0) if topk else logits,
        said,
        torch.randn(n, features, generator=generator) if features else None,
    )


every_kind = pytest.mark.parametrize(
    "made", [answers(), answers(topk=K), answers(features=3), answers(topk=K, features=3)]
)


def same(one: TeacherOutputs, other: TeacherOutputs) -> bool:
    mine, its = one.tensors(), other.tensors()
    return mine.keys() == its.keys() and all(
        mine[k].dtype == its[k].dtype and torch.equal(mine[k], its[k]) for k in mine
    )


def never() -> TeacherOutputs:
    raise AssertionError("computed again")


@every_kind
def test_answers_are_their_tensors(made: TeacherOutputs) -> None:
    assert same(TeacherOutputs.of(made.tensors()), made)
    wanted = sum(value.numpy().nbytes for value in made.tensors().values())
    assert made.bytes == wanted


@pytest.mark.parametrize("missing", ["logits", "confidence", "right"])
def test_incomplete_tensors_are_no_answers(missing: str) -> None:
    tensors = answers().tensors()
    del tensors[missing]
    with pytest.raises(KeyError):
        TeacherOutputs.of(tensors)


@pytest.mark.parametrize("offset", [3000.0, -70_000.0, 1e6])
def test_what_all_logits_have_in_common_costs_half_precision_nothing(offset: float) -> None:
    made = answers()
    assert isinstance(made.logits, Tensor)
    moved = TeacherOutputs((made.logits.double() + offset).float(), made.said)
    small = moved.small().tensors()["logits"].float()
    assert small.isfinite().all()
    np.testing.assert_allclose(
        small.softmax(dim=1),
        moved.logits.softmax(dim=1),
        atol=1e-3,  # type: ignore[union-attr]
    )


@every_kind
def test_answers_at_some_views(made: TeacherOutputs) -> None:
    indices = [7, 0, 7, 19]
    found = made.small().at(torch.tensor(indices), CPU)
    for name, value in made.tensors().items():
        part = found.tensors()[name]
        wanted = value - value.amax(dim=1, keepdim=True) if name == "logits" else value
        np.testing.assert_allclose(part, wanted[indices], rtol=1e-3, atol=1e-3)
        assert part.dtype == torch.float32 or not value.is_floating_point()


@every_kind
def test_small_answers_are_in_half_precision_but_decide_as_before(made: TeacherOutputs) -> None:
    small = made.small()
    before, after = made.tensors(), small.tensors()
    for name in ("label_prob", "confidence", "right"):
        assert torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype
    if "logits" in before:
        before["logits"] = before["logits"] - before["logits"].max(dim=1, keepdim=True).values
    for name in {"logits", "log_probs", "features"} & before.keys():
        assert after[name].dtype == torch.half
        assert torch.equal(after[name], before[name].half())
    if "classes" in before:
        assert after["classes"].dtype == torch.int32
        assert torch.equal(after["classes"].long(), before["classes"])


@every_kind
def test_parts_are_joined_in_order(made: TeacherOutputs) -> None:
    parts = [made.at(part, CPU) for part in torch.split(torch.arange(N), 7)]
    assert same(joined(parts), made.at(torch.arange(N), CPU))


def test_the_decided_size_is_that_of_the_answers() -> None:
    """In memory, and written whole or as the most probable classes."""
    for memory, disk in ((10**5, 0), (0, 10**5), (0, 2000)):
        found = decide(images=N, classes=MANY, answers=1, uses=2, memory=memory, disk=disk)
        made = answers(topk=found.topk, classes=MANY)
        assert (found.topk > 0) == (disk == 2000)
        assert found.bytes == (made if found.kind == MEMORY else made.small()).bytes


def test_memory_keeps_what_was_used_last_within_its_budget() -> None:
    memory = Memory(budget=3 * answers().bytes)
    computed: list[str] = []

    def get(key: str) -> None:
        def compute() -> TeacherOutputs:
            computed.append(key)
            return answers(ord(key))

        assert same(memory.get(key, compute), answers(ord(key)))

    for key in "abcadab":
        get(key)
    assert "".join(computed) == "abcdb"


def test_memory_counts_sizes_and_keeps_the_newest_whatever_its_size() -> None:
    large, small = answers(n=40), answers(n=10)
    memory = Memory(budget=large.bytes)
    memory.get("small", lambda: small)
    memory.get("large", lambda: large)
    assert memory.get("large", never) is large
    with pytest.raises(AssertionError, match="computed again"):
        memory.get("small", never)
    tiny = Memory(budget=0)
    tiny.get("a", lambda: small)
    assert tiny.get("a", never) is small


def test_memory_keeps_answers_as_they_are() -> None:
    made = answers()
    assert Memory().stored(made) is made


@every_kind
def test_disk_is_written_once_and_read_by_others(made: TeacherOutputs) -> None:
    first, calls = Disk(), []

    def compute() -> TeacherOutputs:
        calls.append(1)
        return joined(
            [first.stored(made.at(part, CPU)) for part in torch.split(torch.arange(N), 7)]
        )

    written = first.get(KEY, compute)
    (file,) = cache_folder("targets").iterdir()
    stamp = file.stat().st_mtime_ns
    for store in (first, Disk()):
        assert same(store.get(KEY, never), made.small())
    assert same(written, made.small())
    assert len(calls) == 1
    assert file.stat().st_mtime_ns == stamp
    assert set(cache_folder("targets").iterdir()) == {file}


def test_disk_tells_keys_apart() -> None:
    disk = Disk()
    for seed in range(3):
        disk.get(f"{seed}{KEY}", lambda seed=seed: answers(seed).small())  # type: ignore[misc]
    for seed in range(3):
        assert same(disk.get(f"{seed}{KEY}", never), answers(seed).small())


def half_of(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    "damage",
    [half_of, lambda content: b"", lambda content: content[:5], lambda content: b"x" * 100],
    ids=["half", "empty", "header", "noise"],
)
def test_a_damaged_file_is_computed_again(damage: Callable[[bytes], bytes]) -> None:
    made = answers()
    Disk().get(KEY, made.small)
    (file,) = cache_folder("targets").iterdir()
    content = file.read_bytes()
    file.write_bytes(damage(content))
    assert same(Disk().get(KEY, made.small), made.small())
    assert file.read_bytes() == content
    assert same(Disk().get(KEY, never), made.small())


def test_a_file_without_all_tensors_is_computed_again() -> None:
    from safetensors.torch import save_file

    made = answers()
    Disk().get(KEY, made.small)
    (file,) = cache_folder("targets").iterdir()
    save_file({"logits": torch.zeros(2, 2)}, file)
    assert same(Disk().get(KEY, made.small), made.small())
    assert same(Disk().get(KEY, never), made.small())


def test_kept_answers_survive_being_replaced_while_in_use() -> None:
    """Files are mapped: another process may write the same one meanwhile."""
    found = Disk().get(KEY, answers().small)
    before = {name: value.clone() for name, value in found.tensors().items()}
    (file,) = cache_folder("targets").iterdir()
    file.unlink()
    Disk().get(KEY, answers(1).small)
    assert all(torch.equal(value, before[name]) for name, value in found.tensors().items())


def test_on_a_full_disk_targets_are_used_all_the_same(
    small_disk: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_disk("64k")
    monkeypatch.setenv("KT_CACHE", str(folder))
    with pytest.warns(KtWarning, match="No space left"):
        found = Disk().get(KEY, lambda: answers(n=5000).small())
    assert torch.equal(found.said.right, answers(n=5000).said.right)
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_made_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KT_CACHE", str(tmp_path / "file"))
    with pytest.warns(KtWarning, match="cannot be written") as told:
        for _ in range(2):
            Disk().get(KEY, answers().small)
    assert len(told) == 1


def test_half_precision_moves_targets_by_little() -> None:
    """Of each probability, at most the relative step of half precision times the logit."""
    logits = answers().logits
    assert isinstance(logits, Tensor)
    moved = np.abs(softmax(logits.half().double(), axis=1) - softmax(logits.double(), axis=1))
    assert moved.max() < 2.0**-11 * float(logits.abs().max())
