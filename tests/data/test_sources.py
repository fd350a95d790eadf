from __future__ import annotations

import errno
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from kt_cli import files
from kt_cli.data import contents
from kt_cli.data.canonical import centre_square
from kt_cli.data.guard_images import common, leave_out_guards
from kt_cli.data.loading import batches
from kt_cli.data.remembered import forget
from kt_cli.data.sources import open_data
from kt_cli.errors import DataError, KtWarning, UnknownName, UsageError
from kt_cli.settings import DataSpec
from kt_cli.spec import Model
from kt_cli.zoo.imagenet_names import readable


@pytest.fixture(autouse=True)
def fresh() -> None:
    forget()


def make_folder(root: Path, classes: dict[str, int], ending: str = "png") -> Path:
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (20, 10), (i, 0, 0)).save(root / name / f"img{i}.{ending}")
    return root


def test_digits_are_split_once_and_for_all() -> None:
    data = open_data(DataSpec("digits", guard=0.1), training=True)
    assert data.train is not None and data.guard is not None
    sets = [set(part.ids) for part in (data.eval, data.train, data.guard)]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 1797
    assert [len(s) for s in sets] == [899, 808, 90]
    for part in (data.eval, data.train, data.guard):
        assert (np.bincount(part.labels, minlength=10) > 0).all()
    assert data.eval.fingerprint == open_data(DataSpec("digits")).eval.fingerprint


def test_guard_is_the_same_whatever_the_fraction_and_seed() -> None:
    guards = [
        open_data(DataSpec("digits", guard=0.1, fraction=f, seed=s), training=True).guard
        for f, s in ((1.0, 0), (0.3, 0), (0.3, 1))
    ]
    assert len({g.fingerprint for g in guards if g}) == 1


def test_fingerprints_tell_subsets_apart() -> None:
    specs = [DataSpec("digits", fraction=f, seed=s) for f, s in ((1.0, 0), (0.5, 0), (0.5, 1))]
    assert len({open_data(s, training=True).training().fingerprint for s in specs}) == 3
    assert (
        open_data(DataSpec("digits", limit=50)).eval.fingerprint
        != open_data(DataSpec("digits")).eval.fingerprint
    )
    assert len(open_data(DataSpec("digits", limit=50)).eval) == 50


def test_a_root_with_splits(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", {"class10": 3, "class2": 2})
    make_folder(tmp_path / "val", {"class2": 1, "class10": 1})
    data = open_data(DataSpec(str(tmp_path)), training=True)
    assert data.classes == ("class2", "class10")  # timm's order: digits are numbers
    assert data.training().labels.tolist() == [0, 0, 1, 1, 1]
    assert list(data.eval.ids) == ["class2/img0.png", "class10/img0.png"]
    assert data.eval.read(0).size == (20, 10)


def test_a_folder_of_classes_is_for_evaluation(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 2, "b": 2})
    data = open_data(DataSpec(str(tmp_path)), training=True)
    assert len(data.eval) == 4
    with pytest.raises(DataError, match="no training images"):
        data.training()


@pytest.mark.parametrize("ending", ["JPEG", "jfif", "WebP", "tif"])
def test_images_by_many_endings(tmp_path: Path, ending: str) -> None:
    make_folder(tmp_path, {"a": 2, "b": 2})
    found = Image.open(tmp_path / "a" / "img0.png")
    found.save(tmp_path / "a" / f"more.{ending}", {"jfif": "JPEG", "tif": "TIFF"}.get(ending))
    images = open_data(DataSpec(str(tmp_path))).eval
    assert len(images) == 5
    images.read(2).load()


def test_images_of_kinds_that_are_not_read_are_named(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 2, "b": 2})
    for name in ("a/one.HEIC", "b/two.avif", "b/._two.avif", "b/notes.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(
        KtWarning, match=r"2 images of a kind that is not read \(a/one.HEIC, b/two.avif"
    ):
        assert len(open_data(DataSpec(str(tmp_path))).eval) == 4
    (tmp_path / "labels.txt").write_text("0\n1\n")
    flat = DataSpec(str(tmp_path / "b"), labels=str(tmp_path / "labels.txt"))
    with pytest.warns(KtWarning, match=r"1 image of a kind that is not read \(two.avif\)"):
        assert len(open_data(flat).eval) == 2
    make_folder(tmp_path / "more", {"a": 1})
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "three.heif").write_bytes(b"")
    data = DataSpec(str(tmp_path / "more"), unlabelled=str(alone))
    with pytest.raises(DataError, match=r"alone, but 1 image .*three.heif"):
        open_data(data, training=True).training()


