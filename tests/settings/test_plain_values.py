"""A call takes values as notebooks have them: of NumPy, pandas and pathlib."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torch import nn

import kt_cli
from kt_cli.errors import UsageError
from kt_cli.progress import Listener
from kt_cli.settings import DataSpec, SweepSpec, TransferSpec
from kt_cli.settings.declared import by_keyword
from kt_cli.settings.values import texts


def test_settings_of_numpy_and_pathlib() -> None:
    how, images, sweep = by_keyword(
        {
            "epochs": np.int64(3), "lr": np.float32(0.5), "compile": np.bool_(True),
            "data": Path("digits"), "labels": Path("/x/labels.txt"), "limit": pd.Series([5])[0],
            "seeds": np.arange(2), "students": pd.Series(["a", "b"]), "methods": ("kl",),
        },
        TransferSpec, DataSpec, SweepSpec,
    )  # fmt: skip
    assert how == {"epochs": 3, "lr": 0.5, "compile": True}
    assert images == {"source": "digits", "labels": "/x/labels.txt", "limit": 5}
    assert sweep == {"seeds": (0, 1), "students": ("a", "b"), "methods": ("kl",)}
    assert [type(value) for value in (how["epochs"], how["lr"], *sweep["seeds"])] == [
        int, float, int, int,
    ]  # fmt: skip
    for wrong in ({"epochs": np.float64(1.5)}, {"epochs": np.bool_(True)}, {"lr": np.str_("1")}):
        with pytest.raises(UsageError, match="must be"):
            by_keyword(wrong, TransferSpec)


def test_models_in_whatever_holds_them() -> None:
    assert texts("a") == texts(Path("a")) == texts(np.array(["a"])) == ["a"]
    assert (
        texts(pd.Series(["a", "b"])) == texts([Path("a"), "b"]) == texts(iter("ab")) == ["a", "b"]
    )
    assert texts(None) == []


def test_what_is_no_name_is_refused_with_the_way_out() -> None:
    for call in (kt_cli.complementarity, kt_cli.pretrain, kt_cli.explain):
        with pytest.raises(UsageError, match="a name or a path is needed, not Linear") as caught:
            call(nn.Linear(2, 2))  # type: ignore[operator]
        assert "local-dir:" in caught.value.tip and "py:" in caught.value.tip
    with pytest.raises(UsageError, match="not int"):
        kt_cli.results([3])  # type: ignore[list-item]


def test_a_transfer_needs_a_teacher() -> None:
    with pytest.raises(UsageError, match="no teacher is named"):
        kt_cli.transfer([], "resnet18", data="digits")


def test_settings_of_the_process_are_named_as_such() -> None:
    with pytest.raises(UsageError, match="device is a setting of the process") as caught:
        kt_cli.complementarity(["a", "b"], device="cpu")
    assert 'os.environ["KT_DEVICE"] = "cpu"' in caught.value.tip


def test_a_long_value_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        by_keyword({"labels": list(range(50_000))}, DataSpec)
    assert len(caught.value.message) < 100


@pytest.mark.filterwarnings("ignore::kt_cli.errors.KtWarning")
def test_calls_with_values_of_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (trained,) = kt_cli.pretrain(
        pd.Series(["test_resnet"]), data=Path("digits"), epochs=np.int64(1),
        side=np.int32(32), img_size=np.int16(32), output=Path("zoo"),
    )  # fmt: skip
    other = kt_cli.pretrain(trained.path, pretrained=True, data="digits", name="other", epochs=1)
    models = [trained.path, other[0].path]
    found = kt_cli.complementarity(pd.Series(models), data="digits", limit=np.int64(20))
    assert found.models["model"].tolist() == ["test_resnet", "other"] and found.limit == 20
    with pytest.raises(UsageError, match="different models"):
        kt_cli.transfer(trained.path, trained.path, data="digits")
    planned: list[SweepSpec] = []
    tables = {"name": "x", "models": models, "data": {"source": Path("digits")},
              "transfer": {"lr": np.array([0.1, 0.2]), "seeds": np.arange(2)}}  # fmt: skip
    tell = Listener(plan=lambda session, _: planned.append(session.spec))
    kt_cli.sweep(tables, dry_run=True, tell=tell)
    kt_cli.sweep(models=np.array(models), data="digits", dry_run=True, tell=tell)
    assert planned[0].grid == {"lr": (0.1, 0.2)} and planned[0].seeds == (0, 1)
    assert planned[0].models == planned[1].models == tuple(map(str, models))
