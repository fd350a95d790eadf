"""Presets: names for settings where nothing else is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kt_cli.errors import UnknownName
from kt_cli.settings import TransferSpec
from kt_cli.settings.declared import signature
from kt_cli.settings.transfer import PRESETS
from kt_cli.sweeps.config import build, read_file, to_toml

SWEEP: dict[str, Any] = {"models": ["vit", "swin"]}


def test_the_papers_are_the_defaults() -> None:
    assert PRESETS["paper"] == {} and TransferSpec.of({"preset": "paper"}) == TransferSpec()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_what_it_stands_for_and_no_more(name: str) -> None:
    spec = TransferSpec.of({"preset": name, "epochs": 3})
    said = TransferSpec(epochs=3, **PRESETS[name])
    assert signature(spec) == signature(said) and spec.settings == said.settings


def test_what_is_said_counts() -> None:
    assert TransferSpec.of({"preset": "keep", "schedule": "step"}).schedule == "step"
    with pytest.raises(UnknownName, match="unknown preset 'keeep'") as error:
        TransferSpec.of({"preset": "keeep"})
    assert "keep" in error.value.tip


def test_sweep_files_name_presets_too(tmp_path: Path) -> None:
    spec = build({**SWEEP, "transfer": {"preset": "keep", "lr": [0.1, 0.2]}}, "x")
    wanted = TransferSpec(**PRESETS["keep"])
    for made in spec.transfers():
        assert signature(replace(made, lr=None)) == signature(wanted)
    assert len(spec.transfers()) == 2
    file = tmp_path / "sweep.toml"
    file.write_text(to_toml(spec))
    assert build(read_file(file), "x") == spec