def test_hidden_files_and_folders_are_no_images(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 2, "b": 2, "a/.ipynb_checkpoints": 1, ".Trash": 1, "a/@eaDir": 1,
                           "__MACOSX": 1})  # fmt: skip
    (tmp_path / "b" / "._img0.png").write_bytes(b"Mac OS X")
    data = open_data(DataSpec(str(tmp_path)))
    assert data.classes == ("a", "b") and len(data.eval) == 4
    unlabelled = DataSpec(str(tmp_path), unlabelled=str(tmp_path))
    assert len(open_data(unlabelled, training=True).training()) == 4


def test_classes_may_be_called_as_splits_are(tmp_path: Path) -> None:
    make_folder(tmp_path, {"apple": 2, "train": 3, "test": 1})
    data = open_data(DataSpec(str(tmp_path)), training=True)
    assert data.classes == ("apple", "test", "train") and len(data.eval) == 6 and not data.train


def test_a_folder_that_cannot_be_listed_is_not_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path, {"a": 2, "b": 2})
    scandir = os.scandir

    def refused(path: str | Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match=r"cannot list .*b: Permission denied"):
        open_data(DataSpec(str(tmp_path)))


def test_what_decides_is_not_what_is_measured(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", {"a": 3, "b": 3})
    make_folder(tmp_path / "val", {"a": 2, "b": 2}, "jpg")
    with pytest.raises(UsageError, match="has the evaluation images themselves"):
        open_data(DataSpec(str(tmp_path), guard_data=str(tmp_path / "val")), training=True)
    make_folder(tmp_path / "other" / "train", {"a": 1, "b": 1})
    with pytest.raises(DataError, match="has training images only"):
        open_data(DataSpec(str(tmp_path), guard_data=str(tmp_path / "other")), training=True)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    make_folder(tmp_path / "data", {"a": 2, "b": 2})
    make_folder(tmp_path, {"elsewhere": 3})
    for name in ("more", "twice"):
        (tmp_path / "data/a" / name).symlink_to("../../elsewhere", target_is_directory=True)
    (tmp_path / "data/b/loop").symlink_to("..", target_is_directory=True)
    (tmp_path / "elsewhere/self").symlink_to(".", target_is_directory=True)
    (tmp_path / "data/c").symlink_to("../elsewhere", target_is_directory=True)
    data = open_data(DataSpec(str(tmp_path / "data")))
    inside = [name for name in data.eval.ids if name.startswith("a/")]
    assert inside == ["a/img0.png", "a/img1.png", *(f"a/more/img{i}.png" for i in range(3))]
    assert data.eval.class_sizes.tolist() == [5, 2, 3]


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test"])
def test_splits_by_other_names(tmp_path: Path, name: str) -> None:
    make_folder(tmp_path / "train", {"a": 3, "b": 3})
    make_folder(tmp_path / name, {"a": 1, "b": 1})
    data = open_data(DataSpec(str(tmp_path)), training=True)
    assert (len(data.training()), len(data.eval)) == (6, 2)


def test_an_empty_class_keeps_its_label(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 1, "b": 0, "c": 1})
    data = open_data(DataSpec(str(tmp_path)))
    assert data.classes == ("a", "b", "c") and data.eval.labels.tolist() == [0, 2]


def test_changed_images_change_the_fingerprint(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 2, "b": 2})
    before = open_data(DataSpec(str(tmp_path))).eval.fingerprint
    Image.new("RGB", (99, 99), "red").save(tmp_path / "a" / "img0.png")
    forget()
    assert open_data(DataSpec(str(tmp_path))).eval.fingerprint != before


