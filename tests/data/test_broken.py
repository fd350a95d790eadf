"""Images that cannot be decoded: named all at once, or left out."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kt_cli.data import folders
from kt_cli.data.canonical import centre_square
from kt_cli.data.loading import batches
from kt_cli.data.remembered import forget
from kt_cli.data.sources import open_data
from kt_cli.errors import DataError, KtWarning
from kt_cli.settings import DataSpec

BROKEN = ("a/0.png", "b/1.png", "b/9.png")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    forget()
    yield
    forget()


def photos(root: Path) -> Path:
    for c, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for i in range(6):
            pixels = np.random.default_rng([c, i]).integers(0, 255, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def damage(root: Path, dangling: bool = True) -> Path:
    """A damaged image, an empty file and a link to nowhere."""
    (root / BROKEN[0]).write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    (root / BROKEN[1]).write_bytes(b"")
    if dangling:
        (root / BROKEN[2]).symlink_to("nowhere.png")
    return root


def test_a_disk_that_does_not_answer_breaks_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path)

    def failing(opened: Callable[..., Any]) -> Callable[..., Any]:
        def act(path: Path, *more: Any, **how: Any) -> Any:
            if path.name == "3.png":
                raise OSError(errno.EIO, "Input/output error", str(path))
            return opened(path, *more, **how)

        return act

    with monkeypatch.context() as patched:
        patched.setattr(Image, "open", failing(Image.open))
        patched.setattr(Path, "open", failing(Path.open))
        with pytest.raises(DataError, match=r"cannot read .*3\.png: Input/output error"):
            open_data(DataSpec(str(tmp_path), skip_broken=True))
    forget()
    assert len(open_data(DataSpec(str(tmp_path), skip_broken=True)).eval) == 12


def read(data: DataSpec) -> int:
    images = open_data(data).eval
    assert images.fingerprint
    square = lambda image: centre_square(image, 1.0, 8)  # noqa: E731
    return sum(len(batch) for (batch,) in batches(images, [square], 4))


@pytest.mark.parametrize("dangling", [True, False])
def test_all_are_named_at_once(tmp_path: Path, dangling: bool) -> None:
    root = damage(photos(tmp_path), dangling)
    with pytest.raises(DataError) as caught:
        read(DataSpec(str(root)))
    assert f"{2 + dangling} of {12 + dangling} images" in caught.value.message
    assert ", ".join(BROKEN[: 2 + dangling]) in caught.value.message
    assert "--skip-broken" in caught.value.tip


def test_of_many_ten_are_named(tmp_path: Path) -> None:
    root = photos(tmp_path)
    for path in root.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"12 of 12 images .* b/3.png and 2 more"):
        read(DataSpec(str(root)))


def test_left_out_is_as_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = damage(photos(tmp_path))
    with pytest.warns(KtWarning, match=r"3 of 13 images .* left out: a/0.png, b/1.png, b/9.png"):
        images = open_data(DataSpec(str(root), skip_broken=True)).eval
    assert (len(images), images.skipped) == (10, 3)
    for name in BROKEN:
        (root / name).unlink()
    forget()
    assert open_data(DataSpec(str(root))).eval.fingerprint == images.fingerprint
    whole = open_data(DataSpec(str(root), skip_broken=True)).eval
    assert (whole.skipped, whole.fingerprint) == (0, images.fingerprint)


def test_what_was_looked_at_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kt_cli.files.GRAIN", -(10**15))
    root, looked = damage(photos(tmp_path)), []
    real = folders._read_file

    def counted(*where: object) -> Image.Image:
        looked.append(where)
        return real(*where)  # type: ignore[arg-type]

    monkeypatch.setattr(folders, "_read_file", counted)
    for expected in (13, 0, 1):
        looked.clear()
        forget()
        with pytest.warns(KtWarning):
            open_data(DataSpec(str(root), skip_broken=True))
        assert len(looked) == expected
        if not expected:  # repaired
            Image.new("RGB", (9, 9)).save(root / BROKEN[1])


def test_digits_have_no_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file of digits"):
        open_data(DataSpec("digits", skip_broken=True))
