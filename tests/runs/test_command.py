"""The command that repeats a transfer says what is not usual, and nothing else."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from kt_cli.data.sources import open_data
from kt_cli.runs.command import again
from kt_cli.settings import DataSpec, TransferSpec
from kt_cli.spec import Model, Run

MODELS = tuple(Model(name, f"ref:{name}", name) for name in ("vit", "resnet"))


def words(spec: TransferSpec, **data: object) -> list[str]:
    run = Run("transfer", MODELS, "data", spec, DataSpec(**{"source": "digits", **data}))  # type: ignore[arg-type]
    return shlex.split(again(run))


def test_what_is_usual_is_not_said() -> None:
    assert words(TransferSpec(by_class=True)) == [
        "kt", "transfer", "ref:vit", "ref:resnet", "--data", "digits",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "data", "said"),
    [
        (TransferSpec(method="kl-dp+guard"), {}, "--method kl-dp+guard"),
        (TransferSpec(batch_size=32, lr=0.02), {}, "--batch-size 32"),
        (TransferSpec(amp="bfloat16"), {}, "--amp --amp-dtype bfloat16"),
        (TransferSpec(subtract_drift=True), {}, "--subtract-drift"),
        (TransferSpec(), {"fraction": 0.1, "limit": 50}, "--fraction 0.1 --limit 50"),
        (TransferSpec(), {"source": "a folder"}, "--data 'a folder'"),
    ],
)
def test_what_is_not_usual_is(spec: TransferSpec, data: dict[str, object], said: str) -> None:
    found, wanted = words(spec, **data), shlex.split(said)
    assert any(found[i : i + len(wanted)] == wanted for i in range(len(found)))


def test_a_guard_slice_that_was_not_left_out_is_said(tmp_path: Path) -> None:
    """Else those of the models' own training would be."""
    images = open_data(DataSpec("digits"), training=True).training()
    card = {"kt": {"guard": 0.2, "train_data": images.fingerprint}}
    (tmp_path / "config.json").write_text(json.dumps(card))
    models = (Model("a", f"local-dir:{tmp_path}", "a"), MODELS[1])
    for share, said in ((0.0, "0.0"), (0.2, "0.2")):
        run = Run("transfer", models, "data", TransferSpec(), DataSpec("digits", guard=share))
        assert shlex.split(again(run))[-2:] == ["--guard-share", said]