def test_other_content_of_the_same_size_changes_the_fingerprint(tmp_path: Path) -> None:
    prints = set()
    for name, colour in (("one", "red"), ("two", "blue")):
        for label in ("a", "b"):
            (tmp_path / name / label).mkdir(parents=True)
            Image.new("RGB", (8, 8), colour).save(tmp_path / name / label / "x.bmp")
        prints.add(open_data(DataSpec(str(tmp_path / name))).eval.fingerprint)
        spec = DataSpec("torch/image_folder", root=str(tmp_path / name))
        prints.add(open_data(spec).eval.fingerprint)
    assert len(prints) == 4


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read, below the folder of their split."""
    found: list[str] = []
    real = contents._read

    def counted(path: str) -> Any:
        found.append("/".join(Path(path).parts[-3:]))
        return real(path)

    monkeypatch.setattr(contents, "_read", counted)
    monkeypatch.setattr(files, "GRAIN", -(10**15))
    return found


def test_every_image_counts(tmp_path: Path) -> None:
    """Rewritten in place with equal sizes, whichever of many it is."""
    root = make_folder(tmp_path / "val", {"a": 300, "b": 300}, "bmp").parent
    prints = set()
    for i in (None, 0, 1, 7, 299):
        if i is not None:
            path = tmp_path / "val" / "b" / f"img{i}.bmp"
            before = path.stat()
            ImageOps.invert(Image.open(path)).save(path)
            assert path.stat().st_size == before.st_size
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        forget()
        prints.add(open_data(DataSpec(str(root))).eval.fingerprint)
    assert len(prints) == 5


def test_only_the_images_of_a_run_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "train", {"a": 50, "b": 50})
    make_folder(tmp_path / "val", {"a": 40, "b": 40})
    read = reads(monkeypatch)
    spec = DataSpec(str(tmp_path), fraction=0.1, guard=0.2, limit=16)
    data = open_data(spec, training=True)
    assert not read  # opening is for looking
    data.transfer_id()
    sets = data.of_transfer()
    assert [len(images) for images in sets] == [8, 16]
    used = {f"{split}/{name}" for split, images in zip(("train", "val"), sets, strict=True)
            for name in images.ids}  # fmt: skip
    assert len(read) == 24 and set(read) == used
    data.transfer_id(guarded=True)
    assert data.guard is not None
    assert set(read[24:]) == {f"train/{name}" for name in data.guard.ids} and len(read) == 44
    forget()
    larger = open_data(replace(spec, fraction=0.5), training=True)
    larger.transfer_id(guarded=True)
    assert len(read) == 44 + 40 - 8  # of the larger part only what is new


@pytest.mark.parametrize(
    ("train", "val"),
    [("Train", "Val"), ("TRAIN", "test"), ("Training", "Testing"), ("train", "dev")],
)
def test_splits_in_any_capitals(tmp_path: Path, train: str, val: str) -> None:
    """They are no classes."""
    make_folder(tmp_path / train, {"cat": 2, "dog": 2})
    make_folder(tmp_path / val, {"cat": 1, "dog": 1})
    data = open_data(DataSpec(str(tmp_path)), training=True)
    assert data.classes == ("cat", "dog") and len(data.eval) == 2 and len(data.training()) == 4


def test_names_that_count_as_equal_have_an_order(tmp_path: Path) -> None:
    make_folder(tmp_path, {"Cat": 1, "cat": 1, "1": 1, "01": 1, "x²": 1})
    assert open_data(DataSpec(str(tmp_path))).classes == ("01", "1", "Cat", "cat", "x²")


def test_a_fraction_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="no training images"):
        open_data(DataSpec("digits", fraction=0.0003), training=True)


def test_guards_of_the_models_are_left_out(tmp_path: Path) -> None:
    training = open_data(DataSpec("digits", guard=0.2), training=True).training()
    cards = {
        "same": {"guard": 0.2, "train_data": training.fingerprint},
        "other": {"guard": 0.4, "train_data": "folder-123/4"},
        "none": {},
    }
    models = []
    for name, card in cards.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"kt": card}))
        models.append(Model(name, f"local-dir:{tmp_path / name}", name))
    assert leave_out_guards(DataSpec("digits"), models).guard == 0.2
    assert leave_out_guards(DataSpec("digits", guard=0.3), models).guard == 0.3
    assert leave_out_guards(DataSpec("digits"), models[1:]).guard == 0


def test_a_smaller_guard_slice_counts_only_if_it_lies_in_the_larger(tmp_path: Path) -> None:
    """Of classes with few images it may have others, which the student was trained on."""
    sizes = dict(zip("abcdef", (2, 3, 10, 3, 4, 2), strict=True))
    make_folder(tmp_path / "train", sizes)
    make_folder(tmp_path / "val", dict.fromkeys(sizes, 1))
    spec = DataSpec(str(tmp_path))
    small, large = (
        open_data(replace(spec, guard=share), training=True).guard for share in (0.15, 0.25)
    )
    assert small is not None and large is not None and not {*small.ids} <= {*large.ids}
    assert common((0.15, 0.25), spec) == 0.0
    assert common((0.25, 0.25), spec) == 0.25 and common((0.25, 0.0), spec) == 0.0
    assert common((0.1, 0.2), DataSpec("digits")) == 0.1


@pytest.mark.parametrize(
    ("source", "message"),
    [("/no/such/folder", "no folder"), ("digitz", "no folder digitz"), ("wds/x", "a stream")],
)
def test_data_that_is_not_there(source: str, message: str) -> None:
    with pytest.raises((DataError, UnknownName), match=message) as caught:
        open_data(DataSpec(source))
    assert caught.value.tip


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders"):
        open_data(DataSpec(str(tmp_path)))
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="no images"):
        open_data(DataSpec(str(tmp_path)))


def test_splits_that_disagree(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", {"a": 1, "b": 1})
    make_folder(tmp_path / "val", {"a": 1, "c": 1})
    both = "only training: b; only evaluation: c"
    with pytest.warns(KtWarning, match=both):
        assert open_data(DataSpec(str(tmp_path))).classes == ("a", "c")
    with pytest.raises(DataError, match=both):
        open_data(DataSpec(str(tmp_path)), training=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_is_named(tmp_path: Path, workers: int) -> None:
    make_folder(tmp_path, {"a": 2, "b": 2})
    broken = tmp_path / "b" / "img1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    images = open_data(DataSpec(str(tmp_path))).eval
    with pytest.raises(DataError, match=r"img1\.png"):
        list(batches(images, [lambda image: centre_square(image, 1.0, 4)], 2, workers))


def test_timm_sources(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", {"a": 2, "b": 2})
    make_folder(tmp_path / "validation", {"a": 1, "b": 1})
    data = open_data(DataSpec("torch/image_folder", root=str(tmp_path)), training=True)
    assert data.classes == ("a", "b")
    assert data.training().labels.tolist() == [0, 0, 1, 1]
    assert data.eval.read(1).mode == "RGB"
    with pytest.raises(DataError, match="cannot open torch/cifar10"):
        open_data(DataSpec("torch/cifar10", root=str(tmp_path)))


def test_files_of_timm_sources_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "validation", {"a": 3, "b": 2})
    read = reads(monkeypatch)
    prints = []
    for _ in range(2):
        forget()
        data = open_data(DataSpec("torch/image_folder", root=str(tmp_path), limit=4))
        prints.append(data.eval.fingerprint)
    assert len(read) == 4 and prints[0] == prints[1]


class InMemory:
    """As torchvision's small sets: pixels that lie there, or images that are made when asked."""

    classes = ("cat", "dog")

    def __init__(self, images: list[Image.Image], stored: bool) -> None:
        self.images, self.targets = images, [0, 1] * (len(images) // 2)
        if stored:
            self.data = np.stack([np.asarray(image) for image in images])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return self.images[i], self.targets[i]


@pytest.mark.parametrize("stored", [True, False])
def test_every_pixel_in_memory_counts(monkeypatch: pytest.MonkeyPatch, stored: bool) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (300, 4, 4, 3), np.uint8)
    prints = set()
    for i in (None, 299, 1):
        if i is not None:
            pixels[i, 2, 2, 1] ^= 1
        made = InMemory([Image.fromarray(each) for each in pixels], stored)
        monkeypatch.setattr(
            "timm.data.dataset_factory.create_dataset", lambda *_, made=made, **__: made
        )
        forget()
        prints.add(open_data(DataSpec("torch/cifar10", root="here")).eval.fingerprint)
    assert len(prints) == 3


