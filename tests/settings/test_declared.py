"""A setting is declared once: its option, key, column and line in the docs follow."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Annotated, get_args

import pytest
from typer.testing import CliRunner

import docs.generate as generate
from kt_cli.cli.setting_options import Fields, Given, with_settings
from kt_cli.data.augmentations import AUGMENTS as VIEWS
from kt_cli.distillation import pretrain
from kt_cli.errors import UnknownName, UsageError
from kt_cli.rows import schema
from kt_cli.settings import DataSpec, PretrainSpec, SlurmSpec, SweepSpec, TransferSpec
from kt_cli.settings import shared as shared_settings
from kt_cli.settings.declared import build, by_keyword, check, declared, setting
from kt_cli.settings.shared import SCHEDULES
from kt_cli.sweeps.config import build as build_sweep

KINDS = (DataSpec, TransferSpec, PretrainSpec, SlurmSpec, SweepSpec)


def more() -> type:
    """A copy of the settings of transfers with one more."""
    new = setting(0.5, "How sharp it is.", within="(0, 1]", metavar="X")
    return make_dataclass("More", [("sharpness", float, new)], bases=(TransferSpec,), frozen=True)


def test_a_new_setting_is_everywhere() -> None:
    import typer

    kind = more()
    heard: list[Given] = []

    def command(how: Given) -> None:
        heard.append(how)

    command.__annotations__ = {"how": Annotated[Given, Fields(kind)], "return": None}
    app = typer.Typer()
    app.command()(with_settings(command))
    shown = CliRunner().invoke(app, ["--help-all"], env={"COLUMNS": "100"})
    assert "--sharpness" in shown.output and "How sharp it is." in shown.output
    assert CliRunner().invoke(app, ["--sharpness", "0.25"]).exit_code == 0
    assert heard == [{"sharpness": 0.25}]
    assert build(kind, {"sharpness": 1}, "[transfer]").sharpness == 1.0
    with pytest.raises(UsageError, match=r"sharpness must be in \(0, 1\], not 2"):
        check(kind(sharpness=2.0))
    assert schema.settings_of(kind)["sharpness"][:2] == ("double", "How sharp it is")
    row = generate._row(declared(kind)["sharpness"])
    assert row.startswith("| `sharpness` | `--sharpness` | float in (0, 1] | `0.5` | ≠ |")


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_says_what_it_is(kind: type) -> None:
    undeclared = {"data", "zoo", "transfer", "grid", "slurm"} if kind is SweepSpec else set()
    assert {f.name for f in fields(kind)} - declared(kind).keys() == undeclared
    for name, one in declared(kind).items():
        assert one.said.help.endswith((".", ")")) and len(one.said.help) < 160, name
        if not one.required:
            one.said.check(name, one.field.default)


def test_no_two_options_of_a_command_are_called_the_same() -> None:
    from kt_cli.cli import pretrain, sweep, transfer

    for command in (transfer.transfer, sweep.sweep, pretrain.pretrain):
        flags: list[str] = []
        for parameter in inspect.signature(command).parameters.values():
            for option in get_args(parameter.annotation)[1:]:
                flags += option.param_decls or ()
        assert len(flags) == len(set(flags)), command


def test_names_that_settings_repeat_are_those_of_the_code() -> None:
    assert set(shared_settings.AUGMENTS) == set(VIEWS)
    assert set(SCHEDULES) == set(pretrain.SCHEDULES)


@dataclass(frozen=True)
class Small:
    count: int = setting(1, "A number.", within="[1, inf)")
    names: tuple[str, ...] = setting((), "Names.", choices=("a", "b"), listed=True)
    ratio: float | None = setting(None, "A share.", flags=("-r", "--some-ratio"))


def test_values_are_checked_wherever_they_come_from() -> None:
    assert build(Small, {"names": ["a"], "ratio": 1}, "[x]") == Small(names=("a",), ratio=1.0)
    for table, message in (
        ({"count": 1.5}, "count must be int"),
        ({"count": True}, "count must be int"),
        ({"count": 0}, r"count must be in \[1, inf\), not 0"),
        ({"names": "a"}, "names must be a list of strings"),
        ({"names": ["a", 1]}, "names must be a list of strings"),
        ({"names": ["c"]}, "unknown names 'c'"),
        ({"cuont": 1}, "unknown key of"),
    ):
        with pytest.raises(UsageError, match=message):
            build(Small, table, "[x]")
    assert by_keyword({"some_ratio": 0.5, "count": None}, Small) == [{"ratio": 0.5}]
    with pytest.raises(UnknownName, match="some_ration"):
        by_keyword({"some_ration": 0.5}, Small)


def test_lists_in_a_cluster_s_table_are_of_strings() -> None:
    with pytest.raises(UsageError, match="setup must be a list of strings"):
        build_sweep({"models": ["a", "b"], "slurm": {"setup": [1]}}, "x")


def test_the_written_docs_are_those_of_the_code(repository: Path) -> None:
    assert (repository / "docs" / "settings.md").read_text(encoding="utf-8") == generate.settings()
    text = (repository / "results" / "README.md").read_text(encoding="utf-8")
    assert generate.results(text) == text
