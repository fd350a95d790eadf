from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kt_cli import cache
from kt_cli.diagnosis import storage

Look = Callable[..., list[tuple[str, str]]]


def test_an_empty_cache_can_be_written(look: Look) -> None:
    assert look(storage.kept) == [("green", f"{cache.root()}: 0 entries, 0 bytes, writable → ")]
    assert list(cache.root().iterdir()) == []


def test_a_cache_that_cannot_be_written(
    look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KT_CACHE", str(tmp_path / "file" / "below"))
    ((level, said),) = look(storage.kept)
    assert level == "red" and "KT_CACHE" in said and str(tmp_path / "file") in said


def test_damaged_and_left_entries_are_found(look: Look) -> None:
    folder = cache.root() / "canonical"
    folder.mkdir(parents=True)
    with (folder / f"{1:024x}.npy").open("wb") as file:
        np.lib.format.write_array(file, np.zeros((5, 3, 16, 16), np.uint8), version=(2, 0))
    (folder / f"{2:024x}.npy").write_bytes(b"damaged")
    left, new = (folder / f".{i:024x}.npy.abc.tmp" for i in (3, 4))
    left.write_bytes(b"")
    new.write_bytes(b"")
    os.utime(left, (time.time() - 7200,) * 2)
    said = look(storage.kept)
    assert [level for level, _ in said] == ["green", "yellow", "yellow"]
    assert "4 entries" in said[0][1]
    assert said[1][1].startswith("1 entry cannot") and "kt cache verify --remove" in said[1][1]
    assert said[2][1].startswith("1 unfinished") and "kt cache rm" in said[2][1]


@pytest.mark.parametrize(("free", "level"), [(500, "green"), (5, "yellow"), (0.5, "red")])
def test_disks(look: Look, monkeypatch: pytest.MonkeyPatch, free: float, level: str) -> None:
    monkeypatch.setattr(storage, "free_space", lambda folder: free * 10**9)
    said = look(storage.disks)
    assert {found for found, _ in said} == {level}
    text = " ".join(message for _, message in said)
    assert all(text.count(name) == 1 for name in ("results", "HF_HOME", "TMPDIR"))
    assert f"{free:.1f} GB" in text


def test_each_disk_is_shown_once(
    look: Look, monkeypatch: pytest.MonkeyPatch, small_disk: Callable[..., Path]
) -> None:
    monkeypatch.setenv("KT_CACHE", str(small_disk("300k") / "cache"))
    said = look(storage.disks)
    ((level, alone),) = [(lv, m) for lv, m in said if "KT_CACHE" in m]
    assert level == "red" and alone.startswith("0.0 GB free for KT_CACHE →")
