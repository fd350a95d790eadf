from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from scipy.io import savemat
from timm.data import ImageNetInfo, RealLabelsImagenet

from kt_cli.data.images import ImageSet
from kt_cli.data.labels import class_map
from kt_cli.data.remembered import forget
from kt_cli.data.sources import open_data
from kt_cli.errors import DataError
from kt_cli.settings import DataSpec

SYNSETS = tuple(ImageNetInfo("imagenet-1k").label_names())
PNG = ["img1.png", "img2.png", "img10.png"]  # in natural order
REAL = json.loads((Path(timm.__file__).parent / "data/_info/imagenet_real_labels.json").read_text())


@pytest.fixture(autouse=True)
def fresh() -> None:
    forget()


def make(folder: Path, names: Sequence[str]) -> Path:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (i % 256, 0, 0)).save(folder / name)
    return folder


def imagenet(*numbers: int) -> list[str]:
    return [f"ILSVRC2012_val_{i:08d}.JPEG" for i in numbers]


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def opened(root: Path, **more: str | bool) -> ImageSet:
    return open_data(DataSpec(str(root), **more)).eval  # type: ignore[arg-type]


def named(images: ImageSet) -> dict[str, str]:
    return dict(zip(images.ids, (images.classes[label] for label in images.labels), strict=True))


# --- class maps ---------------------------------------------------------------------------------


def test_a_class_map_gives_the_order_and_classes_without_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        make(tmp_path / split, ["cat/a.png", "big dog/b.png", "ant/c.png"])
    path = write(tmp_path / "map.txt", "big dog", "", "none", " cat ", "ant")
    data = open_data(DataSpec(str(tmp_path), class_map=path), training=True)
    assert data.classes == data.training().classes == ("big dog", "none", "cat", "ant")
    wanted = {"big dog/b.png": "big dog", "cat/a.png": "cat", "ant/c.png": "ant"}
    assert named(data.eval) == named(data.training()) == wanted
    assert data.eval.labels.tolist() == [0, 2, 3]
    assert data.eval.empty_classes == ["none"]


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", "])
def test_words_after_synsets_are_left_out(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "map.txt"
    write(path, f"n01443537{separator}goldfish, Carassius auratus", "n01440764")
    assert class_map(path) == ("n01443537", "n01440764")
    path.write_bytes(b"\xef\xbb\xbfcat and dog\r\nn014437\r\n")  # as editors on Windows save it
    assert class_map(path) == ("cat and dog", "n014437")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["b", "c"], "does not name 1 folders of .*, such as a"),
        (["a", "b", "a"], "names the class 'a' twice"),
        (["n01440764 x", "n01440764 y"], "names the class 'n01440764' twice"),
        ([""], "is empty"),
    ],
)
def test_class_maps_that_do_not_fit(lines: list[str], message: str, tmp_path: Path) -> None:
    make(tmp_path / "data", ["a/x.png", "b/x.png"])
    path = write(tmp_path / "map.txt", *lines)
    with pytest.raises(DataError, match=message) as caught:
        opened(tmp_path / "data", class_map=path)
    assert caught.value.tip


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    make(tmp_path / "data", ["a/x.png"])
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for option in ("class_map", "labels", "valid_labels", "real_labels"):
        for name in ("missing.txt", "binary"):
            with pytest.raises(DataError, match=f"cannot read .*{name}"):
                opened(tmp_path / "data", **{option: str(tmp_path / name)})


def test_labels_are_for_folders(tmp_path: Path) -> None:
    path = write(tmp_path / "map.txt", "0")
    for option in ("class_map", "labels"):
        with pytest.raises(DataError, match="digits has labels of its own"):
            open_data(DataSpec("digits", **{option: path}))  # type: ignore[arg-type]


