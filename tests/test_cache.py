from __future__ import annotations

import errno
import os
import re
import stat
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from kt_cli import cache, files
from kt_cli.distillation.losses import TopK
from kt_cli.distillation.partition import SampleStats
from kt_cli.distillation.target_cache import Disk, TeacherOutputs
from kt_cli.errors import WriteError
from kt_cli.files import cached, keep_tensors
from kt_cli.rows import arrays

PREDICTED = ("id", "label", "pred", "confidence", "label_prob", "top5")


def predictions(number: int, name: str, images: int = 5, logits: bool = False) -> Path:
    path = cache.root() / "predictions" / f"{number:024x}.parquet"
    columns = {
        "id": [f"val/{i}.jpeg" for i in range(images)],
        "label": np.zeros(images, np.int16),
        "pred": np.arange(images, dtype=np.int16),
        "confidence": np.random.default_rng(number).random(images, np.float32),
        "label_prob": np.zeros(images, np.float32),
        "top5": np.zeros((images, 5), np.int16),
    }
    if logits:
        columns["logits"] = np.random.default_rng(number).random((images, 7)).astype(np.float16)
    arrays.write(path, columns, {"name": name, "model": f"{name}.a1_in1k", "data": "birds"})
    return path


def classes(number: int, name: str = "head:resnet") -> Path:
    path = cache.root() / "classes" / f"{number:024x}.parquet"
    vectors = np.random.default_rng(number).random((3, 4), np.float32)
    arrays.write(path, {"id": ["x", "y", "z"], "vectors": vectors}, {"name": name, "data": "birds"})
    return path


def canonical(number: int, images: int = 4, side: int = 8) -> Path:
    path = cache.root() / "canonical" / f"{number:024x}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        pixels = np.zeros((images, 3, side, side), np.uint8)
        np.lib.format.write_array(file, pixels, version=(2, 0))
    return path


def drift(number: int) -> Path:
    path = cache.root() / "drift" / f"{number:024x}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    keep_tensors(path, {"weight": torch.zeros(3)})
    return path


def targets(number: int, form: str = "logits", views: int = 4, without: str = "") -> Path:
    path = cache.root() / "targets" / f"{number:024x}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    logits = torch.from_numpy(np.random.default_rng(number).normal(size=(views, 7))).float()
    said = SampleStats.of(logits, torch.zeros(views, dtype=torch.long))
    kept = TopK.of(logits, 3, 1.0) if form == "topk" else logits
    features = torch.ones(views, 2) if form == "features" else None
    tensors = TeacherOutputs(kept, said, features).small().tensors()
    keep_tensors(path, {k: v for k, v in tensors.items() if k != without})
    return path


def contents(number: int) -> Path:
    path = cache.root() / "contents" / f"{number:024x}.parquet"
    arrays.write(path, {"digest": np.zeros((4, 16), np.uint8)}, {"data": "birds"})
    return path


def unfinished(number: int, hours: float = 0) -> Path:
    path = cache.root() / "predictions" / f".{number:024x}.parquet.0123456789ab.tmp"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    made_older(path, hours)
    return path


def made_older(path: Path, hours: float) -> None:
    then = time.time() - 3600 * hours
    os.utime(path, (then, then))


def entry_of(path: Path) -> cache.Entry:
    (found,) = [entry for entry in cache.entries() if entry.path == path]
    return found


def test_a_missing_cache_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KT_CACHE", str(tmp_path / "nowhere"))
    assert cache.root() == tmp_path / "nowhere" and cache.entries() == []
    assert not cache.root().exists()


def test_entries_say_what_they_are() -> None:
    paths = [predictions(2, "a", 6, logits=True), predictions(1, "b"), classes(3), canonical(4)]
    paths += [targets(6), targets(7, "topk"), unfinished(5)]
    found = cache.entries()
    assert [entry.path for entry in found] == paths
    assert [entry.kind for entry in found] == [
        "predictions", "predictions", "classes", "canonical", "targets", "targets", "unfinished",
    ]  # fmt: skip
    assert [entry.bytes for entry in found] == [path.stat().st_size for path in paths]
    assert [entry.modified for entry in found] == [path.stat().st_mtime for path in paths]
    assert [entry.rows for entry in found] == [6, 5, 3, 4, 4, 4, None]
    assert found[0].about == {"name": "a", "model": "a.a1_in1k", "data": "birds"}
    assert found[0].columns == (*PREDICTED, "logits") and found[1].columns == PREDICTED
    assert found[3].about == {"side": "8"}
    assert found[4].about == {"classes": "7"} and found[5].about == {"topk": "3"}
    assert found[4].columns == ("confidence", "label_prob", "logits", "right")
    assert not any(entry.fault for entry in found)


