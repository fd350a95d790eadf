"""`kt complementarity` as it is typed."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import cohen_kappa_score
from torch import nn

from kt_cli.zoo import load

Kt = Callable[..., tuple[int, str, str]]
ON_DIGITS = ("--data", "digits", "--limit", "80")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two untrained models of ten classes."""
    for seed, (name, arch) in enumerate({"a": "test_resnet", "b": "test_vit"}.items()):
        torch.manual_seed(seed)
        module, config = load.build(arch, 10, 32)
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.2)
        load.save(
            module, tmp_path / name, data_config=config, num_classes=10,
            label_names=[str(i) for i in range(10)], card="", extra={},
        )  # fmt: skip
    return tmp_path


def both(folder: Path) -> tuple[str, str]:
    return str(folder / "a"), str(folder / "b")


def test_a_pair_on_the_screen(kt: Kt, folder: Path) -> None:
    code, out, err = kt("complementarity", *both(folder), *ON_DIGITS, "--samples", "2")
    assert code == 0
    for text in ("95% interval", "only it knows %", "McNemar p", "oracle", "a perfect transfer"):
        assert text in out, text
    assert "digit-" in out
    said = json.loads(
        kt("complementarity", *both(folder), *ON_DIGITS, "--samples", "2", "--json")[1]
    )
    (listed, _) = said["samples"]
    assert listed["teacher"] == "a" and len(listed["images"]) == 2
    assert listed["images"][0]["id"] in out
    assert "a: top-1 of" in err and "near chance" in err  # untrained, and nobody said so


def test_one_broken_model_of_a_zoo_costs_itself_only(kt: Kt, folder: Path) -> None:
    shutil.copytree(folder / "b", folder / "c")
    weights = folder / "c" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    code, out, err = kt("complementarity", str(folder), *ON_DIGITS)
    assert code == 1
    assert "a → b" in out and "c" not in out.split("\n")[2:5]
    assert "cannot load c:" in err and "1 of the models could not be evaluated" in err
    code, out, err = kt("complementarity", str(folder / "a"), str(folder / "c"), *ON_DIGITS)
    assert (code, out) == (2, "") and "cannot load c:" in err


def test_one_model_of_other_classes_costs_itself_only(kt: Kt, folder: Path) -> None:
    shutil.copytree(folder / "b", folder / "c")
    config = json.loads((folder / "c" / "config.json").read_text())
    (folder / "c" / "config.json").write_text(json.dumps({**config, "num_classes": 7}))
    code, out, err = kt("complementarity", str(folder), *ON_DIGITS)
    assert code == 1 and "a → b" in out and "c has 7 classes, the data has 10" in err
    code, out, err = kt("complementarity", str(folder / "a"), str(folder / "c"), *ON_DIGITS)
    assert (code, out) == (2, "") and "c has 7 classes, digits has 10" in err


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.json", '{"archi', "cannot read {}/config.json"),
        ("config.json", '{"pretrained_cfg": null}', "{}/config.json is no model's configuration"),
        ("config.json", '{"num_classes": "ten"}', "num_classes of {}/config.json is 'ten'"),
        ("model.safetensors", None, "no weights in {}"),
    ],
)
def test_a_model_folder_that_is_damaged_costs_itself_only(
    kt: Kt, folder: Path, file: str, text: str | None, said: str
) -> None:
    broken = folder / "c"
    shutil.copytree(folder / "b", broken)
    (broken / file).unlink()
    if text:
        (broken / file).write_text(text)
    said = said.format(broken)
    code, out, err = kt("complementarity", str(folder), *ON_DIGITS, "--baseline", "random")
    assert code == 1 and "a → b" in out, err
    assert said in " ".join(err.split()) and "1 of the models could not be evaluated" in err
    code, out, err = kt("complementarity", str(broken), str(folder / "a"), *ON_DIGITS)
    assert (code, out) == (2, "") and said in " ".join(err.split())
    code, out, err = kt("transfer", str(broken), str(folder / "a"), "--data", "digits")
    assert (code, out) == (2, "") and said in " ".join(err.split())


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_in_a_sweep_too(kt: Kt, folder: Path, file: str) -> None:
    shutil.copytree(folder / "b", folder / "c")
    (folder / "c" / "config.json").write_text('{"archi')
    said = f"cannot read {folder}/c/config.json"
    if file != "config.json":
        shutil.copy(folder / "b" / "config.json", folder / "c")
        (folder / "c" / file).unlink()
        said = f"no weights in {folder}/c"
    how = ("--pairs", "0", "--executor", "inline", "-o", str(folder / "results"))
    code, out, err = kt("sweep", "--models", str(folder), *ON_DIGITS, *how, "--baseline", "random")
    assert code == 1 and "over ordered pairs" in out
    assert said in "".join(out.split("\n"))
    code, _, err = kt("sweep", "--models", f"{folder}/a,{folder}/c", *ON_DIGITS)
    assert code == 2 and said in "".join(err.split("\n"))


