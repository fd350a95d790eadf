from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kt_cli.errors import ClassMismatch, DataError, KtError, KtWarning, UnknownName, UsageError
from kt_cli.zoo import classes, local_models, names, timm_package, timm_registry
from kt_cli.zoo.names import resolve
from kt_cli.zoo.timm_registry import ALIASES

SaveModel = Callable[..., Path]


def keys(*references: str) -> list[str]:
    return [model.key for model in resolve(references)]


def called(*references: str) -> list[str]:
    return [model.name for model in resolve(references)]


# --- timm ---------------------------------------------------------------------------------------


def test_default_tag() -> None:
    (model,) = resolve(["resnet50", "resnet50.a1_in1k"])
    assert model.key == model.ref == model.name == "resnet50.a1_in1k"


def test_default_tags_are_timm_s() -> None:
    from timm.models import get_pretrained_cfg

    for name in ("resnet18", "vit_base_patch16_224", "convnext_tiny", "mixer_b16_224"):
        assert keys(name) == [f"{name}.{get_pretrained_cfg(name).tag}"]


def test_default_of_every_architecture_has_weights() -> None:
    trained = {name.partition(".")[0] for name in timm_package.pretrained_names()}
    assert {timm_registry.canonical(arch) for arch in trained} <= set(
        timm_package.pretrained_names()
    )


@pytest.mark.parametrize("alias", ALIASES)
def test_short_names_are_trained_classifiers(alias: str) -> None:
    (key,) = keys(alias)
    assert key.partition(".")[0] == ALIASES[alias]
    assert timm_package.config(key).num_classes == 1000


def test_short_name_with_tag() -> None:
    assert keys("vit_b.mae") == ["vit_base_patch16_224.mae"]


def test_unknown_tag_lists_the_valid_ones() -> None:
    with pytest.raises(UnknownName, match=r"'a9'.*resnet50") as caught:
        resolve(["resnet50.a9"])
    assert "a1_in1k" in caught.value.tip
    assert "tv2_in1k" in caught.value.tip


@pytest.mark.parametrize(
    ("name", "nearest"), [("resnet5O", "resnet50"), ("deit_ss", "deit_s"), ("vit_bas", "vit_base")]
)
def test_unknown_name_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownName, match=name) as caught:
        resolve(["resnet18", name])
    assert nearest in caught.value.tip


def test_architecture_without_weights() -> None:
    bare = next(
        arch
        for arch in sorted(timm_package.architectures())
        if not any(name.startswith(f"{arch}.") for name in timm_package.pretrained_names())
    )
    with pytest.raises(UsageError, match=bare) as caught:
        resolve([bare])
    assert f"{bare}@FILE" in caught.value.tip


