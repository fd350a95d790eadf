from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kt_cli.errors import UnknownName, UsageError
from kt_cli.report.arrange import arrange
from kt_cli.report.derived import architecture_type, derived, family
from kt_cli.report.query import Query, seed_average
from kt_cli.report.read import read_results
from kt_cli.report.table import Column, Interval, MeanStd, Table

Sweep = Any  # of the conftest beside this file
TABLE = Table(
    "summary", "T",
    (Column("method", "method", "text"), Column("n", "n", "count"), Column("delta", "Δ"),
     Column("rate", "rate"), Column("pairs", kind="count", detail=True)),
    (
        ("kl", 3, MeanStd(-1.0, 0.5, 3), Interval(5.0, 1.0, 9.0), 1),
        ("xekl", 3, MeanStd(math.nan, math.nan, 0), Interval(7.0, 1.0, 9.0), 2),
        ("kl-dp", 9, MeanStd(2.0, 0.5, 3), None, 3),
        ("self", 1, MeanStd(0.5, math.nan, 1), Interval(math.nan, math.nan, math.nan), 4),
    ),
    bold=frozenset({(2, "delta"), (1, "rate")}),
)  # fmt: skip


def methods(table: Table) -> list[object]:
    place = [column.key for column in table.columns].index("method")
    return [row[place] for row in table.rows]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (("delta",), ["kl", "self", "kl-dp", "xekl"]),
        (("-delta",), ["kl-dp", "self", "kl", "xekl"]),
        (("-rate",), ["xekl", "kl", "kl-dp", "self"]),
        (("method",), ["kl", "kl-dp", "self", "xekl"]),
        (("n", "-method"), ["self", "xekl", "kl", "kl-dp"]),
        (("-n",), ["kl-dp", "kl", "xekl", "self"]),
        ((), ["kl", "xekl", "kl-dp", "self"]),
    ],
)
def test_sorts_by_what_a_cell_means(sort: tuple[str, ...], expected: list[str]) -> None:
    (found,) = arrange([TABLE], Query(sort=sort))
    assert methods(found) == expected
    bold = {(methods(found)[i], key) for i, key in found.bold}
    assert bold == {("kl-dp", "delta"), ("xekl", "rate")}


def test_columns_are_picked_in_their_order() -> None:
    (found,) = arrange([TABLE], Query(columns=("delta", "pairs", "method")))
    assert [column.key for column in found.shown] == ["delta", "pairs", "method"]
    assert found.rows[2] == (MeanStd(2.0, 0.5, 3), 3, "kl-dp")
    assert found.bold == {(2, "delta")}
    assert found.shown[1].header == "pairs"


def test_top_cuts_and_says_so() -> None:
    (found,) = arrange([TABLE], Query(sort=("-delta",), top=2))
    assert methods(found) == ["kl-dp", "self"]
    assert found.bold == {(0, "delta")}
    assert found.notes[-1] == "The first 2 of 4 rows (--top)."
    assert arrange([TABLE], Query(top=4)) == [TABLE]


def test_tables_without_the_column_stay_and_unknown_ones_are_refused() -> None:
    other = Table("models", "M", (Column("model", "model", "text"),), (("b",), ("a",)))
    found = arrange([TABLE, other], Query(sort=("-delta",), columns=("method", "delta")))
    assert found[1] == other
    mixed = Table("both", "B", (*TABLE.columns[:1], *other.columns), (("kl", "a"),))
    assert arrange([TABLE, mixed], Query(columns=("method", "n")))[1] == mixed
    with pytest.raises(UsageError, match="no table has all of the columns n, model"):
        arrange([TABLE, mixed], Query(columns=("n", "model")))
    with pytest.raises(UnknownName, match="'detla'") as caught:
        arrange([TABLE, other], Query(sort=("-detla",)))
    assert "delta" in caught.value.tip
    with pytest.raises(UnknownName) as caught:
        arrange([TABLE], Query(columns=("zzz",)))
    assert "method" in caught.value.tip


@pytest.mark.parametrize(
    ("name", "expected", "kind"),
    [
        ("resnet50.a1_in1k", "resnet", "cnn"),
        ("wide_resnet50_2", "resnet", "cnn"),
        ("resnetv2_50x1_bit", "resnet", "cnn"),
        ("tf_efficientnetv2_s", "efficientnet", "cnn"),
        ("convnext_tiny", "convnext", "cnn"),
        ("vit_base_patch16_224", "vit", "transformer"),
        ("deit3_small_patch16_224", "deit", "transformer"),
        ("hf-hub:org/vit_tiny", "vit", "transformer"),
        ("random:mixer_b16_224#3", "mixer", "mlp"),
        ("resnet50@runs/mine.pth", "resnet", "cnn"),
        ("vit2", "vit", "transformer"),
        ("maxvit_tiny", "maxvit", "hybrid"),
        ("resnet50 (1a2b3c4d)", "resnet", "cnn"),
        ("mine", "mine", None),
    ],
)
def test_families_and_types(name: str, expected: str, kind: str | None) -> None:
    assert (family(name), architecture_type(name)) == (expected, kind)