def test_a_file_of_predictions_that_is_damaged_costs_itself_only(kt: Kt, tmp_path: Path) -> None:
    for name, text in {"x": "pred,label\n1,1\n0,0\n", "y": "pred\n1\n1\n", "z": "no\n"}.items():
        (tmp_path / f"{name}.csv").write_text(text)
    x, y, z = (f"predictions:{tmp_path / name}.csv" for name in "xyz")
    code, out, err = kt("complementarity", z, x, y)
    assert code == 1 and "x → y" in out and "z.csv" in err
    code, out, err = kt("complementarity", z, x)
    assert (code, out) == (2, "") and "z.csv" in err


def test_one_model_named_twice_is_said_to_be_one(kt: Kt, folder: Path) -> None:
    code, _, err = kt("complementarity", f"{folder}/a", f"local-dir:{folder}/a", *ON_DIGITS)
    assert code == 2
    assert f"{folder}/a and local-dir:{folder}/a are one model, a" in " ".join(err.split())


def test_json_equals_what_the_cache_says(kt: Kt, folder: Path) -> None:
    code, out, _ = kt("complementarity", *both(folder), *ON_DIGITS, "--json", "--top", "10")
    assert code == 0
    told = json.loads(out)
    code, out, _ = kt("cache", "ls", "--kind", "predictions", "--json")
    frames = {}
    for entry in json.loads(out):
        frames[entry["about"]["name"]] = pd.read_parquet(entry["path"])
    a, b = (frames[name] for name in "ab")
    digits = load_digits().target
    assert [digits[int(i.removeprefix("digit-"))] for i in a["id"]] == list(a["label"])
    right_a, right_b = a["pred"] == a["label"], b["pred"] == b["label"]
    (forward, _) = told["pairs"]
    assert forward["pos_flips"] == pytest.approx(100 * (right_a & ~right_b).mean())
    assert forward["neg_flips"] == pytest.approx(100 * (right_b & ~right_a).mean())
    assert forward["kappa"] == pytest.approx(cohen_kappa_score(right_a, right_b))
    assert forward["agreement"] == pytest.approx(100 * (a["pred"] == b["pred"]).mean())
    counts = a["label"][right_a & ~right_b].value_counts()
    assert {int(c["class"]): c["flips"] for c in forward["classes"]} == counts.to_dict()
    assert told["data"] == "digits" and told["limit"] == 80 and told["n"] == 80
    low, high = (told["models"][0][key] for key in ("accuracy_low", "accuracy_high"))
    assert low < told["models"][0]["accuracy"] < high


def test_cached_only(kt: Kt, folder: Path) -> None:
    code, _, err = kt("complementarity", *both(folder), *ON_DIGITS, "--cached-only")
    assert code == 2 and "no predictions of a on digits" in err
    assert kt("complementarity", *both(folder), *ON_DIGITS)[0] == 0
    assert kt("complementarity", *both(folder), *ON_DIGITS, "--cached-only")[0] == 0


