"""Images that change between plan, start and end of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from kt_cli import cache
from kt_cli.data.canonical import canonical, canonical_path
from kt_cli.data.images import ImageSet
from kt_cli.data.remembered import forget
from kt_cli.data.sources import open_data
from kt_cli.errors import DataError
from kt_cli.knowledge.evaluate import evaluate
from kt_cli.knowledge.predict import How, predict_all
from kt_cli.rows import store
from kt_cli.runs.kinds import check_data
from kt_cli.settings import DataSpec, EvalSpec, PretrainSpec, TransferSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps.images import Images, other_images
from kt_cli.zoo import load
from kt_cli.zoo.names import resolve

MODEL = Model("m", "m", "m")


def as_another_process() -> None:
    forget()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    as_another_process()
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 150)):
        for name in "ab":
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (4, 6, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:03d}.bmp")
    return tmp_path


def invert(path: Path) -> None:
    ImageOps.invert(Image.open(path)).save(path)


def runs(root: Path) -> dict[str, Run]:
    data = DataSpec(str(root), guard=0.2)
    opened = open_data(data, training=True)
    guarded = TransferSpec(method="kl-dp+guard")
    return {
        "predict": Run("predict", (MODEL,), opened.eval.fingerprint, EvalSpec(), data),
        "transfer": Run("transfer", (MODEL,) * 2, opened.transfer_id(), TransferSpec(), data),
        "guarded": Run("transfer", (MODEL,) * 2, opened.transfer_id(True), guarded, data),
        "pretrain": Run(
            "pretrain", (), opened.training().fingerprint, PretrainSpec("a", "m"), data
        ),
    }


WHAT = {
    "an evaluation image": ("val/b/149.bmp", {"predict", "transfer", "guarded"}),
    "a training image": ("train", {"transfer", "guarded", "pretrain"}),
    "an image of the guard": ("guard", {"guarded"}),
}


@pytest.mark.parametrize("what", WHAT)
def test_another_process_notices_what_it_uses(root: Path, what: str) -> None:
    planned = runs(root)
    opened = open_data(DataSpec(str(root), guard=0.2), training=True)
    where, refused = WHAT[what]
    part = {"train": opened.train, "guard": opened.guard}.get(where)
    name = where if part is None else f"train/{part.ids[3]}"
    invert(root / name)
    as_another_process()
    for kind, run in planned.items():
        if kind in refused:
            first = name.split("/", 1)[1]
            with pytest.raises(DataError, match=rf"was planned: 1 of \d+ differ, first {first}"):
                check_data(run)
        else:
            check_data(run)


def test_other_names_are_told_as_such(root: Path) -> None:
    run = runs(root)["predict"]
    (root / "val" / "a" / "000.bmp").rename(root / "val" / "a" / "xxx.bmp")
    as_another_process()
    with pytest.raises(DataError, match="was planned: other classes, files or labels"):
        check_data(run)


def test_the_same_process_notices_by_a_look_at_the_files(root: Path) -> None:
    run = runs(root)["transfer"]
    check_data(run)
    invert(root / "val" / "b" / "149.bmp")
    with pytest.raises(DataError, match="while they were in use: 1 of 300 differ, first b/149"):
        check_data(run)
    invert(root / "val" / "b" / "149.bmp")
    check_data(run)


def disturbed(images: ImageSet, path: Path) -> ImageSet:
    """The same images, of which a file is written while the last one is read."""

    def read(i: int) -> Image.Image:
        if i == len(images) - 1:
            invert(path)
        return images.read(i)

    return replace(images, read=read)


def test_what_was_said_of_images_that_changed_meanwhile_is_not_kept(
    root: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, config = load.build("test_vit", 2, 32)
    load.save(module, tmp_path / "vit", data_config=config, num_classes=2, label_names=None,
              card="", extra={})  # fmt: skip
    images = open_data(DataSpec(str(root), limit=20)).eval
    how = How(EvalSpec(), torch.device("cpu"), workers=0)
    models = resolve([f"local-dir:{tmp_path / 'vit'}"])
    path = root / "val" / images.ids[0]
    with pytest.raises(DataError, match=rf"1 of 20 differ, first {images.ids[0]}"):
        predict_all(models, disturbed(images, path), how)
    assert not cache.entries("predictions")
    invert(path)
    predict_all(models, images, how)
    assert len(cache.entries("predictions")) == 1
    changing = disturbed(images, path)
    assert changing.fingerprint == images.fingerprint
    with pytest.raises(DataError, match="1 of 20 differ"):
        evaluate(module, config, changing, how.device, workers=0)


def test_training_images_that_change_while_they_are_decoded_are_not_kept(root: Path) -> None:
    images = open_data(DataSpec(str(root)), training=True).training()
    place = canonical_path(images, 1.0, 4)
    changing = disturbed(images, root / "train" / "a" / "000.bmp")
    with pytest.raises(DataError, match=r"1 of 20 differ, first a/000\.bmp"):
        canonical(changing, 1.0, 4)
    assert not place.exists()


def test_a_plan_says_how_images_differ_from_those_of_earlier_rows(
    root: Path, tmp_path: Path
) -> None:
    spec, folder = DataSpec(str(root), fraction=0.5), tmp_path / "results"
    assert other_images(folder, open_data(spec, training=True), spec) == []
    data = open_data(spec, training=True)
    named = {"data": spec.source, "status": store.OK}
    store.write(folder, "models", [
        {**named, "run_id": "a", "eval_data": data.eval.fingerprint},
        {**named, "run_id": "b", "eval_data": "those/10", "limit": 10},
    ])  # fmt: skip
    drawn = {"fraction": 0.5, "subset_seed": 0, "guard_share": 0.0}
    row = {**named, **drawn, "run_id": "c", "train_data": data.training().fingerprint}
    store.write(folder, "transfer", [row])
    assert other_images(folder, data, spec) == []
    trained = data.training().ids[2]
    invert(root / "val" / "a" / "007.bmp")
    invert(root / "train" / trained)
    as_another_process()
    assert other_images(folder, open_data(spec, training=True), spec) == [
        "the evaluation images are not those of earlier rows (1 of 300 differ, first a/007.bmp)",
        f"the training images are not those of earlier rows (1 of 10 differ, first {trained})",
    ]
    smaller = DataSpec(str(root), fraction=0.4, limit=20)
    assert other_images(folder, open_data(smaller, training=True), smaller) == []


def test_a_plan_reads_only_what_its_runs_use(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    data = open_data(DataSpec(str(root), guard=0.2), training=True)
    sets = [data.eval, data.training(), data.guard]
    counted = [
        replace(each, contents=lambda i, p, c=each.contents: (read.append(len(i)), c(i, p))[1])
        for each in sets
        if each is not None
    ]
    plain, guarded = TransferSpec(), TransferSpec(method="kl-dp+guard")
    for transfers, wanted in (([], [300]), ([plain, plain], [16, 300]), ([guarded], [16, 300, 4])):
        read.clear()
        evaluation, training, guard = (replace(each) for each in counted)
        Images.of(replace(data, eval=evaluation, train=training, guard=guard), transfers)
        assert read == wanted