# --- a flat folder with a file of labels --------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        ["filename,label", "img10.png,cat", "img1.png,big dog", "img2.png,cat"],
        ["img10.png,cat", "img2.png,cat", 'img1.png,"big dog"'],
        ["Image\tClass\tx", "img2\tcat\t1", "img1\tbig dog\t2", "img10\tcat\t3"],
        ["img1.png big dog", "img2.png cat", "img10.png  cat"],
        ["val/img1.JPEG big dog", "val/img2.JPEG cat", "val/img10.JPEG cat"],
        ["val\\img1.png,big dog", "val\\img2.png,cat", "val\\img10.png,cat"],
    ],
)
def test_names_and_classes(lines: list[str], tmp_path: Path) -> None:
    make(tmp_path / "val", PNG)
    images = opened(tmp_path, labels=write(tmp_path / "l", *lines))
    assert images.classes == ("big dog", "cat")
    assert list(images.ids) == PNG and images.labels.tolist() == [0, 1, 1]
    assert np.asarray(images.read(2))[0, 0].tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    "lines",
    [
        ["filename,fold,label", "img1.png,0,b", "img2.png,1,a", "img10.png,1,b"],
        ["label,filename", "b,img1.png", "a,img2.png", "b,img10.png"],
        [",image_path,class", "0,img1.png,b", "1,img2.png,a", "2,img10.png,b"],
        ["Image;Width;Target", "img1;9;b", "img2;9;a", "img10;9;b", "img1;9;b"],
    ],
    ids=["fold", "swapped", "index", "twice"],
)
def test_a_header_says_which_columns_are_read(tmp_path: Path, lines: list[str]) -> None:
    make(tmp_path, PNG)
    images = opened(tmp_path, labels=write(tmp_path / "l", *lines))
    assert images.classes == ("a", "b") and images.labels.tolist() == [1, 0, 1]


def test_labels_in_another_encoding_are_said_to_be(tmp_path: Path) -> None:
    make(tmp_path, PNG)
    (tmp_path / "l").write_text("img1.png,é\n", encoding="latin-1")
    with pytest.raises(DataError, match="it is not in UTF-8"):
        opened(tmp_path, labels=str(tmp_path / "l"))


def test_a_class_name_may_have_commas_between_tabs(tmp_path: Path) -> None:
    make(tmp_path, PNG)
    lines = ["img1.png\ttench, Tinca", "img2.png\tcat", "img10.png\ttench, Tinca"]
    assert opened(tmp_path, labels=write(tmp_path / "l", *lines)).classes == ("cat", "tench, Tinca")


def test_classes_one_a_line_are_in_the_order_of_the_files(tmp_path: Path) -> None:
    make(tmp_path, PNG)
    images = opened(tmp_path, labels=write(tmp_path / "l", "cat", "dog", "ant"))
    assert named(images) == {"img1.png": "cat", "img2.png": "dog", "img10.png": "ant"}


def test_numbers_are_classes(tmp_path: Path) -> None:
    make(tmp_path / "val", PNG)
    path = write(tmp_path / "l", "2", "0", "2")
    images = opened(tmp_path, labels=path)
    assert images.classes == ("0", "1", "2") and images.labels.tolist() == [2, 0, 2]
    assert images.empty_classes == ["1"]
    order = write(tmp_path / "map", "x", "y", "z")
    images = opened(tmp_path, labels=path, class_map=order)
    assert images.classes == ("x", "y", "z") and images.labels.tolist() == [2, 0, 2]


def test_classes_may_be_called_by_numbers(tmp_path: Path) -> None:
    make(tmp_path / "val", PNG)
    make(tmp_path / "train", ["1/a.png", "2/a.png", "3/a.png"])
    images = opened(tmp_path, labels=write(tmp_path / "l", "1", "2", "2"))
    assert images.classes == ("1", "2", "3") and images.labels.tolist() == [0, 1, 1]


def test_images_of_one_name_in_several_folders(tmp_path: Path) -> None:
    make(tmp_path / "val", ["a/1.png", "b/1.png"])
    images = opened(tmp_path, labels=write(tmp_path / "l", "b/1.png,x", "a/1.png,y"))
    assert named(images) == {"a/1.png": "y", "b/1.png": "x"}
    with pytest.raises(DataError, match="the folder has several images called 1"):
        opened(tmp_path, labels=write(tmp_path / "m", "1,x", "2,x"))
    with pytest.raises(DataError, match=r"labels 1 of 2 images \(not b/1\.png\)"):
        opened(tmp_path, labels=write(tmp_path / "n", "a/1.png,x"))


