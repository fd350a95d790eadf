from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.filesize import decimal
from safetensors.numpy import save_file

from kt_cli import cache
from kt_cli.cli.cache import KINDS
from kt_cli.files import with_checksum
from kt_cli.rows import arrays

Kt = Callable[..., tuple[int, str, str]]

NAMES = ("resnet", "vit_small", "vit_tiny")


@pytest.fixture
def kept() -> dict[str, Path]:
    """Three models' predictions, an embedding, training images, and an unfinished file."""
    folder = cache.root()
    paths = {name: folder / "predictions" / f"{i:024x}.parquet" for i, name in enumerate(NAMES)}
    for name, path in paths.items():
        columns: arrays.Arrays = {
            column: np.zeros(1200, np.int16) for column in cache.COLUMNS["predictions"]
        }
        columns["id"] = [f"val/{i}.jpeg" for i in range(1200)]
        if name == "resnet":
            columns["logits"] = np.zeros((1200, 10), np.float16)
        arrays.write(path, columns, {
            "name": name, "model": f"{name}.in1k", "data": "birds", "input_size": "224",
            "eval_size": "train" if name == "vit_tiny" else "test",
        })  # fmt: skip
    paths["head"] = folder / "classes" / f"{7:024x}.parquet"
    vectors = {"id": ["x", "y"], "vectors": np.ones((2, 3), np.float32)}
    arrays.write(paths["head"], vectors, {"name": "head:resnet", "data": "digits"})
    paths["canonical"] = folder / "canonical" / f"{8:024x}.npy"
    paths["canonical"].parent.mkdir()
    with paths["canonical"].open("wb") as file:
        np.lib.format.write_array(file, np.zeros((5, 3, 16, 16), np.uint8), version=(2, 0))
    paths["half"] = folder / "predictions" / f".{9:024x}.parquet.0123456789ab.tmp"
    paths["half"].write_bytes(b"half")
    return paths


@pytest.fixture
def targets() -> list[Path]:
    """Of 300 models and epochs; 30 more as their most probable classes, and a damaged file."""
    folder = cache.root() / "targets"
    folder.mkdir(parents=True)
    said: dict[str, np.ndarray] = {
        "label_prob": np.ones(6, np.float32),
        "confidence": np.ones(6, np.float32),
        "right": np.ones(6, bool),
    }
    logits = {**said, "logits": np.zeros((6, 1000), np.float16)}
    top = {
        **said, "classes": np.zeros((6, 50), np.int32),
        "log_probs": np.zeros((6, 50), np.float16), "log_rest": np.zeros(6, np.float32),
    }  # fmt: skip
    checksum = {
        whole: with_checksum({name: torch.from_numpy(values) for name, values in columns.items()})
        for whole, columns in ((True, logits), (False, top))
    }
    paths = [folder / f"{i:024x}.safetensors" for i in range(331)]
    for i, path in enumerate(paths):
        save_file(logits if i < 300 else top, path, checksum[i < 300])
    paths[-1].write_bytes(b"half")
    return paths


def made_older(path: Path, hours: float) -> None:
    then = time.time() - 3600 * hours
    os.utime(path, (then, then))


def left(kept: dict[str, Path]) -> set[str]:
    return {name for name, path in kept.items() if path.exists()}


def line(out: str, text: str) -> list[str]:
    (found,) = [line for line in out.splitlines() if text in line]
    return found.split()


def test_the_kinds_are_the_kinds() -> None:
    assert KINDS == cache.KINDS


def test_ls_shows_everything_and_the_sum(kt: Kt, kept: dict[str, Path]) -> None:
    made_older(kept["vit_tiny"], 75)
    code, out, err = kt("cache", "ls")
    assert code == 0 and not err
    assert out.splitlines()[0].strip() == f"{cache.root()} (KT_CACHE)"
    assert out.splitlines()[1].split() == [
        "kind", "model", "size", "age", "images", "logits", "data",
    ]  # fmt: skip
    assert line(out, "predictions  resnet")[-4:] == ["now", "1,200", "yes", "birds"]
    assert line(out, "vit_tiny")[-5:-3] == ["3", "d"] and "no" in line(out, "vit_tiny")
    assert "resnet, 224 px " in out and "vit_tiny, train size 224 px " in out
    found = line(out, "head:resnet")
    assert found[:4] == ["classes", "head:resnet,", "2", "classes"] and found[-1] == "digits"
    assert line(out, "canonical ")[1:5] == ["5", "×", "16", "px"]
    assert line(out, kept["half"].name)[0] == "unfinished"
    assert out.splitlines()[-1].startswith("6 entries, ")