def test_derived_columns_against_loops() -> None:
    rows = pd.DataFrame({
        "teacher": ["vit_small", "resnet50", "mine", None],
        "student": ["resnet50", "vit_small", "resnet50", "resnet50"],
        "teacher_key": ["v", "r", "m", None], "student_key": ["r", "v", "r", "r"],
        "acc_diff": [0.5, -0.51, math.nan, 3.0],
    })  # fmt: skip
    models = pd.DataFrame({"model_key": ["r", "v", "r"], "params_m": [25.6, 22.0, 25.6]})
    names = ["teacher_family", "student_type", "stronger", "teacher_params_m", "student_params_m"]
    found = derived(rows, names, models)
    texts = found[names[:3]].astype(object)
    assert texts.where(texts.notna(), None).to_numpy().tolist() == [
        ["vit", "cnn", "equal"], ["resnet", "transformer", "weaker"],
        ["mine", "cnn", None], [None, "cnn", "stronger"],
    ]  # fmt: skip
    np.testing.assert_array_equal(found["teacher_params_m"], [22.0, 25.6, np.nan, np.nan])
    np.testing.assert_array_equal(found["student_params_m"], [25.6, 22.0, 25.6, 25.6])
    assert list(derived(rows, [], models)) == list(rows)
    assert derived(rows[:0], names, models)["stronger"].empty


def test_of_several_teachers_what_they_share() -> None:
    names = [None, ["resnet50", "resnet18"], ["resnet50", "vit_small"]]
    keys = [None, ["r", "r18"], ["r", "v"]]
    rows = pd.DataFrame({
        "teacher": ["a + b", "resnet50 + resnet18", "resnet50 + vit_small"],
        "teacher_key": ["a + b", "r + r18", "r + v"],
        "teacher_names": names, "teacher_keys": keys,
    })  # fmt: skip
    models = pd.DataFrame({"model_key": ["a + b", "r", "v"], "params_m": [1.0, 25.6, 22.0]})
    found = derived(rows, ["teacher_family", "teacher_type", "teacher_params_m"], models)
    assert found["teacher_family"].tolist() == ["a", "resnet", "mixed"]
    assert found["teacher_type"].astype(object).tolist()[1:] == ["cnn", "mixed"]
    np.testing.assert_allclose(found["teacher_params_m"], [1.0, np.nan, 47.6])


def test_sizes_of_timm_models_are_known_without_rows() -> None:
    rows = pd.DataFrame(
        {
            "teacher_key": ["resnet50.a1_in1k", "resnet50.a1_in1k + nobody"],
            "teacher_keys": [None, ["resnet50.a1_in1k", "nobody"]],
        }
    )
    found = derived(rows, ["teacher_params_m"], pd.DataFrame())
    assert found["teacher_params_m"].tolist()[0] == pytest.approx(25.56)
    assert math.isnan(found["teacher_params_m"].tolist()[1])


def test_a_mean_of_zero_is_no_success(sweep: Sweep) -> None:
    deltas = [100 * images / 500 for images in (1, 3, -4)]
    sweep.write("transfer", [sweep.transfer("resnet50", "convnext_tiny", seed=i, delta=delta)
                             for i, delta in enumerate(deltas)])  # fmt: skip
    (averaged,) = seed_average(read_results([sweep.folder]).ok("transfer"))["delta"]
    assert averaged == 0.0


def test_seeds_become_their_mean(filled: Sweep) -> None:
    filled.write("transfer", [
        filled.transfer("resnet50", "convnext_tiny", method="crd", delta=1.5, transfer_p=0.01),
        filled.transfer("resnet50", "convnext_tiny", method="kl", settings="other", lr=0.1),
    ])  # fmt: skip
    rows = read_results([filled.folder]).ok("transfer")
    found = seed_average(rows)
    assert list(found) == list(rows)
    same = ["settings", "method", "teacher", "student"]
    seen = {tuple(map(str, key)): part for key, part in rows.groupby(same, observed=True)}
    assert len(found) == len(seen) == 62
    for row in found.to_dict("records"):
        part = seen[tuple(str(row[c]) for c in same)]
        for column in ("delta", "gain", "loss", "share_taught"):
            assert row[column] == pytest.approx(statistics.fmean(part[column]))
        known = [rate for rate in part["transfer_rate"] if not math.isnan(rate)]
        if known:
            assert row["transfer_rate"] == pytest.approx(statistics.fmean(known))
        assert (row["n"], row["seed"]) == (200, 0)
        assert row["lr"] == part["lr"].iloc[0]
        assert math.isnan(row["transfer_p"]) == (len(part) > 1)
    assert found["teacher"].dtype == rows["teacher"].dtype