def test_an_image_may_be_called_like_a_header(tmp_path: Path) -> None:
    make(tmp_path, ["image.png", "name.png"])
    images = opened(tmp_path, labels=write(tmp_path / "l", "name,x", "image,y"))
    assert named(images) == {"image.png": "y", "name.png": "x"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["img1.png,a", "img2.png,b"], r"labels 2 of 3 images \(not img10\.png\)$"),
        (
            ["img1.png,a", "img2.png,b", "img10.png,a", "img11.png,b"],
            r"labels 3 of 3 images, and 1 that are not there \(img11\.png\)",
        ),
        (
            ["img1,a", "img2,b", "other,a"],
            r"labels 2 of 3 images \(not img10\.png\), and 1 .* \(other\)",
        ),
        (["img1,a", "img2,b", "img10,a", "img2,a"], "has several images called img2"),
        (["img1,a", "img2,b", "img10"], "has no label for img10"),
        (["img1,a", "img2,", "img10,b"], "has no label for img2"),
        (["filename,label"], "has 0 labels, the folder has 3 images"),
        (["img1,0,a", "img2,1,b", "img10,0,a"], "has 3 columns, and no header tells which to read"),
        (["name,fold", "img1,0", "img2,1", "img10,0", "img1,1"], "several images called img1"),
        (["a", "b"], "has 2 labels, the folder has 3 images"),
        ([], "has 0 labels, the folder has 3 images"),
        (["filename;label", "img1.png;a", "img2.png;b"], r"labels 2 of 3 images \(not img10\.png"),
        (["0", "1", "1000000"], "names the class 1000000, which is not below 1,000,000"),
        (["0", "1", "-1"], "has classes below 0"),
        (["0", "1", "9" * 30], "names the class 9{30}, which"),
    ],
)
def test_labels_that_do_not_fit(lines: list[str], message: str, tmp_path: Path) -> None:
    make(tmp_path, PNG)
    with pytest.raises(DataError, match=message):
        opened(tmp_path, labels=write(tmp_path / "l", *lines))


def test_classes_that_are_not_among_those_of_the_map(tmp_path: Path) -> None:
    make(tmp_path, PNG)
    order = write(tmp_path / "map", "cat", "dog")
    with pytest.raises(DataError, match="names the class 'ant', which is not among the 2"):
        opened(tmp_path, class_map=order, labels=write(tmp_path / "l", "cat", "ant", "dog"))
    with pytest.raises(DataError, match="names the class 2, which is not below 2"):
        opened(tmp_path, class_map=order, labels=write(tmp_path / "m", "0", "1", "2"))


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="has labels, but there are no images"):
        opened(tmp_path, labels=write(tmp_path / "l", "a"))
    with pytest.raises(DataError, match="no class folders") as caught:
        opened(tmp_path)
    assert "--labels" in caught.value.tip


# --- ImageNet's files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        [
            "ImageId,PredictionString",
            "ILSVRC2012_val_00000002,n03995372 85 1 499 272 ",
            "ILSVRC2012_val_00000001,n01440764 111 108 427 297 n01440764 1 2 3 4 ",
            "ILSVRC2012_val_00000003,n15075141 1 2 3 4 ",
        ],
        [
            "ILSVRC2012_val_00000001.JPEG 0",
            "ILSVRC2012_val_00000002.JPEG 740",
            "ILSVRC2012_val_00000003.JPEG 999",
        ],
        ["n01440764", "n03995372", "n15075141"],
        ["0", "740", "999"],
        [
            "ILSVRC2012_val_00000001.JPEG\tn01440764\t0\t32",
            "ILSVRC2012_val_00000002.JPEG\tn03995372\t0\t32",
            "ILSVRC2012_val_00000003.JPEG\tn15075141\t0\t32",
        ],
    ],
    ids=["kaggle", "caffe", "synsets", "numbers", "tabs"],
)
def test_forms_of_imagenet_s_labels(lines: list[str], tmp_path: Path) -> None:
    make(tmp_path / "val", imagenet(1, 2, 3))
    images = opened(tmp_path, labels=write(tmp_path / "l", *lines))
    assert images.classes == SYNSETS
    assert images.labels.tolist() == [0, SYNSETS.index("n03995372"), 999]
    assert SYNSETS[740] == "n03995372"


def write_meta(folder: Path) -> dict[str, int]:
    """A meta.mat as of the devkit: its ids are in an order of their own, and beyond 1000 groups."""
    order = np.random.default_rng(0).permutation(1000)
    ids = {SYNSETS[c]: i for i, c in enumerate(order.tolist(), 1)}
    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)]
    rows = [(float(i), name, "words") for name, i in ids.items()]
    rows += [(1001.0, "n99999999", "a group")]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})
    return ids