def test_ls_of_some(kt: Kt, kept: dict[str, Path]) -> None:
    _, out, _ = kt("cache", "ls", "vit_*", "digits")
    assert "vit_small" in out and "vit_tiny" in out and "head:resnet" in out
    assert "3 entries" in out
    assert "1 entry" in kt("cache", "ls", "--kind", "canonical")[1]
    assert kt("cache", "ls", "--kind", "nothing")[0] == 2


def test_ls_as_json(kt: Kt, kept: dict[str, Path]) -> None:
    _, out, _ = kt("cache", "ls", "resnet", "--json")
    (row,) = json.loads(out)
    assert row["path"] == str(kept["resnet"]) and row["bytes"] == kept["resnet"].stat().st_size
    assert row["rows"] == 1200 and "logits" in row["columns"] and row["fault"] == ""
    about = {"name": "resnet", "model": "resnet.in1k", "data": "birds"}
    assert row["about"] == {**about, "input_size": "224", "eval_size": "test"}


def test_ls_names_what_it_cannot_read(kt: Kt, kept: dict[str, Path]) -> None:
    kept["resnet"].write_bytes(b"PAR1")
    code, out, _ = kt("cache", "ls")
    assert code == 0 and f"unreadable: {kept['resnet'].name}" in out and "6 entries" in out


def test_ls_puts_targets_that_are_alike_together(kt: Kt, targets: list[Path]) -> None:
    for path in targets[:300]:
        made_older(path, 50)
    made_older(targets[7], 30)
    code, out, err = kt("cache", "ls", "--kind", "targets")
    assert code == 0 and not err and len(out.splitlines()) == 2 + 3 + 1
    size = decimal(sum(path.stat().st_size for path in targets[:300]))
    whole, top = line(out, " 1,000 classes "), line(out, " 50 most probable classes ")
    assert whole[:4] == ["targets", "300", "models", "×"]
    assert whole[-5:] == [*size.split(), "1", "d", "6"]
    assert top[:3] == ["targets", "30", "models"] and top[-2] == "now"
    assert f"unreadable: {targets[-1].name}" in out
    assert out.splitlines()[-1].startswith("331 entries, ")


def test_rm_and_verify_of_targets(kt: Kt, kept: dict[str, Path], targets: list[Path]) -> None:
    code, out, err = kt("cache", "verify", "--kind", "targets")
    assert code == 1 and "broken: 1 of 331 entries" in err and str(targets[-1]) in out
    assert kt("cache", "verify", "--kind", "targets", "--remove")[0] == 0
    assert [path.exists() for path in targets] == [True] * 330 + [False]
    _, out, _ = kt("cache", "rm", "--kind", "targets")
    assert "Removed 330 entries" in out and len(out.splitlines()) < 6
    assert not any(path.exists() for path in targets) and left(kept) == set(kept)


@pytest.mark.parametrize("command", [["ls"], ["rm", "--all"], ["verify"], ["ls", "--json"]])
def test_an_empty_cache_is_one_sentence(kt: Kt, command: list[str]) -> None:
    code, out, err = kt("cache", *command)
    assert code == 0 and out.strip() in ("", "[]")
    assert err == f"The cache {cache.root()} (KT_CACHE) is empty.\n"


@pytest.mark.parametrize("command", ["ls", "rm", "verify"])
def test_nothing_that_matches_is_one_sentence(kt: Kt, kept: dict[str, Path], command: str) -> None:
    code, out, err = kt("cache", command, "convnext*")
    assert code == 0 and not out and "holds nothing that matches" in err
    assert left(kept) == set(kept)


