from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from kt_cli.diagnosis import data
from kt_cli.diagnosis.finding import Asked
from kt_cli.settings import DataSpec
from kt_cli.zoo.imagenet_names import imagenet_synsets

Look = Callable[..., list[tuple[str, str]]]


def images(root: Path, classes: Sequence[str], each: int = 1) -> Path:
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(each):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(root / name / f"{i}.png")
    return root


def asked(root: Path, **more: object) -> Asked:
    return Asked(data=DataSpec(str(root), **more))  # type: ignore[arg-type]


def test_no_data_is_named(look: Look) -> None:
    ((level, said),) = look(data.images)
    assert level == "yellow" and "KT_DATA" in said
    assert look(data.imagenet) == []


def test_both_splits_are_opened(look: Look, tmp_path: Path) -> None:
    images(tmp_path / "train", "ab", 4)
    images(tmp_path / "val", "ab", 2)
    said = look(data.images, asked(tmp_path))
    assert [level for level, _ in said] == ["green"] * 3
    assert "2 classes" in said[0][1]
    assert said[1][1].startswith("4 evaluation images; 4 decoded")
    assert said[2][1].startswith("8 training images; 8 decoded")


def test_no_training_images(look: Look, tmp_path: Path) -> None:
    said = look(data.images, asked(images(tmp_path / "flat", "ab")))
    assert [level for level, _ in said] == ["green", "green", "yellow"]
    assert "not to transfer" in said[2][1]


def test_empty_classes_and_images_that_do_not_decode(look: Look, tmp_path: Path) -> None:
    images(tmp_path / "val", "abcd", 5)
    images(tmp_path / "train", "abcd", 5)
    for i in range(5):
        (tmp_path / "val" / "b" / f"{i}.png").unlink()
        (tmp_path / "train" / "c" / f"{i}.png").write_bytes(b"broken")
    _, (val, _), (empty, name), (train, broken) = look(data.images, asked(tmp_path))
    assert (val, empty, train) == ("green", "yellow", "red")
    assert name.startswith("no evaluation images of b →")
    assert "5 of 20 tried" in broken and "train/c/0.png" in broken and "and 2 more" in broken


def test_many_images_are_tried_evenly(look: Look, tmp_path: Path) -> None:
    images(tmp_path, "ab", 100)
    for path in sorted((tmp_path / "b").iterdir()):
        path.write_bytes(b"broken")
    said = look(data.images, asked(tmp_path))
    assert "200 evaluation images: 25 of 50 tried" in said[1][1]


def test_no_whole_set_is_read(look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("content is asked for")

    monkeypatch.setattr("kt_cli.data.folders.of_files", refused)
    images(tmp_path / "train", "ab", 4)
    images(tmp_path / "val", "ab", 2)
    assert look(data.images, asked(tmp_path)) and look(data.imagenet, asked(tmp_path))


def test_what_imagenet_has_is_recognised(look: Look, tmp_path: Path) -> None:
    synsets = imagenet_synsets()
    assert data.is_imagenet(data.open_data(DataSpec(str(images(tmp_path / "all", synsets)))).eval)
    said = look(data.imagenet, asked(tmp_path / "all"))
    assert [level for level, _ in said] == ["green", "yellow"]
    assert "1,000 evaluation images" in said[1][1] and "50,000" in said[1][1]
    said = look(data.imagenet, asked(tmp_path / "all", limit=500))
    assert [level for level, _ in said] == ["green"]


@pytest.mark.parametrize(
    ("classes", "level", "said"),
    [
        (imagenet_synsets()[:3], "green", "3 of ImageNet's 1,000 synsets"),
        (("n00000001", *imagenet_synsets()[:3]), "yellow", "such as n00000001 →"),
        (("cat", "dog"), "green", "2 classes of their own"),
        ([str(i) for i in range(1000)], "yellow", "--class-map"),
    ],
)
def test_what_only_looks_like_it(
    look: Look, tmp_path: Path, classes: Sequence[str], level: str, said: str
) -> None:
    ((found, message),) = look(data.imagenet, asked(images(tmp_path, classes)))
    assert found == level and said in message


def test_data_that_do_not_open_are_red_once(tmp_path: Path, look: Look) -> None:
    from kt_cli.diagnosis.checks import CHECKS
    from kt_cli.diagnosis.finding import diagnose

    checks = {name: CHECKS[name] for name in ("data", "imagenet", "accuracy")}
    (finding,) = diagnose(checks, asked(tmp_path / "none"))
    assert finding.check == "data" and finding.level == "red"
    assert str(tmp_path / "none") in finding.message