def test_the_devkit_s_ids_are_translated(tmp_path: Path) -> None:
    make(tmp_path / "val", imagenet(1, 2, 3, 4))
    ids = write_meta(tmp_path)
    wanted = ["n01440764", "n15075141", "n02099601", "n01440764"]
    path = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    images = opened(tmp_path, labels=write(path, *(str(ids[name]) for name in wanted)))
    assert images.classes == SYNSETS
    assert list(named(images).values()) == wanted


def test_the_devkit_s_ids_and_training_folders(tmp_path: Path) -> None:
    make(tmp_path / "val", imagenet(1, 2))
    make(tmp_path / "train", ["n01440764/a.JPEG", "n15075141/b.JPEG"])
    ids = write_meta(tmp_path)
    path = write(tmp_path / "l", str(ids["n15075141"]), str(ids["n01440764"]))
    data = open_data(DataSpec(str(tmp_path), labels=path), training=True)
    assert data.eval.labels.tolist() == [1, 0] and data.training().labels.tolist() == [0, 1]
    beyond = write(tmp_path / "m", str(ids["n15075141"]), str(ids["n02099601"]))
    with pytest.raises(DataError, match=r"names the class 'n02099601', .* among the 2 classes"):
        opened(tmp_path, labels=beyond)


def test_the_devkit_s_ids_alone_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "val", imagenet(1, 2, 3))
    path = write(tmp_path / "l", "490", "1000", "1")
    with pytest.raises(DataError, match="has ILSVRC2012 ids") as caught:
        opened(tmp_path, labels=path)
    assert "meta.mat" in caught.value.tip
    with_names = [f"{name} {i}" for name, i in zip(imagenet(1, 2, 3), (5, 1000, 1), strict=True)]
    with pytest.raises(DataError, match="has ILSVRC2012 ids"):
        opened(tmp_path, labels=write(tmp_path / "m", *with_names))
    (tmp_path / "meta.mat").write_bytes(b"MATLAB no more")
    with pytest.raises(DataError, match=r"cannot read .*meta\.mat"):
        opened(tmp_path, labels=path)


def test_training_folders_beside_a_flat_folder(tmp_path: Path) -> None:
    make(tmp_path / "train", ["cat/a.png", "ant/b.png", "dog/c.png"])
    make(tmp_path / "val", PNG)
    path = write(tmp_path / "l", "dog", "cat", "dog")
    data = open_data(DataSpec(str(tmp_path), labels=path), training=True)
    assert data.classes == data.training().classes == ("ant", "cat", "dog")
    assert data.eval.labels.tolist() == [2, 1, 2] and data.eval.empty_classes == ["ant"]
    assert open_data(DataSpec(str(tmp_path), labels=path)).classes == data.classes
    with pytest.raises(DataError, match="'bee', which is not among the 3 classes"):
        opened(tmp_path, labels=write(tmp_path / "m", "dog", "bee", "dog"))


# --- which outputs, and several right labels ----------------------------------------------------


def test_valid_labels(tmp_path: Path) -> None:
    make(tmp_path, ["a/x.png", "b/x.png"])
    images = opened(tmp_path, valid_labels=write(tmp_path / "v", "17", "3"))
    assert images.select == (17, 3)
    assert images.subset(np.array([1])).select == (17, 3)
    assert opened(tmp_path).select is None
    assert opened(tmp_path, by_position=True).select == "by-position"


def test_what_is_said_about_outputs_holds_for_the_guard_too(tmp_path: Path) -> None:
    for split in ("train", "val", "guard/val"):
        make(tmp_path / split, [f"{c}/{i}.png" for c in "ab" for i in range(4)])
    for file in (tmp_path / "guard").rglob("*.png"):
        Image.new("RGB", (5, 5)).save(file)
    path = write(tmp_path / "v", "17", "3")
    for more in ({"guard": 0.5}, {"guard_data": str(tmp_path / "guard")}):
        for said, select in (
            ({"valid_labels": path}, (17, 3)),
            ({"by_position": True}, "by-position"),
        ):
            spec = DataSpec(str(tmp_path), **more, **said)  # type: ignore[arg-type]
            data = open_data(spec, training=True)
            assert data.guard is not None and data.eval.select == data.guard.select == select
            assert data.training().select is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1", "2", "3"], "has 3 lines, the data has 2 classes"),
        (["1", "x"], "has 'x' where a number should be"),
        (["-2", "1"], "has '-2' where"),
        (["7", "7"], "names the output 7 twice"),
    ],
)
def test_valid_labels_that_do_not_fit(lines: list[str], message: str, tmp_path: Path) -> None:
    make(tmp_path, ["a/x.png", "b/x.png"])
    with pytest.raises(DataError, match=message):
        opened(tmp_path, valid_labels=write(tmp_path / "v", *lines))