def test_synsets_get_their_words() -> None:
    assert readable(["n01440764", "n01443537"]) == ["tench", "goldfish"]
    assert readable(["cat", "n01440764"]) == ["cat", "n01440764"]
    assert readable(["n04399382"]) == ["teddy"]  # of ImageNet-1k, not of 22k
    assert readable(["n00000000"]) == ["n00000000"]


class FakeHfds:
    """What timm gives for hfds/…: a dataset whose reader hands out undecoded files."""

    def __init__(self, root: Path) -> None:
        self.files = sorted(root.rglob("*.png"))
        self.reader = self
        self.dataset = {"label": [0, 1]}
        self.label_key = "label"
        self.class_to_idx = {"dog": 1, "cat": 0}

    def __getitem__(self, i: int) -> tuple[object, int]:
        return self.files[i].open("rb"), i


def test_hub_datasets_and_their_corrupt_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path, {"cat": 1, "dog": 1})
    monkeypatch.setattr(
        "timm.data.dataset_factory.create_dataset", lambda *_, **__: FakeHfds(tmp_path)
    )
    images = open_data(DataSpec("hfds/pets")).eval
    assert images.classes == ("cat", "dog") and images.labels.tolist() == [0, 1]
    assert images.read(1).size == (20, 10)
    (tmp_path / "dog" / "img0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="image 1 of hfds/pets"):
        images.read(1)


@pytest.mark.parametrize(
    ("column", "classes", "labels"),
    [([0, 2], ("0", "1", "2"), [0, 2]), (["dog", "cat"], ("cat", "dog"), [1, 0]),
     ([[0, 1], [1, 1]], "several labels", None), (None, "has no column", None)],
)  # fmt: skip
def test_labels_of_the_hub_without_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: Any, classes: Any, labels: Any
) -> None:
    make_folder(tmp_path, {"cat": 1, "dog": 1})
    source = FakeHfds(tmp_path)
    source.class_to_idx = {}
    source.dataset = {} if column is None else {"label": column}
    monkeypatch.setattr("timm.data.dataset_factory.create_dataset", lambda *_, **__: source)
    if labels is None:
        with pytest.raises(DataError, match=classes):
            open_data(DataSpec("hfds/pets"))
        return
    images = open_data(DataSpec("hfds/pets")).eval
    assert images.classes == classes and images.labels.tolist() == labels


