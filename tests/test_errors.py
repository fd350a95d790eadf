"""What the system refuses is said with the way out of it, wherever its words come from."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kt_cli.errors import signed, unknown
from kt_cli.files import save_tensors, write_error, write_text

Kt = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("number", "tip"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.EACCES, "permissions"),
        (errno.EROFS, "permissions"),
        (errno.ENOENT, "missing or was removed"),
        (errno.ENOTDIR, "A file stands"),
        (errno.EIO, "its disk"),
    ],
)
def test_what_cannot_be_written_says_why_and_the_way_out_of_that(number: int, tip: str) -> None:
    said = os.strerror(number)
    for error in (OSError(number, said), OSError(f"I/O error: {said} (os error {number})")):
        found = write_error(Path("/x/y"), error)
        assert said in found.message and "/x/y" in found.message
        assert tip in found.tip and ("space" in found.tip) == (tip == "Free some space")


def test_a_missing_folder_is_no_full_disk(
    kt: Kt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="No such file"):
        save_tensors(tmp_path / "gone" / "x.safetensors", {"a": torch.zeros(1)})

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/y")

    monkeypatch.setattr("kt_cli.cache.entries", refused)
    code, _, err = kt("cache", "ls")
    assert code == 1 and err.startswith("Error: /y: Permission denied\nTip: Its permissions")
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="cannot write") as found:
        write_text(tmp_path / "file" / "x", "text")
    assert "A file stands" in found.value.tip  # type: ignore[attr-defined]


def test_a_name_that_is_nearly_right_is_guessed_and_another_gets_the_list() -> None:
    valid = ["kl", "kl-dp", "xekl", "crd"]
    assert unknown("method", "kl-pd", valid).tip == "Did you mean kl-dp?"
    assert unknown("method", "kd", valid).tip == "Valid: crd, kl, kl-dp, xekl."


def test_zero_has_no_minus() -> None:
    said = [signed(points) for points in (0.0, -0.0, -0.004, -0.006, 0.004, 1.5, -1.5)]
    assert said == ["+0.00", "+0.00", "+0.00", "−0.01", "+0.00", "+1.50", "−1.50"]