@pytest.fixture(scope="module")
def some_real() -> list[int]:
    """Numbers of images that have no label, one, and several, from 1 on."""
    some = [next(i for i, labels in enumerate(REAL, 1) if len(labels) == n) for n in (0, 1, 2, 3)]
    return sorted({*some, 1, 49_999})


def test_real_labels_of_timm(tmp_path: Path, some_real: list[int]) -> None:
    make(tmp_path / "val", imagenet(*some_real))
    truth = write(tmp_path / "l", *["0"] * len(some_real))
    images = opened(tmp_path, labels=truth, real_labels="timm")
    kept = [i for i in some_real if REAL[i - 1]]
    assert len(kept) < len(some_real) and list(images.ids) == imagenet(*kept)
    assert images.valid is not None and images.labels.tolist() == [0] * len(kept)
    for row, i in zip(images.valid, kept, strict=True):
        assert [c for c in row if c >= 0] == REAL[i - 1]


def test_right_is_what_timm_counts(tmp_path: Path) -> None:
    numbers = list(range(1, 41))
    make(tmp_path / "val", imagenet(*numbers))
    truth = write(tmp_path / "l", *["0"] * len(numbers))
    images = opened(tmp_path, labels=truth, real_labels="timm")
    rng = np.random.default_rng(0)
    by_timm = RealLabelsImagenet(imagenet(*range(1, 50_001)), topk=(1,))
    logits = rng.normal(size=(len(numbers), 1000))
    for row, i in zip(logits, numbers, strict=True):  # about half are right
        if REAL[i - 1] and i % 2:
            row[rng.choice(REAL[i - 1])] = 10
    by_timm.add_result(torch.from_numpy(logits))
    pred = np.array([row.argmax() for row, i in zip(logits, numbers, strict=True) if REAL[i - 1]])
    assert 100 * images.right(pred).mean() == pytest.approx(by_timm.get_accuracy(1))


def test_real_labels_where_the_classes_are_in_another_order(
    tmp_path: Path, some_real: list[int]
) -> None:
    kept = [i for i in some_real if REAL[i - 1]]
    make(tmp_path / "val", imagenet(*kept))
    order = write(tmp_path / "map", *SYNSETS[::-1])
    truth = write(tmp_path / "l", *["n01440764"] * len(kept))
    for source in ("timm", str(tmp_path / "real.json")):
        (tmp_path / "real.json").write_text(json.dumps(REAL))
        images = opened(tmp_path, labels=truth, class_map=order, real_labels=source)
        assert images.valid is not None and images.classes[999] == "n01440764"
        for row, i in zip(images.valid, kept, strict=True):
            found = [images.classes[c] for c in row if c >= 0]
            assert found == [SYNSETS[c] for c in REAL[i - 1]]


@pytest.mark.parametrize("names", [["a/x.png", "a/y.png", "b/z.png"], ["x.JPEG", "y", "z.png"]])
def test_real_labels_by_file_name(names: list[str], tmp_path: Path) -> None:
    make(tmp_path / "data", ["a/x.png", "a/y.png", "b/z.png", "c/w.png"])
    path = tmp_path / "real.json"
    labels = [[0, 2], [], [1], [2]]
    path.write_text(json.dumps(dict(zip([*names, "c/w.png"], labels, strict=True))))
    if names[0] == "x.JPEG":  # without folders: all of them
        path.write_text(json.dumps(dict(zip([*names, "w"], labels, strict=True))))
    images = opened(tmp_path / "data", real_labels=str(path))
    assert list(images.ids) == ["a/x.png", "b/z.png", "c/w.png"]
    assert images.valid is not None and images.valid.tolist() == [[0, 2], [1, -1], [2, -1]]
    assert images.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([[0], [1], [1]], "is about ImageNet's 1000 classes, .* has 2"),
        ({"x": [0], "y": [1]}, r"knows 2 of the 3 images of .*; not, for example, b/z\.png"),
        ({"x": [0], "y": [1], "z": [2]}, "names a class outside 0 to 1"),
        ({"x": [0], "y": [-1], "z": [1]}, "names a class outside 0 to 1"),
        ({"x": [], "y": [], "z": []}, "has no label for any image"),
        ({"x": 0, "y": [], "z": []}, "cannot read the labels"),
        (3, "cannot read the labels"),
        ({"a/x.jpg": [0], "b/x.jpg": [1], "y": [0], "z": [1]}, "has several images called x"),
    ],
)
def test_real_labels_that_do_not_fit(content: object, message: str, tmp_path: Path) -> None:
    make(tmp_path / "data", ["a/x.png", "a/y.png", "b/z.png"])
    path = tmp_path / "real.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        opened(tmp_path / "data", real_labels=str(path))


