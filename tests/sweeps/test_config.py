from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from kt_cli.errors import DataError, UsageError
from kt_cli.settings import DataSpec, PretrainSpec, SweepSpec, TransferSpec
from kt_cli.sweeps.config import (
    build,
    read_file,
    require_roles,
    team_transfers,
    to_toml,
    transfer_count,
    with_settings,
)

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


THREE = ("resnet", "vit", "swin")
GRID: dict[str, Any] = {
    **FULL,
    "transfer": {
        "methods": ["kl", "kl-dp+guard"], "lr": [0.1, 1], "bn": ["train", "eval"], "kd_lambda": 0.4,
        "together": "parallel", "team": 2, "students": "res*", "teachers": ["vit", "s*"],
        "target_budget": 1,
    },
}  # fmt: skip


def test_lists_of_settings_are_a_grid() -> None:
    spec = build(GRID, "x")
    points = {(t.method, t.seed, t.lr, t.bn, t.kd_lambda) for t in spec.transfers()}
    assert points == {
        (method, 0, lr, bn, 0.4)
        for method in ("kl", "kl-dp+guard")
        for lr in (0.1, 1.0)
        for bn in ("train", "eval")
    }
    assert len({t.settings for t in spec.transfers()}) == 4  # methods share a table, points do not


def test_teams_teach_by_methods_that_can_choose() -> None:
    spec = build(GRID, "x")
    assert {(t.method, t.together) for t in team_transfers(spec)} == {("kl-dp+guard", "parallel")}
    both = build({**GRID, "transfer": {**GRID["transfer"], "together": ["soup", "parallel"]}}, "x")
    ways = [(t.method, t.together) for t in team_transfers(both)]
    assert ways.count(("kl", "soup")) == 4 and ("kl", "parallel") not in ways
    assert transfer_count(both, THREE) == both.pair_count(THREE) * 8 + 1 * 12
    assert transfer_count(both, THREE[:2]) == both.pair_count(THREE[:2]) * 8  # too few for a team


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"students": ["swim"]}, "student 'swim'.*swin"),
        ({"teachers": ["res*", "swim"]}, "teacher 'swim'.*swin"),
        ({"teachers": ["soup"]}, "teacher 'soup'.*`together`"),  # as files said it before
        ({"teachers": ["vit"], "students": "v*"}, "vit is the only teacher.*--students"),
    ],
)
def test_who_neither_teaches_nor_learns_is_named(roles: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        require_roles(build({**FULL, "transfer": roles}, "x"), THREE)
    assert re.search(message, f"{caught.value.message} {caught.value.tip}")
    require_roles(
        build({**FULL, "transfer": {**roles, "pairs": 0}}, "x"), ("swim", "soup", "vit", "resnet")
    )


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
    for tables in (FULL, {"models": ["a"]}, {**FULL, "transfer": {"pairs": "all"}}, GRID):
        spec = build(tables, "name")
        assert build(tomllib.loads(to_toml(spec)), "other") == spec


def test_the_projects_own_sweeps_are_valid(repository: Path) -> None:
    files = list((repository / "sweeps").glob("*.toml"))
    assert files
    for file in files:
        build(read_file(file), file.stem)


@pytest.mark.parametrize(
    ("images", "settings", "source"),
    [
        ({"source": "digits"}, {}, "digits"),
        ({"root": "here"}, {}, "here"),
        ({}, {"data": "digits"}, "digits"),
        ({"fraction": 0.5}, {}, "torch/mnist"),
    ],
)
def test_the_environment_names_data_where_nothing_else_does(
    images: Any, settings: Any, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KT_DATA", "torch/mnist")
    assert with_settings({"data": images}, settings)["data"]["source"] == source


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modles": []}, "modles.*models"),
        ({"transfer": {"epoch": 3}}, "epoch.*epochs"),
        ({"transfer": {"method": "kl"}}, "method.*methods"),
        ({"transfer": {"lr": "high"}}, "lr must be float"),
        ({"transfer": {"epochs": 1.5}}, "epochs must be int"),
        ({"transfer": {"epochs": 0}}, "epochs must be positive"),
        ({"transfer": {"lr": []}}, "lr must list values"),
        ({"transfer": {"lr": [0.1, 0.1]}}, "lr must list values"),
        ({"transfer": {"lr": [0.1, "high"]}}, "lr must be float"),
        ({"transfer": {"lr": [0.1, -1]}}, "lr must be positive"),
        ({"transfer": {"bn": ["train", "evil"]}}, "evil.*eval"),
        ({"transfer": {"epochs": [1, 2]}}, "epochs must be int"),
        ({"transfer": {"seeds": [0, 1, 0]}}, "seeds must list values that differ"),
        ({"transfer": {"methods": ["kl", "kl"]}}, "methods must list values that differ"),
        ({"transfer": {"methods": []}}, "methods must list values"),
        ({"transfer": {"seeds": []}}, "seeds must list values"),
        ({"transfer": {"momentum": 1.5}}, "momentum must be in"),
        ({"transfer": {"seeds": [2**63]}}, "seeds must be at most"),
        ({"transfer": {"batch_size": 0}}, "batch_size must be positive"),
        ({"transfer": {"together": ["paralel"]}}, "paralel.*parallel"),
        ({"transfer": {"team": 1}}, "team"),
        ({"transfer": {"target_budget": 0}}, "target_budget"),
        ({"transfer": {"distil_on": "flips"}}, "flips"),
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
    assert SweepSpec("x", ("a",), pairs=pairs).pair_count([f"m{i}" for i in range(models)]) == count


def test_a_model_of_the_zoo_has_a_name_of_its_own() -> None:
    spec = build(FULL, "x")
    require_roles(spec, ["resnet", "a", "b"])
    with pytest.raises(UsageError, match="both called 'a'"):
        require_roles(spec, ["a", "a", "b"])


@pytest.mark.parametrize(("preset", "schedule"), [("keep", "cosine"), ("paper", "constant")])
@pytest.mark.parametrize("said", [{}, {"schedule": "linear"}, {"schedule": ["linear", "step"]}])
def test_a_preset_that_a_flag_names_goes_before_the_file(
    preset: str, schedule: str, said: dict[str, Any]
) -> None:
    tables = {**FULL, "transfer": {**FULL["transfer"], **said}}
    spec = build(with_settings(tables, {"preset": preset}), "x")
    assert {one.schedule for one in spec.transfers()} == {schedule} and spec.transfer.lr == 0.5
    kept = build(with_settings(tables, {"preset": preset, "schedule": "step"}), "x")
    assert {one.schedule for one in kept.transfers()} == {"step"}
