from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from kt_cli.data.contents import Digests, of_bytes
from kt_cli.data.images import Contents, ImageSet, Names, as_rgb, listing
from kt_cli.data.remembered import forget
from kt_cli.data.sources import open_data
from kt_cli.errors import DataError
from kt_cli.progress import Progress, silent
from kt_cli.settings import DataSpec

WORDS = ["", "a", "über/x y.png", "日本.jpg", "bad\udcff.png", "🐈"]


@pytest.fixture(autouse=True)
def fresh() -> None:
    forget()


def no_image(i: int) -> Image.Image:
    raise AssertionError(i)


def made_up(
    labels: list[int], n_classes: int = 3, valid: list[list[int]] | None = None
) -> ImageSet:
    return ImageSet(
        "made up",
        tuple(f"class {c}" for c in range(n_classes)),
        Names.of(f"image {i}" for i in range(len(labels))),
        np.array(labels, np.int64),
        no_image,
        "f",
        None if valid is None else np.array(valid, np.int32),
    )


# --- names --------------------------------------------------------------------------------------


def test_names_are_a_sequence_of_strings() -> None:
    names = Names.of(iter(WORDS))
    assert len(names) == 6 and list(names) == WORDS
    assert [names[i] for i in range(6)] == WORDS
    assert [names[i - 6] for i in range(6)] == WORDS
    assert names[np.int64(3)] == "日本.jpg"  # type: ignore[call-overload]
    assert "🐈" in names and "b" not in names and names.index("a") == 1
    assert list(reversed(names)) == WORDS[::-1]
    for outside in (6, -7):
        with pytest.raises(IndexError):
            names[outside]
    assert list(pickle.loads(pickle.dumps(names))) == WORDS
    assert len(Names.of([])) == 0 and list(Names.of([])) == []


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=8),
    start=st.none() | st.integers(-10, 10),
    stop=st.none() | st.integers(-10, 10),
    step=st.none() | st.integers(-3, 3).filter(bool),
)
def test_slices_of_names(
    words: list[str], start: int | None, stop: int | None, step: int | None
) -> None:
    part = Names.of(words)[start:stop:step]
    assert isinstance(part, Names)
    assert list(part) == words[start:stop:step]


def test_names_are_taken_in_any_order_and_again() -> None:
    names = Names.of(WORDS)
    picked = names.take(np.array([5, 0, 3, 3]))
    assert list(picked) == ["🐈", "", "日本.jpg", "日本.jpg"]
    assert list(picked.take(np.array([2, 0]))) == ["日本.jpg", "🐈"]
    assert list(names.take(np.array([], np.int64))) == []


# --- what is right ------------------------------------------------------------------------------


def test_right_by_label() -> None:
    images = made_up([0, 2, 1, 1])
    pred = np.array([[0, 2, 1, 0], [1, 2, 0, 1]])
    wanted = [[p == label for p, label in zip(row, [0, 2, 1, 1], strict=True)] for row in pred]
    np.testing.assert_array_equal(images.right(pred), wanted)
    np.testing.assert_array_equal(images.right(pred[0]), wanted[0])


def test_right_by_several_labels() -> None:
    rng = np.random.default_rng(0)
    listed = [sorted(rng.choice(9, size=rng.integers(1, 4), replace=False)) for _ in range(40)]
    valid = [[*labels, *[-1] * (3 - len(labels))] for labels in listed]
    images = made_up([0] * 40, 9, valid)
    pred = rng.integers(0, 9, (2, 5, 40))
    found = images.right(pred)
    assert found.shape == pred.shape and found.dtype == bool and 0.1 < found.mean() < 0.5
    for place in np.ndindex(pred.shape):
        assert found[place] == (pred[place] in listed[place[-1]])


def test_a_subset_keeps_what_belongs_to_its_images() -> None:
    valid = [[0, 1], [2, -1], [1, -1]]
    whole = made_up([0, 2, 1], 4, valid)
    part = whole.subset(np.array([2, 0]))
    assert list(part.ids) == ["image 2", "image 0"] and part.labels.tolist() == [1, 0]
    assert part.valid is not None and part.valid.tolist() == [[1, -1], [0, 1]]
    assert part.right(np.array([0, 1])).tolist() == [False, True]
    assert part.empty_classes == ["class 2", "class 3"] and whole.empty_classes == ["class 3"]
    prints = {whole.subset(np.array(i)).fingerprint for i in ([0], [1], [0, 1], [1, 0])}
    assert len(prints | {whole.fingerprint}) == 5


# --- identity -----------------------------------------------------------------------------------


def holding(values: list[bytes], asked: list[int] | None = None) -> Contents:
    def contents(indices: NDArray[np.int64], progress: Progress) -> Digests:
        if asked is not None:
            asked.extend(indices.tolist())
        return of_bytes(values[i] for i in indices)

    return contents