def configurations(number: int) -> Path:
    path = cache.root() / "timm" / f"{number:024x}.parquet"
    arrays.write(path, {"id": ["resnet50"], "config": ["[]"]}, {"name": "timm 1.0"})
    return path


@pytest.mark.parametrize("kind", cache.KINDS)
def test_entries_of_one_kind(kind: str) -> None:
    predictions(1, "a"), classes(2), canonical(3), targets(5), contents(6), unfinished(4), drift(7)
    configurations(8)
    assert [entry.kind for entry in cache.entries(kind)] == [kind]


def test_files_of_others_are_no_entries() -> None:
    folder = predictions(1, "a").parent
    for name in ("notes.parquet", f"{7:024x}.npy", ".notes.txt.0123456789ab.tmp", f"{7:024X}.tmp"):
        (folder / name).write_bytes(b"mine")
    (cache.root() / f"{7:024x}.parquet").write_bytes(b"mine")
    assert [entry.path.name for entry in cache.entries()] == [f"{1:024x}.parquet"]


def test_an_unreadable_file_is_an_entry_that_says_so() -> None:
    for path in (
        predictions(1, "a"),
        classes(2),
        canonical(3),
        targets(4),
        targets(5, "topk"),
        contents(6),
    ):
        path.write_bytes(path.read_bytes()[:20])
        found = entry_of(path)
        assert found.fault and found.about == {} and found.rows is None and found.bytes == 20
        assert cache.verify(found) == found.fault
        assert str(path) not in found.fault


def test_what_is_said_but_is_no_text_is_a_fault() -> None:
    path = predictions(1, "unmistakable")
    path.write_bytes(path.read_bytes().replace(b"unmistakable", b"unmistak\xffble"))
    assert entry_of(path).fault and cache.verify(entry_of(path))


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("vit*", True),
        ("*.a1_in1k", True),
        ("birds", True),
        ("*01.parquet", True),
        ("vit", False),
        ("VIT*", False),
        ("resnet*", False),
    ],
)
def test_patterns_fit_names_keys_data_and_files(pattern: str, matches: bool) -> None:
    found = entry_of(predictions(1, "vit_small"))
    assert found.matches([pattern]) is matches
    assert found.matches(["nothing", pattern]) is matches


def test_whole_files_are_fine() -> None:
    predictions(1, "a", 3000, logits=True), predictions(2, "b"), classes(3), canonical(4)
    targets(5), targets(6, "topk"), targets(7, "features")
    assert [cache.verify(entry) for entry in cache.entries()] == [None] * 7


@pytest.mark.parametrize("make", [predictions, classes])
def test_a_flipped_bit_is_found_by_its_checksum(make: object) -> None:
    path = predictions(1, "a", 500, logits=True) if make is predictions else classes(1)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    content = bytearray(whole)
    content[footer - 6] ^= 1  # in the last page's values
    path.write_bytes(content)
    found = entry_of(path)
    assert not found.fault
    assert "CRC" in (cache.verify(found) or "")


def test_missing_columns_are_named() -> None:
    path = predictions(1, "a")
    kept, about = arrays.read(path, ["id", "label", "pred", "top5"])
    arrays.write(path, kept, about)
    assert cache.verify(entry_of(path)) == "no column confidence, label_prob"


@pytest.mark.parametrize("change", [-1, +1])
def test_a_canonical_file_of_another_size_than_its_header_says(change: int) -> None:
    path = canonical(1)
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + b"x")
    reason = cache.verify(entry_of(path)) or ""
    assert f"{len(content) + change:,} bytes" in reason and f"says {len(content):,}" in reason


@pytest.mark.parametrize("change", [-1, +1])
@pytest.mark.parametrize("form", ["logits", "topk"])
def test_targets_of_another_size_than_their_header_says(form: str, change: int) -> None:
    path = targets(1, form)
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + b"x")
    found = entry_of(path)
    assert found.fault and cache.verify(found) == found.fault


@pytest.mark.parametrize(
    ("form", "without"),
    [
        ("logits", "logits"), ("logits", "right"), ("features", "label_prob"),
        ("topk", "log_probs"), ("topk", "log_rest"), ("topk", "confidence"),
    ],
)  # fmt: skip
def test_missing_tensors_are_named(form: str, without: str) -> None:
    path = targets(1, form, without=without)
    assert cache.verify(entry_of(path)) == f"no tensor {without}"
    with pytest.raises(KeyError):
        TeacherOutputs.of(load_file(path))


def test_targets_that_are_not_as_many_as_their_views() -> None:
    path = targets(1)
    save_file(load_file(path) | {"right": torch.ones(3, dtype=torch.bool)}, path)
    assert cache.verify(entry_of(path)) == "tensors of 3, 4 rows"


