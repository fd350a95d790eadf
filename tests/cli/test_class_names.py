"""Which outputs of a model are the classes, where names differ: three commands, one answer."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from kt_cli.data.sources import open_data
from kt_cli.rows import store
from kt_cli.settings import DataSpec
from kt_cli.zoo import load, local_models
from kt_cli.zoo.classes import synsets

Kt = Callable[..., tuple[int, str, str]]
CLASSES = ("airplane", "automobile", "bird", "cat")
RENAMED = ("airplane", "car", "bird", "cat")  # in the model's order; folders sort otherwise
SORTED_TO_MODEL = (0, 2, 1, 3)  # outputs of airplane, bird, car, cat
TRAIN, EVAL = 6, 15
ARCHS = {"vit": "test_vit", "mambaout": "test_mambaout"}
STILL = (
    "-m", "self", "--epochs", "1", "--lr", "1e-9", "--augment", "none", "--crop", "1",
    "--side", "32", "-b", "16", "--micro-batch", "8",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in data/ and, one folder called differently, in renamed/; models that know them."""
    home, rng = tmp_path_factory.mktemp("place"), np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("val", EVAL)):
        for label, name in enumerate(CLASSES):
            folder = home / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                wave = np.sin(np.mgrid[:32, :32][label % 2] / 2)[..., None]
                colour = np.array([200, 90, 40] if label // 2 else [60, 120, 220])
                pixels = 128 + 0.4 * wave * colour + rng.normal(0, 160, (32, 32, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    shutil.copytree(home / "data", home / "renamed")
    for split in ("train", "val"):
        (home / "renamed" / split / "automobile").rename(home / "renamed" / split / "car")
    for seed, name in enumerate(ARCHS):
        _train(home, name, seed)
    return home


def _train(home: Path, name: str, seed: int) -> None:
    torch.manual_seed(seed)
    module, config = load.build(ARCHS[name], len(CLASSES), 32)
    images = open_data(DataSpec(str(home / "data")), training=True).training()
    pixels = np.stack([np.asarray(images.read(i)) for i in range(len(images))])
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 * 2 - 1
    optimizer = torch.optim.Adam(module.parameters(), 2e-3)
    for _ in range(15):
        loss = nn.functional.cross_entropy(module(inputs), torch.from_numpy(images.labels))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    save(home / name, module, config, CLASSES)


def save(folder: Path, module: Any, config: Any, names: Sequence[str] | None) -> None:
    load.save(module, folder, data_config=config, num_classes=len(CLASSES), label_names=names,
              card="", extra={"run_id": folder.name})  # fmt: skip


@pytest.fixture
def models(place: Path) -> tuple[str, str]:
    return str(place / "vit"), str(place / "mambaout")


@pytest.fixture
def right(kt: Kt, models: tuple[str, str], place: Path) -> list[float]:
    """What the models know where all names match."""
    found = compared(kt, *models, "--data", str(place / "data"))
    assert [m["class_matching"] for m in found] == ["names", "names"]
    accuracies = [m["accuracy"] for m in found]
    assert min(accuracies) > 50 and max(accuracies) < 100
    return accuracies


def compared(kt: Kt, *arguments: str) -> list[dict[str, Any]]:
    code, out, err = kt("complementarity", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)["models"]  # type: ignore[no-any-return]


def accuracies(found: Sequence[dict[str, Any]]) -> list[float]:
    return [m["accuracy"] for m in found]


def transferred(kt: Kt, *arguments: str) -> dict[str, Any]:
    code, out, err = kt("transfer", *arguments, *STILL, "--json")
    assert code == 0, err
    return json.loads(out)  # type: ignore[no-any-return]


def swept(kt: Kt, folder: Path, *arguments: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the models, and of transfers."""
    (folder / "s.toml").write_text(
        'name = "s"\n[transfer]\nmethods = "self"\npairs = 1\nepochs = 1\nlr = 1e-9\n'
        'augment = "none"\ncrop = 1.0\nside = 32\nbatch_size = 16\nmicro_batch = 8\n'
        "save_students = true\n"
    )
    flags = ("-o", str(folder / "results"), "--executor", "inline")
    code, _, err = kt("sweep", str(folder / "s.toml"), *arguments, *flags)
    assert code == 0, err
    results = [folder / "results" / "s"]
    return store.read(results, "models").set_index("model"), store.read(results, "transfer")


def same(values: Any) -> Any:
    """Up to the rounding of percentages."""
    return pytest.approx(values, abs=1e-9)


def file(folder: Path, lines: Sequence[object]) -> str:
    path = folder / f"{'-'.join(map(str, lines))}.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


# --- a renamed class folder ----------------------------------------------------------------------


@pytest.mark.parametrize("command", ["complementarity", "transfer", "sweep"])
def test_a_renamed_folder_is_refused_before_any_work(
    kt: Kt, models: tuple[str, str], place: Path, tmp_path: Path, command: str
) -> None:
    named = ("--models", ",".join(models), "-o", str(tmp_path)) if command == "sweep" else models
    code, out, err = kt(command, *named, "--data", str(place / "renamed"))
    said = " ".join(err.split())
    assert code == 2 and not out and "by name it lacks car, and the data lacks its auto" in said
    # In order they would be wrong: car comes after bird, automobile before.
    assert "Perhaps its automobile is car." in said
    assert "--valid-labels" in said and "--by-position" not in said
    assert not list(Path(os.environ["KT_CACHE"]).rglob("*")) and not list(tmp_path.iterdir())


def test_a_renamed_folder_with_a_word_about_it(
    kt: Kt, models: tuple[str, str], place: Path, tmp_path: Path, right: list[float]
) -> None:
    """Each way gives what the models know, and no answer of one is taken for another's."""
    renamed = (*models, "--data", str(place / "renamed"))
    outputs = ("--valid-labels", file(tmp_path, SORTED_TO_MODEL))
    in_order = ("--class-map", file(tmp_path, RENAMED), "--by-position")
    for _ in range(2):  # computed, and from the cache
        for way, how in ((outputs, "valid-labels"), (in_order, "by-position")):
            found = compared(kt, *renamed, *way)
            assert accuracies(found) == same(right)
            assert [m["class_matching"] for m in found] == [how, how]
        # Taken at its word: folders sort in another order than the models'.
        assert accuracies(compared(kt, *renamed, "--by-position")) != same(right)


@pytest.mark.parametrize("how", ["valid-labels", "by-position"])
def test_a_transfer_that_moves_nothing_on_renamed_folders(
    kt: Kt, models: tuple[str, str], place: Path, tmp_path: Path, right: list[float], how: str
) -> None:
    renamed = ("--data", str(place / "renamed"))
    said = {
        "valid-labels": ("--valid-labels", file(tmp_path, SORTED_TO_MODEL)),
        "by-position": ("--class-map", file(tmp_path, RENAMED), "--by-position"),
    }[how]
    row = transferred(kt, *models, *renamed, *said, "-o", str(tmp_path / "student"))
    assert [row["teacher_acc"], row["student_acc"], row["delta"]] == same([*right, 0.0])
    assert (row["teacher_matching"], row["student_matching"]) == (how, how)
    # The student is called as the data is: nothing need be said about it again.
    assert local_models.label_names(tmp_path / "student") == list(RENAMED)
    tuned = [str(tmp_path / "student"), str(tmp_path / "copy")]
    shutil.copytree(tmp_path / "student", tmp_path / "copy")
    _recast(tmp_path / "copy", tmp_path / "twin", tuple(reversed(range(4))), RENAMED[::-1])
    found = compared(kt, tuned[0], str(tmp_path / "twin"), *renamed)
    assert accuracies(found) == same([right[1]] * 2)
    assert [m["class_matching"] for m in found] == ["names", "names"]


def test_a_sweep_on_renamed_folders(
    kt: Kt, models: tuple[str, str], place: Path, tmp_path: Path, right: list[float]
) -> None:
    named = ("--models", ",".join(models), "--data", str(place / "renamed"))
    outputs = ("--valid-labels", file(tmp_path, SORTED_TO_MODEL))
    in_order = ("--class-map", file(tmp_path, RENAMED), "--by-position")
    wanted = dict(zip(ARCHS, right, strict=True))
    ids = []
    for way, how in ((outputs, "valid-labels"), (in_order, "by-position")):
        rows, moved = swept(kt, tmp_path, *named, *way)
        latest = rows[rows["class_matching"] == how]
        assert latest["accuracy"].to_dict() == same(wanted)
        (row,) = (r for r in moved.to_dict("records") if r["student_matching"] == how)
        assert row["delta"] == 0 and row["student_acc"] == same(wanted[row["student"]])
        assert row["teacher_matching"] == how
        ids += [*latest["run_id"], row["run_id"]]
    assert len(set(ids)) == 6  # nothing of one was taken for done in the other
    told = (tmp_path / "results" / "s" / "sweep.toml").read_text()
    assert "by_position = true" in told


# --- outputs in another order ---------------------------------------------------------------------


def _recast(folder: Path, to: Path, order: Sequence[int], names: Sequence[str] | None) -> Path:
    """The model of a folder with its outputs in another order, and these names of them."""
    (model,) = load.names.resolve([str(folder)])
    loaded = load.load(model)
    head = loaded.module.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(parameter[list(order)].clone())
    save(to, loaded.module, loaded.config("train"), names)
    return to


def test_a_permutation_is_a_mapping(
    kt: Kt, models: tuple[str, str], place: Path, tmp_path: Path, right: list[float]
) -> None:
    order = (2, 0, 3, 1)  # what output i was before
    back = file(tmp_path, [order.index(i) for i in range(4)])
    mixed = [str(_recast(Path(m), tmp_path / Path(m).name, order, None)) for m in models]
    data = ("--data", str(place / "data"))
    assert accuracies(compared(kt, *mixed, *data)) != same(right)
    found = compared(kt, *mixed, *data, "--valid-labels", back)
    assert accuracies(found) == same(right)
    assert [m["class_matching"] for m in found] == ["valid-labels"] * 2
    out = ("-o", str(tmp_path / "student"))
    row = transferred(kt, *mixed, *data, "--valid-labels", back, *out)
    assert [row["teacher_acc"], row["student_acc"], row["delta"]] == same([*right, 0.0])
    assert local_models.label_names(tmp_path / "student") == [CLASSES[i] for i in order]
    rows, moved = swept(kt, tmp_path, "--models", ",".join(mixed), *data, "--valid-labels", back)
    assert rows["accuracy"].to_dict() == same(dict(zip(ARCHS, right, strict=True)))
    assert moved["delta"].tolist() == [0.0]


def test_names_decide_and_a_word_about_others_says_so(
    kt: Kt, models: tuple[str, str], place: Path, tmp_path: Path, right: list[float]
) -> None:
    order = (2, 0, 3, 1)
    back = file(tmp_path, [order.index(i) for i in range(4)])
    bare = str(_recast(Path(models[1]), tmp_path / "mambaout", order, None))
    data = ("--data", str(place / "data"), "--valid-labels", back)
    code, out, err = kt("complementarity", models[0], bare, *data, "--json")
    found = json.loads(out)["models"]
    assert code == 0 and accuracies(found) == same(right)
    assert [m["class_matching"] for m in found] == ["names", "valid-labels"]
    assert "vit carries the names of these classes, and they decide" in " ".join(err.split())
    for said in (("--valid-labels", back), ("--by-position",)):
        backwards = [
            str(_recast(Path(m), tmp_path / f"{Path(m).name}-named", (3, 2, 1, 0), CLASSES[::-1]))
            for m in models
        ]
        code, _, err = kt("complementarity", *backwards, *data[:2], *said)
        assert code == 2 and f"{said[0]} changes nothing" in " ".join(err.split())
        shutil.rmtree(backwards[0]), shutil.rmtree(backwards[1])


def test_they_exclude_each_other(kt: Kt, models: tuple[str, str], place: Path) -> None:
    both = ("--valid-labels", __file__, "--by-position", "--data", str(place / "data"))
    for command in (
        ("complementarity", *models),
        ("transfer", *models),
        ("sweep", "--models", "a,b"),
    ):
        code, _, err = kt(*command, *both)
        assert code == 2 and "exclude each other" in err


# --- classes that a model never heard of ---------------------------------------------------------


def test_a_model_of_other_classes_knows_nothing_of_imagenets(
    kt: Kt, models: tuple[str, str], tmp_path: Path
) -> None:
    for name in list(synsets(1000))[:4]:
        (tmp_path / "some" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "some" / name / "x.png")
    code, _, err = kt("complementarity", *models, "--data", str(tmp_path / "some"))
    said = " ".join(err.split())
    assert code == 2 and "by name it lacks n01440764, n01443537, n01484850, n01491361" in said
    assert "lacks its airplane, automobile, bird, cat" in said