class Table(FakeHfds):
    """The same from a table, whose rows hold the encoded images."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[int] = []

        class Rows(dict[str, Any]):
            cache_files = ({"filename": str(root / "table.arrow")},)

        self.dataset = Rows(label=[0, 1])

    def __getitem__(self, i: int) -> tuple[object, int]:
        self.asked.append(i)
        return io.BytesIO(self.files[i].read_bytes()), i


def test_tables_of_the_hub_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path, {"cat": 1, "dog": 1})
    (tmp_path / "table.arrow").write_bytes(b"one")
    monkeypatch.setattr(files, "GRAIN", -(10**15))
    asked, prints = [], []
    for change in (None, None, b"two", None):
        if change:
            (tmp_path / "table.arrow").write_bytes(change)
            Image.new("RGB", (20, 10), "red").save(tmp_path / "dog" / "img0.png")
        table = Table(tmp_path)
        monkeypatch.setattr(
            "timm.data.dataset_factory.create_dataset", lambda *_, table=table, **__: table
        )
        forget()
        prints.append(open_data(DataSpec("hfds/pets")).eval.fingerprint)
        asked.append(len(table.asked))
    assert asked == [2, 0, 2, 0]
    assert prints[0] == prints[1] != prints[2] == prints[3]


def test_files_beside_a_table_are_read_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path, {"cat": 1, "dog": 1})
    monkeypatch.setattr(
        "timm.data.dataset_factory.create_dataset", lambda *_, **__: FakeHfds(tmp_path)
    )
    prints = set()
    for colour in ("red", "blue"):
        Image.new("RGB", (20, 10), colour).save(tmp_path / "dog" / "img0.png")
        forget()
        prints.add(open_data(DataSpec("hfds/pets")).eval.fingerprint)
    assert len(prints) == 2


def test_labels_that_were_corrected_are_read_again(tmp_path: Path) -> None:
    folder, truth = tmp_path / "flat", tmp_path / "labels.csv"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    spec = DataSpec(source=str(folder), labels=str(truth))
    truth.write_text("image,label\na.png,cat\nb.png,dog\n")
    assert open_data(spec).eval.labels.tolist() == [0, 1]
    truth.write_text("image,label\na.png,dog\nb.png,cat\n")
    forget()
    assert open_data(spec).eval.labels.tolist() == [1, 0]