def test_the_fingerprint_is_of_all_that_counts() -> None:
    values = [b"a", b"b", b"c"]
    images = replace(made_up([0, 2, 1], valid=[[0], [2], [1]]), contents=holding(values))
    others = [
        images,
        replace(images, origin="another list"),
        replace(images, ids=Names.of(["image 0", "image 1", "image 3"])),
        replace(images, labels=np.array([0, 2, 2])),
        replace(images, valid=np.array([[0], [2], [2]], np.int32)),
        replace(images, select=(0, 1, 2)),
        replace(images, select=(1, 0, 2)),
        *(
            replace(images, contents=holding([*values[:i], b"x", *values[i + 1 :]]))
            for i in range(3)
        ),
    ]
    assert len({each.fingerprint for each in others}) == len(others)
    again = replace(images, name="moved", contents=holding(list(values)))
    assert again.fingerprint == images.fingerprint
    assert images.subset(np.arange(3)).fingerprint == images.fingerprint


def test_names_are_not_run_together() -> None:
    prints = {listing("k", names, ids, np.array([0, 0])) for names, ids in (
        (["a"], ["b", "c"]), (["a"], ["b\nc", ""]), (["a", "b"], ["c"]), (["ab"], ["c"]),
    )}  # fmt: skip
    assert len(prints) == 4


def test_a_subset_reads_only_its_own_images() -> None:
    asked: list[int] = []
    images = replace(made_up([0] * 20), contents=holding([b"%d" % i for i in range(20)], asked))
    part = images.subset(np.arange(0, 20, 2)).subset(np.array([3, 1]))
    assert not asked  # nothing before it is asked for
    print_ = part.fingerprint
    assert asked == [6, 2] and part.fingerprint == print_ and asked == [6, 2]
    assert print_ == images.subset(np.array([6, 2])).fingerprint


def test_images_that_change_in_use_are_named() -> None:
    values = [b"%d" % i for i in range(1500)]
    images = replace(made_up([0] * 1500), contents=holding(values))
    images.identify(silent)
    images.require_unchanged()
    values[700:] = [b"x"] * 800
    with pytest.raises(
        DataError, match=r"made up changed .*: 800 of 1,500 differ, first image 700"
    ):
        images.require_unchanged()
    values[700:] = [b"%d" % i for i in range(700, 1500)]
    images.require_unchanged()


def test_what_parts_two_fingerprints() -> None:
    images = replace(made_up([0, 1, 2]), contents=holding([b"a", b"b", b"c"]))
    planned = images.fingerprint
    now = replace(images, contents=holding([b"a", b"x", b"c"]))
    assert now.difference(planned) == "1 of 3 differ, first image 1"
    permuted = replace(images, select=(2, 1, 0))
    assert permuted.difference(planned) == "other labels or --valid-labels"
    assert images.subset(np.array([0, 1])).difference(planned) == "other files, contents or labels"
    assert replace(images, origin="g").difference(planned) == "other classes, files or labels"
    shutil.rmtree(os.environ["KT_CACHE"])
    assert now.difference(planned) == "other files, contents or labels"


# --- pixels -------------------------------------------------------------------------------------


def grey16(seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    values = np.random.default_rng(seed).integers(0, 65536, (6, 5)).astype(np.uint16)
    values[0, :3] = 0, 128, 65535
    return values


@pytest.mark.parametrize("form", ["I;16.png", "I;16.tif", "I.tif"])
def test_16_bit_grey_keeps_its_scale(form: str, tmp_path: Path) -> None:
    mode, ending = form.split(".")
    values = grey16()
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / f"x.{ending}"
    Image.fromarray(values if mode == "I;16" else values.astype(np.int32)).save(path)
    found = np.asarray(open_data(DataSpec(str(tmp_path))).eval.read(0))
    wanted = np.round(values.astype(np.float64) * 255 / 65535)
    assert found.shape == (6, 5, 3)
    np.testing.assert_array_equal(found, np.repeat(wanted[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_other_pixels_are_as_pil_converts_them(mode: str) -> None:
    raw = np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(raw).convert(mode)
    found = as_rgb(image)
    assert found.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image.convert("RGB")))


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((3, 3), 0.5, np.float32)).save(tmp_path / "a" / "x.tif")
    with pytest.raises(DataError, match=r"x\.tif: its pixels are floating-point"):
        open_data(DataSpec(str(tmp_path))).eval.read(0)


def test_images_without_labels_are_of_no_class() -> None:
    images = made_up([-1, -1])
    assert not images.labelled and images.class_sizes.tolist() == [0, 0, 0]
    assert images.empty_classes == list(images.classes)
    assert not images.right(np.array([0, 2])).any()