@pytest.mark.parametrize("asked", ["['resnet50', 'resnet5O']", "['resnet50,resnet5O']"])
def test_a_slip_is_told_before_torch_is_imported(asked: str) -> None:
    code = (
        "import sys\n"
        "from kt_cli.errors import UnknownName\n"
        "from kt_cli.zoo.names import resolve\n"
        "try:\n"
        f"    resolve({asked})\n"
        "except UnknownName as error:\n"
        "    print(error.message, sorted({'timm', 'torch', 'pandas'} & set(sys.modules)))\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "unknown model 'resnet5O' []\n"


def test_earlier_names_of_timm_are_taken_with_a_note() -> None:
    old, new = "vit_base_patch16_224_in21k", "vit_base_patch16_224.augreg_in21k"
    with pytest.warns(
        KtWarning, match=f"{old} is an earlier name of timm's; it is {new} now"
    ) as told:
        (model,) = resolve([old])
    assert model.ref == new and len(told) == 1


# --- selections ---------------------------------------------------------------------------------


def test_top_300_needs_neither_timm_nor_torch() -> None:
    code = (
        "import sys\n"
        "from kt_cli.zoo.names import resolve\n"
        "print(len(resolve(['timm-top300'])), len(resolve(['timm-all'])))\n"
        "print(sorted({'timm', 'torch', 'pandas'} & set(sys.modules)))\n"
    )
    run = [sys.executable, "-c", code]
    shown = subprocess.run(run, capture_output=True, text=True, check=True)
    assert shown.stdout.split("\n")[:2] == ["300 1266", "[]"]


def test_top_is_a_prefix_of_all() -> None:
    assert keys("timm-top7") == keys("timm-all")[:7]


@pytest.mark.parametrize("reference", ["timm-top0", "timm-top5000"])
def test_top_out_of_range(reference: str) -> None:
    with pytest.raises(UsageError, match="1266"):
        resolve([reference])


@pytest.mark.parametrize("reference", ["timm-top", "timm-topx", "timm-best"])
def test_malformed_selection(reference: str) -> None:
    with pytest.raises(UnknownName, match=reference):
        resolve([reference])


def test_globs() -> None:
    import timm
    from timm.models import get_pretrained_cfg

    for pattern in ("resnet50.*", "vit_*"):
        every = timm.list_pretrained(pattern)
        whole = [name for name in every if get_pretrained_cfg(name).num_classes]
        with pytest.warns(KtWarning, match=f"{len(every) - len(whole)} model.* without a classif"):
            assert keys(pattern) == whole
    assert keys("vit_small_patch14_dinov2.*") == timm.list_pretrained("vit_small_patch14_dinov2.*")
    assert keys("resnet5?.a1_in1k") == ["resnet50.a1_in1k"]
    with pytest.raises(UsageError, match=r"nothing_\*"):
        resolve(["nothing_*"])


def test_comma_lists_and_repetitions_keep_the_first_place() -> None:
    assert keys("resnet34.a1_in1k,resnet18.a1_in1k, resnet34", "resnet18.a1_in1k,") == [
        "resnet34.a1_in1k",
        "resnet18.a1_in1k",
    ]


def test_long_comma_list() -> None:
    every = keys("timm-all")
    assert keys(",".join(every)) == every
    with pytest.raises(UnknownName):
        resolve(["x" * 5000])


def test_list_file(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# students\nresnet18.a1_in1k  # small\n\nresnet34.a1_in1k,resnet18.a1_in1k\n")
    assert keys(f"@{path}") == ["resnet18.a1_in1k", "resnet34.a1_in1k"]
    path.write_text(f"@{path}\n")
    with pytest.raises(UsageError, match="another list"):
        resolve([f"@{path}"])
    with pytest.raises(DataError, match=r"missing\.txt"):
        resolve([f"@{tmp_path / 'missing.txt'}"])


@pytest.mark.parametrize("references", [[], [""], [" , "]])
def test_nothing_named(references: list[str]) -> None:
    with pytest.raises(UsageError, match="no model"):
        resolve(references)


# --- the hub, functions and what is not supported ------------------------------------------------


def test_hub() -> None:
    (model,) = resolve(["hf-hub:org/name@v1"])
    assert (model.key, model.ref, model.name) == (
        "hf-hub:org/name@v1",
        "hf-hub:org/name@v1",
        "name",
    )
    assert called("hf-hub:a/m", "hf-hub:b/m") == ["a/m", "b/m"]
    assert called("hf-hub:a/m@1", "hf-hub:a/m@2") == ["a/m@1", "a/m@2"]
    for wrong in ("hf-hub:name", "hf-hub:", "hf-hub:a/b/c"):
        with pytest.raises(UsageError, match="org/name"):
            resolve([wrong])


def test_hub_name_without_prefix_is_told_apart_from_a_folder() -> None:
    with pytest.raises(DataError) as caught:
        resolve(["timm/resnet50.a1_in1k"])
    assert "hf-hub:timm/resnet50.a1_in1k" in caught.value.tip


def test_function_key_follows_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert keys("py:no_such_module:build") == ["py:no_such_module:build"]
    package = tmp_path / "my_package_of_models"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('resolving must not import')")
    (package / "nets.py").write_text("a = 1")
    (model,) = resolve(["py:my_package_of_models.nets:build"])
    assert model.key.startswith("py:my_package_of_models.nets:build@")
    assert model.ref == "py:my_package_of_models.nets:build"
    assert model.name == "build"
    (package / "nets.py").write_text("a = 22")
    assert keys(model.ref) != [model.key]


@pytest.mark.parametrize("reference", ["py:module", "py:a b:c", "py::f", "py:m:f:g", "py:m:1"])
def test_malformed_function(reference: str) -> None:
    with pytest.raises(UsageError, match="py:module:function"):
        resolve([reference])


def test_predictions(tmp_path: Path) -> None:
    file = tmp_path / "resnet50.a1_in1k-224.csv.gz"
    file.write_bytes(b"content")
    (model,) = resolve([f"predictions:{file}"])
    assert (model.name, model.ref) == ("resnet50.a1_in1k-224", f"predictions:{file}")
    copy = shutil.copy(file, tmp_path / "other.csv.gz")
    assert keys(f"predictions:{copy}") == [model.key]
    file.write_bytes(b"changed")
    assert keys(model.ref) != [model.key]
    assert called(f"predictions:{file}", f"predictions:{copy}") == [model.name, "other"]
    twin = tmp_path / "resnet50.a1_in1k-224.parquet"
    twin.write_bytes(b"twin")
    assert called(f"predictions:{file}", f"predictions:{twin}") == [file.name, twin.name]
    with pytest.raises(DataError, match=r"no file .*missing\.csv") as caught:
        resolve([f"predictions:{tmp_path / 'missing.csv'}"])
    assert "Parquet" in caught.value.tip


def test_predictions_are_refused_where_weights_are_needed(tmp_path: Path) -> None:
    file = tmp_path / "said.csv"
    file.write_text("id,pred")
    models = resolve(["resnet50", "random:vit_s", f"predictions:{file}"])
    names.refuse_predictions(models[:2], "kt transfer")
    with pytest.raises(UsageError, match=r"kt transfer needs .*weights.*said\.csv") as caught:
        names.refuse_predictions(models, "kt transfer")
    assert "complementarity" in caught.value.tip


def test_untrained() -> None:
    import timm

    models = resolve(["random:vit_s", "random:vit_small_patch16_224#0", "random:vit_s#12"])
    name, version = "random:vit_small_patch16_224", timm.__version__
    assert [model.name for model in models] == [name, f"{name}#12"]
    assert [model.ref for model in models] == [f"{name}#0", f"{name}#12"]
    assert [model.key for model in models] == [f"{name}#{seed}@timm-{version}" for seed in (0, 12)]
    assert all(model.untrained for model in models)
    with pytest.raises(UnknownName, match="vit_smal"):
        resolve(["random:vit_smal"])
    for wrong in ("random:", "random:vit_s#", "random:vit_s#x", "random:vit_s#-1"):
        with pytest.raises(UsageError, match="random:ARCH"):
            resolve([wrong])


def test_untrained_in_a_list_is_no_comment(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("random:test_vit#3 # a baseline\n")
    assert called(f"@{tmp_path / 'list.txt'}") == ["random:test_vit#3"]


# --- folders ------------------------------------------------------------------------------------


def test_folder_forms(save_model: SaveModel, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_model("vit")
    monkeypatch.chdir(folder.parent)
    (model,) = resolve(["vit", "./vit", "local-dir:vit", str(folder), f"local-dir:{folder}"])
    assert model.name == "vit"
    assert model.ref == f"local-dir:{folder}"
    assert model.key.startswith("local:")
    assert len(model.key) == len("local:") + 16


def test_zoo_is_all_of_its_models(save_model: SaveModel) -> None:
    root = save_model("zoo/b", "test_resnet").parent
    save_model("zoo/a", seed=1)
    (root / "notes").mkdir()
    assert called(str(root)) == ["a", "b"]
    with pytest.raises(DataError, match=r"config\.json"):
        resolve([f"local-dir:{root}"])


def test_timm_names_go_before_folders(
    tmp_path: Path, save_model: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model("resnet18")
    monkeypatch.chdir(tmp_path)
    assert resolve(["resnet18"])[0].key.startswith("resnet18.")
    assert resolve(["./resnet18"])[0].ref == f"local-dir:{folder}"


def test_what_is_no_model_folder(tmp_path: Path, save_model: SaveModel) -> None:
    with pytest.raises(DataError, match="no models in"):
        resolve([str(tmp_path)])
    with pytest.raises(DataError, match="no folder"):
        resolve([f"local-dir:{tmp_path}/missing"])
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(DataError, match="is a file") as caught:
        resolve([str(tmp_path / "file.txt")])
    assert "ARCH@FILE" in caught.value.tip
    folder = save_model("vit")
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match="no weights"):
        resolve([str(folder)])


def test_key_stays_when_moved_or_annotated(save_model: SaveModel) -> None:
    folder = save_model("vit")
    (key,) = keys(str(folder))
    (folder / "README.md").write_text("new")
    (folder / "log.txt").write_text("new")
    assert keys(str(folder)) == [key]
    moved = folder.rename(folder.with_name("moved"))
    assert keys(str(moved)) == [key]


def test_key_changes_with_weights_and_config(save_model: SaveModel) -> None:
    folder = save_model("vit")
    seen = set(keys(str(folder)))
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, folder / "model.safetensors")
    seen.update(keys(str(folder)))
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"class 0"', '"class zero"'))
    seen.update(keys(str(folder)))
    assert len(seen) == 3


def test_content_is_read_once_while_a_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened, real = tmp_path / "weights", [], Path.open
    path.write_bytes(b"a" * 10)
    monkeypatch.setattr(Path, "open", lambda self, mode: opened.append(self) or real(self, mode))
    first = local_models.content(path)
    assert local_models.content(path) == first and len(opened) == 2  # it may change unseen
    monkeypatch.setattr(local_models, "may_change_unseen", lambda status, now: False)
    assert [local_models.content(path) for _ in range(3)] == [first] * 3 and len(opened) == 3
    monkeypatch.setattr(Path, "open", real)
    path.write_bytes(b"b" * 10)
    os.utime(path, ns=(1, 1))
    assert local_models.content(path) != first


def test_weights_are_the_file_that_timm_takes(tmp_path: Path) -> None:
    from timm.models import _hub

    assert local_models.PREFERRED == _hub._PREFERRED_FILES
    for name in ("z.bin", "b.pth", "a.pth", "model.pth", "model.safetensors"):
        torch.save({name: torch.zeros(1)}, tmp_path / name)
        if name == "model.safetensors":
            save_file({name: torch.zeros(1)}, tmp_path / name)
        (taken,) = _hub.load_state_dict_from_path(tmp_path)
        assert local_models.weights_file(tmp_path).name == taken


def test_equal_folders_are_one_model_and_names_become_unique(save_model: SaveModel) -> None:
    first = save_model("one/vit")
    second = save_model("two/vit", seed=1)
    assert called(str(first), str(second)) == ["one/vit", "two/vit"]
    shutil.copytree(first, first.parent / "copy")
    assert called(str(first), str(first.parent / "copy")) == ["vit"]


# --- checkpoints --------------------------------------------------------------------------------


def test_checkpoint(tmp_path: Path, save_model: SaveModel) -> None:
    file = save_model("vit") / "model.safetensors"
    (model,) = resolve([f"test_vit@{file}"])
    assert model.ref == f"test_vit@{file}"
    assert model.name == "model"
    assert model.key != keys(f"test_vit2@{file}")[0]
    copy = shutil.copy(file, tmp_path / "best.safetensors")
    assert keys(f"test_vit@{copy}") == [model.key]
    other = save_model("other", seed=1) / "model.safetensors"
    assert called(f"test_vit@{file}", f"test_vit@{other}") == ["vit/model", "other/model"]


def test_checkpoint_names_lose_the_whole_ending(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "model_best.pth.tar")
    assert called(f"test_vit@{tmp_path}/model_best.pth.tar") == ["model_best"]


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("test_vit@missing.pth", DataError, "missing.pth"),
        ("test_vitt@missing.pth", UnknownName, "test_vitt"),
        ("test_vit@notes.txt", DataError, "notes.txt"),
        ("resnet50.a9@missing.pth", UnknownName, "a9"),
    ],
)
def test_checkpoint_that_cannot_be(reference: str, error: type[KtError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        resolve([reference])
    assert caught.value.tip


# --- folders of checkpoints, and --arch -----------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of three checkpoints, and what else lies there."""
    folder = tmp_path / "runs"
    folder.mkdir()
    for number, name in enumerate(("epoch10.pth", "epoch9.safetensors", "epoch2.pth.tar")):
        (folder / name).write_bytes(bytes([number]))
    (folder / "log.csv").write_text("")
    (folder / "nested").mkdir()
    (folder / "nested" / "epoch1.pth").write_bytes(b"x")
    return folder


EPOCHS = ["epoch2.pth.tar", "epoch9.safetensors", "epoch10.pth"]


def test_folder_of_checkpoints(runs: Path) -> None:
    models = resolve([f"test_vit@{runs}"])
    assert [model.ref for model in models] == [f"test_vit@{runs / name}" for name in EPOCHS]
    assert [model.name for model in models] == ["epoch2", "epoch9", "epoch10"]
    assert keys(*(model.ref for model in models)) == [model.key for model in models]
    empty = runs / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"no checkpoints in .*empty") as caught:
        resolve([f"test_vit@{empty}"])
    assert ".safetensors" in caught.value.tip


def test_arch_of_bare_files_and_folders(
    runs: Path, save_model: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    want = keys("test_vit@epoch10.pth")
    folder = str(save_model("vit"))
    for reference in ("epoch10.pth", "./epoch10.pth", str(runs / "epoch10.pth")):
        assert [m.key for m in resolve([reference], "test_vit")] == want
    monkeypatch.chdir(runs.parent)
    for reference in ("runs", "./runs", f"test_vit2@{runs}"):
        architecture = "test_vit" if "@" not in reference else "test_vit2"
        refs = [m.ref for m in resolve([reference], "test_vit")]
        assert refs == [f"{architecture}@{runs / name}" for name in EPOCHS]
    mixed = [f"resnet50,{runs / 'epoch10.pth'}", folder, "random:test_vit"]
    assert [m.name for m in resolve(mixed, "test_vit")] == [
        "resnet50.a1_in1k", "epoch10", "vit", "random:test_vit",
    ]  # fmt: skip
    (runs / "list.txt").write_text("runs/epoch10.pth  # the last\n")
    assert [m.key for m in resolve([f"@{runs / 'list.txt'}"], "test_vit")] == want


def test_short_names_of_architectures_are_for_arch_too(runs: Path) -> None:
    (model,) = resolve([str(runs / "epoch10.pth")], "vit_s")
    assert model.ref.startswith("vit_small_patch16_224@")
    with pytest.raises(UnknownName, match="vit_ss"):
        resolve(["resnet50"], "vit_ss")


@pytest.mark.parametrize("reference", ["epoch10.pth", "./epoch10.pth", "resnet50.pth"])
def test_a_bare_checkpoint_needs_its_architecture(
    runs: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    monkeypatch.chdir(runs)
    Path("resnet50.pth").write_bytes(b"named like a model")
    with pytest.raises(DataError, match="is a file") as caught:
        resolve([reference])
    assert "ARCH@FILE" in caught.value.tip and "--arch" in caught.value.tip
    assert resolve([reference], "test_vit")[0].ref == f"test_vit@{runs / Path(reference).name}"


def test_a_bare_folder_of_checkpoints_needs_their_architecture(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs.parent)
    with pytest.raises(DataError, match="no models in") as caught:
        resolve(["runs"])
    assert "ARCH@runs" in caught.value.tip and "--arch" in caught.value.tip
    (runs / "empty").mkdir()
    with pytest.raises(DataError, match="no models in"):
        resolve(["./runs/empty"], "test_vit")
    runs.rename("resnet50")  # timm's models go first
    keys = [model.key for model in resolve(["resnet50", "./resnet50"], "test_vit")]
    assert len(keys) == 4 and keys[0] == "resnet50.a1_in1k"
    with pytest.raises(UsageError, match="--arch changes nothing"):
        resolve(["resnet50"], "test_vit")


def test_missing_checkpoint_with_arch(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*missing\.pth"):
        resolve([str(tmp_path / "missing.pth")], "test_vit")


# --- numbers of classes ---------------------------------------------------------------------------


def test_models_that_no_data_has_in_common(save_model: SaveModel) -> None:
    folder = str(save_model("digits-vit"))
    classes.require_common([])
    classes.require_common(resolve([folder]))
    classes.require_common(resolve(["timm-top3", "hf-hub:a/b"]))
    classes.require_common(resolve(["resnet50.a1_in1k", "resnetv2_50x1_bit.goog_in21k"]))
    with pytest.raises(
        ClassMismatch, match=r"resnet50\.a1_in1k has 1000 classes, digits-vit has 10"
    ):
        classes.require_common(resolve(["resnet50.a1_in1k", folder]))


def test_everything_is_refused_before_work() -> None:
    # The unknown name comes last; nothing is returned of what stands before it.
    with pytest.raises(UnknownName):
        resolve(["timm-top3", "resnet50", "no_such_model"])


def test_a_comma_may_be_in_the_name_of_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_model: SaveModel
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model("a,b")
    save_model("c")
    assert called("local-dir:a,b") == called("./a,b") == ["a,b"]
    assert called("local-dir:c,./c") == ["c"]
    with pytest.raises(KtError, match="nothing"):
        called("local-dir:a,nothing")


def test_a_file_that_is_no_checkpoint_is_perhaps_what_a_model_said(tmp_path: Path) -> None:
    (tmp_path / "said.csv").write_text("id,pred")
    with pytest.raises(DataError) as caught:
        resolve([str(tmp_path / "said.csv")])
    assert f"predictions:{tmp_path / 'said.csv'}" in caught.value.tip