def test_rm_needs_to_be_told_what(kt: Kt, kept: dict[str, Path]) -> None:
    code, out, err = kt("cache", "rm")
    assert code == 2 and not out and "--all" in err
    assert kt("cache", "rm", "--dry-run")[0] == 2
    assert left(kept) == set(kept)


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (["vit_*"], {"vit_small", "vit_tiny"}),
        (["resnet.in1k"], {"resnet"}),
        (["birds", "--kind", "classes"], set()),
        (["--kind", "classes"], {"head"}),
        (["--older-than", "2d"], {"vit_tiny", "canonical"}),
        (["--older-than", "100h"], {"canonical"}),
        (["--older-than", "2d", "vit_*"], {"vit_tiny"}),
        (["--older-than", "300d"], set()),
        (["--kind", "unfinished"], set()),
        (["--all"], {*NAMES, "head", "canonical"}),
    ],
)
def test_rm_removes_what_is_chosen(
    kt: Kt, kept: dict[str, Path], arguments: list[str], gone: set[str]
) -> None:
    made_older(kept["vit_tiny"], 75)
    made_older(kept["canonical"], 200)
    freed = decimal(sum(kept[name].stat().st_size for name in gone))
    code, out, _ = kt("cache", "rm", *arguments, "--dry-run")
    assert code == 0 and left(kept) == set(kept) and ("Would remove" in out) is bool(gone)
    code, out, _ = kt("cache", "rm", *arguments)
    assert code == 0 and left(kept) == set(kept) - gone
    if gone:
        assert out.splitlines()[-1].startswith(f"Removed {len(gone)} entr")
        assert out.endswith(f": {freed}\n")


def test_rm_says_what_it_removed_and_what_it_kept(kt: Kt, kept: dict[str, Path]) -> None:
    _, out, err = kt("cache", "rm", "--all")
    assert all(line(out, f"predictions  {name}, ") for name in NAMES)
    assert "Kept 1 unfinished" in err and left(kept) == {"half"}
    made_older(kept["half"], 1.1)
    _, out, err = kt("cache", "rm", "--all")
    assert kept["half"].name in out and not err and left(kept) == set()


def test_rm_when_nothing_is_old_enough(kt: Kt, kept: dict[str, Path]) -> None:
    code, out, err = kt("cache", "rm", "--older-than", "1d")
    assert code == 0 and not out and "older than 1d" in err


@pytest.mark.parametrize("age", ["30", "d", "-1d", "1y", "1d2h"])
def test_an_age_that_is_none(kt: Kt, kept: dict[str, Path], age: str) -> None:
    code, _, err = kt("cache", "rm", f"--older-than={age}")
    assert code == 2 and age in err and "30d" in err and left(kept) == set(kept)


def test_verify_of_a_whole_cache(kt: Kt, kept: dict[str, Path]) -> None:
    code, out, err = kt("cache", "verify")
    assert code == 0 and out.startswith("5 entries") and "nothing is broken" in out
    assert "verify: 5/5" in err


def test_verify_names_what_is_broken_and_removes_it_on_request(
    kt: Kt, kept: dict[str, Path]
) -> None:
    content = kept["canonical"].read_bytes()
    kept["canonical"].write_bytes(content[:-1])
    kept["vit_tiny"].write_bytes(kept["vit_tiny"].read_bytes()[:-9])
    code, out, err = kt("cache", "verify")
    assert code == 1 and "broken: 2 of 5" in err and "--remove" in err
    assert f"{kept['canonical']}: {len(content) - 1:,} bytes" in out
    assert str(kept["vit_tiny"]) in out and str(kept["resnet"]) not in out
    assert left(kept) == set(kept)
    assert kt("cache", "verify", "resnet")[0] == 0
    code, out, _ = kt("cache", "verify", "--remove")
    assert code == 0 and "Removed 2 entries" in out
    assert left(kept) == set(kept) - {"canonical", "vit_tiny"}
    assert kt("cache", "verify")[0] == 0


def test_verify_has_nothing_to_say_about_unfinished_files(kt: Kt, kept: dict[str, Path]) -> None:
    code, out, err = kt("cache", "verify", "--kind", "unfinished", "--remove")
    assert code == 0 and not out and "nothing that matches" in err and "half" in left(kept)
