"""Which row is which image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_cli.errors import DataError
from kt_cli.knowledge.matching import class_indices, row_order

PATH = Path("said.csv")
IDS = [f"n{c:02d}/image_{c}_{i}.JPEG" for c in range(4) for i in range(5)]


@given(st.permutations(range(len(IDS))))
def test_rows_are_found_in_any_order(rows: list[int]) -> None:
    order = row_order(PATH, [IDS[i] for i in rows], len(IDS), IDS)
    assert [rows[i] for i in order] == list(range(len(IDS)))


@pytest.mark.parametrize(
    "written",
    [
        lambda name: f"./{name}",
        lambda name: f"/data/val/{name}",
        lambda name: "C:\\val\\" + name.replace("/", "\\"),
        lambda name: name.split("/")[1],
        lambda name: name.split("/")[1].removesuffix(".JPEG"),
        lambda name: name.split("/")[1].replace(".JPEG", ".png"),
    ],
)
def test_other_ways_to_write_a_file(written: Callable[[str], str]) -> None:
    given_names = [written(name) for name in reversed(IDS)]
    assert row_order(PATH, given_names, len(IDS), IDS).tolist() == list(reversed(range(len(IDS))))


def test_equal_file_names_are_told_apart_by_folders() -> None:
    ids = [f"{c}/{i}.png" for c in "ab" for i in range(3)]
    given_names = [f"/data/val/{name}" for name in reversed(ids)]
    assert row_order(PATH, given_names, 6, ids).tolist() == [5, 4, 3, 2, 1, 0]
    with pytest.raises(DataError, match=r"names the image 0\.png twice") as caught:
        row_order(PATH, [name.split("/")[1] for name in ids], 6, ids)
    assert "--fullname" in caught.value.tip
    with pytest.raises(DataError, match=r"names the image a/0\.png twice") as caught:
        row_order(PATH, ["a/0.png", *ids], 6, ids)
    assert "rows in it twice" in caught.value.tip


def test_endings_are_dropped_only_where_that_leaves_them_apart() -> None:
    ids = ["a.png", "a.jpg"]
    assert row_order(PATH, ["a.jpg", "a.png"], 2, ids).tolist() == [1, 0]
    with pytest.raises(DataError, match="1 of the data's 2"):
        row_order(PATH, ["a.jpg", "a.gif"], 2, ids)


def test_names_that_differ_only_in_how_paths_are_written() -> None:
    ids = ["a/1.png", "./a/1.png"]
    assert row_order(PATH, list(reversed(ids)), 2, ids).tolist() == [1, 0]
    with pytest.raises(DataError, match=r"0 of the data's 2 images, and 2 others \(first: x\)"):
        row_order(PATH, ["x", "y"], 2, ids)


def test_missing_and_other_images_are_counted() -> None:
    with pytest.raises(DataError, match="17 of the data's 20 images") as caught:
        row_order(PATH, [*IDS[:17], "n09/x.JPEG", "n09/y.JPEG"], 19, IDS)
    assert "2 others (first: n09/x.JPEG)" in caught.value.message
    assert f"lacks, for example, {IDS[17]}" in caught.value.message
    assert caught.value.tip
    with pytest.raises(DataError, match="19 of the data's 20 images; it lacks"):
        row_order(PATH, IDS[1:], 19, IDS)


def test_images_that_the_data_lacks_are_passed_over() -> None:
    assert row_order(PATH, ["more", *IDS], 21, IDS).tolist() == list(range(1, 21))
    by_name = [f"/else/{name}" for name in (*IDS, "n09/more.JPEG")]
    assert row_order(PATH, by_name, 21, IDS[5:]).tolist() == list(range(5, 20))


def test_rows_without_names() -> None:
    assert row_order(PATH, None, 20, IDS).tolist() == list(range(20))
    with pytest.raises(DataError, match="19 rows without names, the data has 20 images"):
        row_order(PATH, None, 19, IDS)


@given(st.lists(st.integers(0, 3), min_size=1))
def test_names_and_numbers_are_the_same_classes(values: list[int]) -> None:
    classes = ["d", "a", "c", "b"]
    numbers = np.array(values, np.int64)
    names = np.array([classes[v] for v in values], object)
    assert (class_indices(PATH, numbers, classes) == numbers).all()
    assert (class_indices(PATH, names, classes) == numbers).all()


def test_imagenet_takes_seconds() -> None:
    ids = [f"n{i % 1000:08d}/ILSVRC2012_val_{i:08d}.JPEG" for i in range(50_000)]
    order = row_order(PATH, [name.split("/")[1] for name in reversed(ids)], len(ids), ids)
    assert (order == np.arange(50_000)[::-1]).all()
