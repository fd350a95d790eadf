"""Rows as commands: what their columns and models are on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kt_cli.errors import UsageError
from kt_cli.report.planned import read_sweep
from kt_cli.rows import schema
from kt_cli.runs.command import UNSAID
from kt_cli.settings import DataSpec, TransferSpec
from kt_cli.settings.declared import Declared, build, declared, options, unusual
from kt_cli.settings.transfer import PUBLISHED

# Columns that are called otherwise than their setting.
DATA = {"source": "data", "guard": "guard_share", "seed": "subset_seed"}


def _options(kind: type, columns: dict[str, str], defaults: dict[str, Any]) -> list[list[Any]]:
    """Column, option and default of each setting that rows of transfers have."""
    found = []
    for name, one in declared(kind).items():
        column, default = columns.get(name, name), defaults.get(name, one.field.default)
        known = column in schema.TABLES["transfer"] and one.said.option and name not in UNSAID
        if known and default is not None and isinstance(default, (str, int, float)):
            found.append([column, _flag(one), default])
    return found


def _flag(one: Declared) -> str:
    return f"--{one.keyword.replace('_', '-')}"


OPTIONS = [
    *_options(DataSpec, DATA, {"source": "", "limit": 0}),
    *_options(TransferSpec, {}, {**PUBLISHED[""], "method": "", "seed": 0}),
]


def images(folders: Mapping[str, Path]) -> dict[str, list[str]]:
    """By sweep: what its file says of the images, and rows do not, as words of a command."""
    in_rows = {column for column, *_ in OPTIONS}
    names = [name for name in declared(DataSpec) if DATA.get(name, name) not in in_rows]
    found = {}
    for sweep, folder in folders.items():
        with suppress(UsageError):
            spec = build(DataSpec, read_sweep(folder).get("data") or {"source": ""}, "[data]")
            found[sweep] = options(unusual(spec, names))
    return {sweep: words for sweep, words in found.items() if words}


def references(folders: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """By sweep: models of one's own by name, as its file names them, or where they are."""
    found = {}
    for sweep, folder in folders.items():
        saved = {path.name: str(path) for path in sorted(folder.glob("zoo/*")) if path.is_dir()}
        named = read_sweep(folder).get("models", [])
        own = {one.rstrip("/").rpartition("/")[2]: one for one in map(str, named) if "/" in one}
        found[sweep] = {**own, **saved}
    return {sweep: known for sweep, known in found.items() if known}
