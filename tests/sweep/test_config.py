from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from kt_cli.errors import DataError, UsageError
from kt_cli.spec import DataSpec, PretrainSpec, TransferSpec
from kt_cli.sweep.config import SweepSpec, build, read_file, to_toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FULL: dict[str, Any] = {
    "name": "x",
    "models": ["resnet50", "vit_*"],
    "data": {"source": "digits", "guard": 0.1, "limit": 5},
    "pretrain": {"img_size": 32, "lr": 2},
    "zoo": [{"name": "a", "arch": "test_vit"}, {"name": "b", "arch": "test_resnet", "lr": 0.5}],
    "transfer": {"methods": ["kl"], "seeds": [0, 1], "pairs": 7, "lr": 0.5, "augment": "none"},
}


def test_a_file_becomes_a_spec() -> None:
    spec = build(FULL, "other")
    assert spec == SweepSpec(
        name="x",
        models=("resnet50", "vit_*"),
        data=DataSpec("digits", guard=0.1, limit=5),
        zoo=(
            PretrainSpec("a", "test_vit", img_size=32, lr=2.0),
            PretrainSpec("b", "test_resnet", img_size=32, lr=0.5),
        ),
        methods=("kl",),
        seeds=(0, 1),
        pairs=7,
        transfer=TransferSpec(lr=0.5, augment="none"),
    )


def test_the_resolved_file_builds_the_same_sweep() -> None:
    for tables in (FULL, {"models": ["a"]}, {**FULL, "transfer": {"pairs": "all"}}):
        spec = build(tables, "name")
        assert build(tomllib.loads(to_toml(spec)), "other") == spec


def test_the_projects_own_sweeps_are_valid(repository: Path) -> None:
    files = list((repository / "sweeps").glob("*.toml"))
    assert files
    for file in files:
        build(read_file(file), file.stem)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modles": []}, "modles.*models"),
        ({"transfer": {"epoch": 3}}, "epoch.*epochs"),
        ({"transfer": {"method": "kl"}}, "method.*methods"),
        ({"transfer": {"lr": "high"}}, "lr must be float"),
        ({"transfer": {"epochs": 1.5}}, "epochs must be int"),
        ({"transfer": {"epochs": 0}}, "epochs must be positive"),
        ({"transfer": {"pairs": -3}}, "-3"),
        ({"transfer": {"pairs": "some"}}, "some"),
        ({"transfer": {"crop": 1.5}}, "crop"),
        ({"transfer": {"kd_lambda": 1.5}}, "kd_lambda"),
        ({"data": {"fraction": 0.5}}, "source"),
        ({"data": {"source": "digits", "fraction": 0.0}}, "fraction"),
        ({"data": {"source": "digits", "guard": 1.0}}, "guard"),
        ({"data": {"source": "digits", "limit": 0}}, "limit"),
        ({"zoo": [{"name": "a"}]}, "arch"),
        ({"zoo": [{"name": "a", "arch": "x"}] * 2}, "'a'"),
        ({"models": [], "zoo": []}, "needs models"),
        ({"name": "../up"}, "name a folder"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build({**FULL, **change}, "x")
    import re

    assert re.search(message, f"{caught.value.message} {caught.value.tip}")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_file(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(DataError, match="not a TOML file"):
        read_file(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("pairs", "models", "count"),
    [("auto", 20, 380), ("auto", 21, 400), ("all", 21, 420), (7, 21, 7), (7, 2, 2), (0, 5, 0)],
)
def test_pair_counts(pairs: int | str, models: int, count: int) -> None:
    assert SweepSpec("x", ("a",), pairs=pairs).pair_count(models) == count
