from __future__ import annotations

import math
from typing import Any

import pytest
from scipy import stats

from kt_cli.report.query import Query
from kt_cli.report.table import Table
from kt_cli.rows import schema, store
from tests.report.records import records, sweep_tables

Sweep = Any  # of the conftest beside this file


def tables_of(sweep: Sweep, name: str) -> list[Table]:
    return sweep_tables([sweep.folder], [name])


def only(sweep: Sweep, name: str) -> Table:
    (table,) = tables_of(sweep, name)
    return table


def test_complementarity_against_pandas(filled: Sweep) -> None:
    pairs = store.read([filled.folder], "complementarity")
    found = {record["quantity"]: record for record in records(only(filled, "complementarity"))}
    weaker = pairs[pairs["acc_diff"] < 0]
    for quantity, values in {
        "pos_flips": pairs["pos_flips"],
        "pos_flips_weaker": weaker["pos_flips"],
        "kappa": pairs.loc[pairs["student"] < pairs["teacher"], "kappa"],
        "flip_entropy": pairs["flip_entropy"],
        "top20_classes": pairs["top20_classes"],
    }.items():
        record = found[quantity]
        assert record["pairs"] == len(values)
        expected = [values.min(), values.quantile(0.05), values.median(), values.quantile(0.95)]
        assert [record[k] for k in ("min", "q05", "median", "q95")] == pytest.approx(expected)
        assert record["max"] == values.max()
        assert record["mean"].value == pytest.approx(values.mean())
        assert record["mean"].low < values.mean() < record["mean"].high
    assert len(weaker) == 6


@pytest.mark.parametrize("where", ["", "acc_diff < 0", "acc_diff > 0"])
def test_pairs_that_differ_are_counted_once_in_either_direction(sweep: Sweep, where: str) -> None:
    models = ["resnet50", "convnext_tiny", "vit_base_patch16_224"]
    sweep.write("complementarity", [
        sweep.pair(t, s, mcnemar_p=1e-9 if "resnet50" in (t, s) else 0.4)
        for t in models for s in models if t != s
    ])  # fmt: skip
    (table,) = sweep_tables([sweep.folder], ["complementarity"], Query(where=where))
    assert any("The accuracies of 2 of 3 pairs of models differ" in note for note in table.notes)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_of_a_single_model_in_a_role_intervals_are_those_of_its_others(
    sweep: Sweep, role: str
) -> None:
    values = {f"m{i}": float(50 + i**2) for i in range(5)}
    pairs = [("z", name) if role == "teacher" else (name, "z") for name in values]
    kappas = [value / 100 for value in values.values()]
    sweep.write("complementarity", [
        sweep.pair(*pair, kappa=kappa) for pair, kappa in zip(pairs, kappas, strict=True)
    ])  # fmt: skip
    found = {row["quantity"]: row["mean"] for row in records(only(sweep, "complementarity"))}
    half = stats.t.ppf(0.975, 4) * stats.sem(kappas)
    assert found["kappa"].high - found["kappa"].value == pytest.approx(half)


def test_intervals_of_percentages_end_within_them(sweep: Sweep) -> None:
    models = ["resnet50", "convnext_tiny", "vit_base_patch16_224", "deit_s"]
    sweep.write("complementarity", [
        sweep.pair(t, s, pos_flips=60.0 * (t == "resnet50"),
                   class_similarity=0.1, top20_similarity=0.2,
                   top20_similarity_pct=99.0 if s == "deit_s" else 1.0)
        for t in models for s in models if t != s
    ])  # fmt: skip
    found = {row["quantity"]: row["mean"] for row in records(only(sweep, "complementarity"))}
    for quantity in ("pos_flips", "top20_similarity_pct"):
        low, mean, high = (getattr(found[quantity], end) for end in ("low", "value", "high"))
        assert 0 < low < mean < high < 100
        assert mean < (high - low) / 2  # so that one as wide on either side would not


def test_complementarity_names_the_extreme_pairs(sweep: Sweep) -> None:
    sweep.write("complementarity", [
        sweep.pair("resnet50", "convnext_tiny", pos_flips=3.0),
        sweep.pair("convnext_tiny", "resnet50", pos_flips=1.0),
        sweep.pair("resnet50", "mixer_50%_b16", pos_flips=9.0),
    ])  # fmt: skip
    table = only(sweep, "complementarity")
    flips = records(table)[0]
    assert flips["min_pair"] == "convnext_tiny → resnet50"
    assert flips["max_pair"] == "resnet50 → mixer_50%_b16"
    assert any("convnext_tiny → resnet50 (1.00%)" in note for note in table.notes)
    assert any("ln C = 2.30" in note for note in table.notes)
    assert any("3 ordered pairs of 3 models" in note for note in table.notes)


def test_complementarity_without_flips(sweep: Sweep) -> None:
    none = {"pos_flips": 0.0, "flip_entropy": None} | {
        f"top{p}_classes": None for p in schema.TOP_PERCENTS
    }
    sweep.write("complementarity", [sweep.pair("resnet50", "convnext_tiny", **none)])
    entropy = next(
        record
        for record in records(only(sweep, "complementarity"))
        if record["quantity"] == "flip_entropy"
    )
    assert entropy["pairs"] == 0
    assert math.isnan(entropy["mean"].value)
    assert entropy["min_pair"] is None


def test_random_teachers_have_a_row_of_their_own(sweep: Sweep) -> None:
    random = [
        sweep.pair(f"random:resnet50#{i}", student, teacher_key=f"random:resnet50#{i}", pos_flips=f)
        for i, student, f in ((0, "resnet50", 0.1), (1, "resnet50", 0.3), (1, "mixer", 0.2))
    ]
    sweep.write("complementarity", random)
    only_random = {r["quantity"]: r for r in records(only(sweep, "complementarity"))}
    assert only_random["pos_flips"]["pairs"] == 0
    sweep.write("complementarity", [sweep.pair("resnet50", "convnext_tiny", pos_flips=5.0)])
    table = only(sweep, "complementarity")
    found = {r["quantity"]: r for r in records(table)}
    assert found["pos_flips_random"]["mean"].value == pytest.approx(0.2)
    assert (found["pos_flips"]["pairs"], found["pos_flips"]["max"]) == (1, 5.0)
    assert any(
        n.startswith("Random: 2 randomly initialised teachers, 3 ordered") for n in table.notes
    )
    assert any("n = 1 ordered pair of 2 models" in note for note in table.notes)


def test_counts_of_classes_are_shown_as_counts(filled: Sweep) -> None:
    table = only(filled, "complementarity")
    place = [row[0] for row in table.rows].index("top50_classes")
    texts = dict(zip([c.key for c in table.shown], table.texts()[place], strict=True))
    assert texts["min"] == "1"
    assert texts["max"] == "4"
    assert "." in texts["mean"]