def test_what_transfers_keep_on_disk_is_found() -> None:
    labels = torch.zeros(5, dtype=torch.long)
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    keeping, said = Disk(), SampleStats.of(logits, labels)
    whole, top = TeacherOutputs(logits, said), TeacherOutputs(TopK.of(logits, 2, 1.0), said)
    keeping.get("a" * 64, lambda: keeping.stored(whole))
    keeping.get("b" * 64, lambda: keeping.stored(top))
    found = cache.entries("targets")
    assert [entry.path.stem for entry in found] == ["a" * 24, "b" * 24]
    assert [entry.about for entry in found] == [{"classes": "9"}, {"topk": "2"}]
    assert [cache.verify(entry) for entry in found] == [None, None]


def test_what_is_gone_or_unfinished_is_not_broken() -> None:
    gone, half = entry_of(predictions(1, "a")), entry_of(unfinished(2, hours=5))
    gone.path.unlink()
    assert cache.verify(gone) is None and cache.verify(half) is None


def test_verify_looks_at_the_file_as_it_is_now() -> None:
    path = predictions(1, "a")
    content = path.read_bytes()
    path.write_bytes(b"half")
    before = entry_of(path)
    path.write_bytes(content)
    assert before.fault and cache.verify(before) is None


def test_remove_frees_bytes_and_spares_living_writers() -> None:
    kept = [predictions(1, "a"), unfinished(2, hours=0.9)]
    gone = [predictions(3, "b"), canonical(4), unfinished(5, hours=1.1)]
    going = [entry for entry in cache.entries() if entry.path != kept[0]]
    assert [entry.in_use for entry in going] == [False, False, True, False]
    expected = sum(path.stat().st_size for path in gone)
    assert cache.remove(going) == expected
    assert not any(path.exists() for path in gone) and all(path.exists() for path in kept)
    assert cache.remove(going) == 0


def test_what_cannot_be_removed_is_named() -> None:
    path = predictions(1, "a")
    found = entry_of(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(WriteError, match=f"cannot remove {path}") as raised:
        cache.remove([found])
    assert raised.value.tip


def test_age() -> None:
    path = predictions(1, "a")
    made_older(path, 30)
    assert entry_of(path).older(29 * 3600) and not entry_of(path).older(31 * 3600)


def test_the_documented_entry_is_the_entry_and_reads_back(repository: Path, tmp_path: Path) -> None:
    """docs/predictions.md lists every column and every key of what a model's evaluation keeps."""
    import torch

    from kt_cli.data.sources import open_data
    from kt_cli.knowledge.predict import How, predict
    from kt_cli.settings import DataSpec, EvalSpec
    from kt_cli.zoo import load, names

    torch.manual_seed(0)  # no two of its answers tie in half precision
    module, config = load.build("test_vit", 10, 32)
    load.save(
        module, tmp_path / "vit", data_config=config, num_classes=10,
        label_names=list("0123456789"), card="", extra={},
    )  # fmt: skip
    (model,) = names.resolve([f"local-dir:{tmp_path / 'vit'}"])
    images = open_data(DataSpec("digits", limit=20)).eval
    how = How(EvalSpec(), torch.device("cpu"), logits=True, workers=0)
    computed = predict(model, images, how)

    (entry,) = cache.entries("predictions")
    assert entry.path == computed.path and entry.rows == 20 and cache.verify(entry) is None
    text = (repository / "docs" / "predictions.md").read_text(encoding="utf-8")
    section = text.split("## The prediction cache")[1].split("\n## ")[0]
    columns, keys = section.split("key-value metadata")
    documented = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", columns, re.MULTILINE))
    types = {
        name: type_.replace("min(5, C)", "5").replace("[C]", "[10]")
        for name, type_ in documented.items()
    }
    found = {field.name: str(field.type) for field in pq.read_schema(entry.path)}
    assert types == {name: type_.replace("element: ", "") for name, type_ in found.items()}
    assert tuple(types) == (*cache.COLUMNS["predictions"], "logits")
    assert set(re.findall(r"^\| `(\w+)` \|", keys, re.MULTILINE)) == set(entry.about)

    (again,) = names.resolve([f"predictions:{entry.path}"])
    read = predict(again, images, how)
    np.testing.assert_array_equal(read.pred, computed.pred)
    for name in ("confidence", "label_prob"):  # follow from logits in half precision
        np.testing.assert_allclose(getattr(read, name), getattr(computed, name), atol=1e-3)


def test_what_cannot_be_opened_for_now_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    path = predictions(1, "a")

    def too_many(*args: object, **more: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(arrays.pq, "ParquetFile", too_many)
        assert cached(path, arrays.read) is None
    assert cached(path, arrays.read) is not None
    path.write_bytes(path.read_bytes()[:100])
    assert cached(path, arrays.read) is None
    assert not path.exists()


def test_a_file_system_that_does_not_flush_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def refused(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", refused)
    files.write_text(tmp_path / "a" / "file", "whole")
    assert (tmp_path / "a" / "file").read_text() == "whole"