def test_files_of_predictions_need_no_data(
    kt: Kt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    names, labels = [f"{i}.jpg" for i in range(50)], rng.integers(0, 4, 50)
    preds = {name: np.where(rng.random(50) < 0.7, labels, rng.integers(0, 4, 50)) for name in "xy"}
    shuffled = rng.permutation(50)
    pd.DataFrame({"id": names, "label": labels, "pred": preds["x"]}).to_csv(
        tmp_path / "x.csv", index=False
    )
    pd.DataFrame({"id": names, "label": labels, "pred": preds["y"]}).iloc[shuffled].to_parquet(
        tmp_path / "y.parquet"
    )
    references = [f"predictions:{tmp_path / name}" for name in ("x.csv", "y.parquet")]
    code, out, err = kt("complementarity", *references, "--json")
    assert code == 0, err
    (forward, _) = json.loads(out)["pairs"]
    known = (preds["x"] == labels) & (preds["y"] != labels)
    assert forward["pos_flips"] == pytest.approx(100 * known.mean())
    assert forward["confident_acc"] is None and json.loads(out)["confident_acc"] is None
    code, out, _ = kt("complementarity", *references)
    assert code == 0 and "right (oracle)" in out and "confident" not in out
    code, _, err = kt("complementarity", *references, "--gallery", str(tmp_path / "g.png"))
    assert code == 2 and "--data" in err
    monkeypatch.setenv("KT_DATA", "digits")
    assert kt("complementarity", *references)[1] == out


def test_checkpoints_of_an_architecture(kt: Kt, folder: Path, tmp_path: Path) -> None:
    checkpoints = tmp_path / "runs"
    checkpoints.mkdir()
    module = load.build("test_vit", 10)[0]
    for epoch in (1, 2, 10):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.2)
        torch.save(module.state_dict(), checkpoints / f"epoch{epoch}.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code, out, err = kt("complementarity", str(checkpoints), "--arch", "test_vit", *ON_DIGITS)
    assert code == 0, err
    assert out.index("epoch1 ") < out.index("epoch2 ") < out.index("epoch10 ")
    code, _, err = kt("complementarity", str(checkpoints), *ON_DIGITS)
    assert code == 2 and "--arch" in err


def test_a_gallery(kt: Kt, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "gallery.html"
    monkeypatch.setenv("KT_DATA", "digits")
    code, _, err = kt("complementarity", *both(folder), "--gallery", str(target))
    assert code == 0 and str(target) in err.replace("\n", "")
    assert target.read_text().count("<figure>") > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--refresh", "--cached-only"), "exclude each other"),
        (("--gallery", "x.docx"), "cannot draw into x.docx"),
        (("--class-embedding", "glove"), "glove"),
        (("--amp", "--amp-dtype", "float8"), "float8"),
        (("--class-map", "/no/such"), "--class-map"),
        (("--valid-labels", "/no/such"), "/no/such"),
        (("--real-labels", "/no/such"), "/no/such"),
        (("--baseline", "best"), "random"),
    ],
)
def test_wrong_usage(kt: Kt, folder: Path, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = kt("complementarity", *both(folder), "--data", "digits", *arguments)
    assert code == 2 and not out
    assert message in err and "Traceback" not in err


def test_a_random_baseline(kt: Kt, folder: Path) -> None:
    code, out, _ = kt("complementarity", *both(folder), *ON_DIGITS, "--baseline", "random")
    assert code == 0
    assert "baseline: random:test_resnet knows" in out


def test_where_nobody_knows_more_two_models_are_read_aloud(kt: Kt, tmp_path: Path) -> None:
    files = []
    for wrong in (1, 2, 3):
        file = tmp_path / f"w{wrong}.csv"
        answers = [0] * 7 + [wrong] * 3
        lines = [f"{i},0,{answer}" for i, answer in enumerate(answers)]
        file.write_text("\n".join(["id,label,pred", *lines]))
        files.append(f"predictions:{file}")
    code, out, err = kt("complementarity", *files)
    assert code == 0, err
    assert "w1 → w2" in out and "w1 → w1" not in out


@pytest.mark.parametrize("option", ["--class-map", "--labels", "--valid-labels", "--limit"])
def test_what_is_for_images_is_refused_where_there_are_none(
    kt: Kt, tmp_path: Path, option: str
) -> None:
    named = []
    for answer in (0, 1):
        file = tmp_path / f"said{answer}.csv"
        file.write_text(f"id,label,pred\n0,0,{answer}\n1,1,1\n")
        named.append(f"predictions:{file}")
    code, _, err = kt("complementarity", *named, option, "3")
    assert code == 2 and f"{option} needs images" in err, err


@pytest.mark.parametrize("names", ["random:test_resnet random:test_vit", "random:test_vit ZOO"])
def test_untrained_models_are_baselines(kt: Kt, names: str, tmp_path: Path) -> None:
    module, config = load.build("test_resnet", 10, 32)
    load.save(module, tmp_path / "m", data_config=config, num_classes=10, label_names=None,
              card="", extra={})  # fmt: skip
    models = names.replace("ZOO", str(tmp_path / "m")).split()
    code, _, err = kt("complementarity", *models, "--data", "digits", "--limit", "20")
    assert code == 2 and "has learned nothing" in err and "random:test_vit" in err
    assert "two trained models" in err and "compared with" not in err


def test_a_file_of_predictions_against_itself(kt: Kt, tmp_path: Path) -> None:
    path = tmp_path / "right.csv"
    path.write_text("id,label,pred\na.jpg,0,0\nb.jpg,1,0\n")
    code, _, err = kt("complementarity", *[f"predictions:{path}"] * 2)
    assert code == 2 and "are one model" in err and "weights" not in err