def test_real_labels_do_not_tell_images_of_one_name_apart(tmp_path: Path) -> None:
    make(tmp_path / "data", ["a/x.png", "b/x.png"])
    path = tmp_path / "real.json"
    path.write_text(json.dumps({"x.jpg": [0]}))
    with pytest.raises(DataError, match="has several images called x"):
        opened(tmp_path / "data", real_labels=str(path))
    path.write_text(json.dumps({"a/x.png": [1], "b/x.png": [0, 1]}))
    images = opened(tmp_path / "data", real_labels=str(path))
    assert images.valid is not None and images.valid.tolist() == [[1, -1], [0, 1]]


def test_real_labels_of_imagenet_go_by_number(tmp_path: Path) -> None:
    make(tmp_path / "val", [*imagenet(1), "other.JPEG"])
    truth = write(tmp_path / "l", "n01440764", "n15075141")
    with pytest.raises(DataError, match=r"knows 1 of the 2 images .* example, other\.JPEG"):
        opened(tmp_path, labels=truth, real_labels="timm")


# --- identity -----------------------------------------------------------------------------------


def test_fingerprints_change_with_each_file(tmp_path: Path) -> None:
    make(tmp_path / "folders", ["a/x.png", "b/y.png"])
    make(tmp_path / "flat", ["x.png", "y.png"])
    order = [write(tmp_path / f"map{i}", *lines) for i, lines in enumerate(("ab", "ba", "abc"))]
    truth = [write(tmp_path / f"labels{i}", *lines) for i, lines in enumerate(("ab", "ba", "aa"))]
    select = [write(tmp_path / f"valid{i}", *lines) for i, lines in enumerate(("12", "21"))]
    real = [tmp_path / "real0", tmp_path / "real1"]
    for path, labels in zip(real, ([0], [0, 1]), strict=True):
        path.write_text(json.dumps({"x": labels, "y": [1]}))
    folders, flat = tmp_path / "folders", tmp_path / "flat"
    kinds = [opened(folders), opened(folders, by_position=True)]
    kinds += [opened(folders, class_map=path) for path in order[1:]]
    kinds += [opened(flat, labels=path) for path in truth]
    kinds += [opened(flat, labels=truth[0], class_map=order[2])]
    for more in ({"valid_labels": path} for path in select):
        kinds += [opened(folders, **more), opened(flat, labels=truth[0], **more)]
    for more in ({"real_labels": str(path)} for path in real):
        kinds += [opened(folders, **more), opened(folders, valid_labels=select[0], **more)]
    prints = [images.fingerprint for images in kinds]
    assert len(set(prints)) == len(prints)
    assert opened(folders, class_map=order[0]).fingerprint == prints[0]  # says what was so anyway


def test_a_limit_keeps_select_and_valid(tmp_path: Path) -> None:
    make(tmp_path / "data", [f"{c}/{c}{i}.png" for c in "ab" for i in range(4)])
    path = tmp_path / "real.json"
    path.write_text(json.dumps({f"{c}{i}": [i % 2] for c in "ab" for i in range(4)}))
    spec = DataSpec(
        str(tmp_path / "data"), limit=4, real_labels=str(path),
        valid_labels=write(tmp_path / "v", "5", "9"),
    )  # fmt: skip
    images = open_data(spec).eval
    assert len(images) == 4 and images.select == (5, 9) and images.valid is not None
    assert images.valid[:, 0].tolist() == [int(name[3]) % 2 for name in images.ids]
