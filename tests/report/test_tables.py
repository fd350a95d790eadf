from __future__ import annotations

import itertools
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kt_cli.errors import DataError, UsageError
from kt_cli.report.methods import method_rank
from kt_cli.report.read import read_results
from kt_cli.report.table import MeanStd, Table
from kt_cli.report.tables import build
from kt_cli.rows import store
from tests.report.records import records, sweep_tables

Sweep = Any  # of the conftest beside this file


def tables_of(sweep: Sweep, name: str) -> list[Table]:
    return sweep_tables([sweep.folder], [name])


def only(sweep: Sweep, name: str) -> Table:
    (table,) = tables_of(sweep, name)
    return table


def transfers(sweep: Sweep) -> list[dict[str, Any]]:
    rows = store.read([sweep.folder], "transfer").to_dict("records")
    return [row for row in rows if row["status"] == "ok"]


def test_methods_come_in_the_papers_order(filled: Sweep) -> None:
    methods = [row["method"] for row in records(only(filled, "summary"))]
    assert methods == ["kl", "xekl", "kl-dp", "kl-dp+guard", "kl-dp-u"]
    assert sorted(["b", "kl-dp", "a", "kl"], key=method_rank) == ["kl", "kl-dp", "a", "b"]


def test_summary_against_plain_loops(filled: Sweep) -> None:
    rows = transfers(filled)
    for record in records(only(filled, "summary")):
        mine = [row for row in rows if row["method"] == record["method"]]
        deltas = [row["delta"] for row in mine]
        rates = [row["transfer_rate"] for row in mine if not math.isnan(row["transfer_rate"])]
        assert (record["n"], record["pairs"], record["seeds"]) == (24, 12, 2)
        assert record["success_rate"].value == pytest.approx(100 * sum(d > 0 for d in deltas) / 24)
        assert record["delta"].mean == pytest.approx(statistics.fmean(deltas))
        assert record["delta"].std == pytest.approx(statistics.stdev(deltas))
        for key in ("gain", "loss", "share_taught"):
            assert record[key] == pytest.approx(statistics.fmean(row[key] for row in mine))
        assert record["transfer_rate"] == pytest.approx(statistics.fmean(rates))
        for key, sign in (("significant_gain", 1), ("significant_loss", -1)):
            hits = sum(row["transfer_p"] < 0.05 and sign * row["delta"] > 0 for row in mine)
            assert record[key] == pytest.approx(100 * hits / 24)
        assert record["delta"].mean == pytest.approx(record["gain"] - record["loss"])


def test_students_average_seeds_first_and_spread_over_teachers(filled: Sweep) -> None:
    rows = transfers(filled)
    table = only(filled, "students")
    assert [record["student"] for record in records(table)] == list(filled.MODELS)  # best first
    for record in records(table):
        assert record["student_acc"] == pytest.approx(100 * filled.accuracy(record["student"]))
        assert record["teachers"] == 3
        for method in filled.METHODS:
            means = [
                statistics.fmean(
                    row["delta"] for row in rows
                    if (row["student"], row["teacher"], row["method"])
                    == (record["student"], teacher, method)
                )
                for teacher in filled.MODELS if teacher != record["student"]
            ]  # fmt: skip
            assert record[method].mean == pytest.approx(statistics.fmean(means))
            assert record[method].std == pytest.approx(statistics.stdev(means))
            assert record[method].n == 3


def test_the_best_method_of_a_student_is_bold_where_its_teachers_bear_it_out(sweep: Sweep) -> None:
    """Students with eight teachers: one whom a method always helps most, one whom neither does."""
    deltas = {"always": (2.0, 0.0), "never": (0.0, 0.0)}
    sweep.write("transfer", [
        sweep.transfer(f"t{i}", student, method=method, delta=delta + (i * (3 + 2 * k) % 8) / 8)
        for student, both in deltas.items()
        for k, (method, delta) in enumerate(zip(("kl-dp", "kl"), both, strict=True))
        for i in range(8)
    ])  # fmt: skip
    table = only(sweep, "students")
    students = [record["student"] for record in records(table)]
    assert table.bold == {(students.index("always"), "kl-dp")}
    assert any(note.startswith("Bold: the best, where on the same pairs") for note in table.notes)


def test_a_gain_is_bold_in_the_matrix_where_it_is_significant_among_all(sweep: Sweep) -> None:
    p_values = {("a", "b"): 0.001, ("a", "c"): 0.02, ("b", "c"): 0.9, ("c", "a"): 0.0005}
    sweep.write("transfer", [
        sweep.transfer(t, s, delta=-1.0 if t == "c" else 1.0, transfer_p=p)
        for (t, s), p in p_values.items()
    ])  # fmt: skip
    table = only(sweep, "matrix")  # 0.02 is one of three that may be; nothing is said of a loss
    assert {(records(table)[i]["student"], key) for i, key in table.bold} == {("b", "a")}


def test_of_several_seeds_each_must_have_gained(sweep: Sweep) -> None:
    sweep.write("transfer", [
        sweep.transfer("a", student, seed=seed, delta=delta, transfer_p=1e-9)
        for student, seeds in (("b", (1.0, 1.0)), ("c", (5.0, -1.0)))
        for seed, delta in enumerate(seeds)
    ])  # fmt: skip
    table = only(sweep, "matrix")
    assert [records(table)[i]["student"] for i, _ in table.bold] == ["b"]


def test_a_single_method_is_not_bold(sweep: Sweep) -> None:
    sweep.write("transfer", [sweep.transfer("resnet50", "convnext_tiny")])
    assert not only(sweep, "students").bold
    assert not only(sweep, "summary").bold


def test_a_missing_cell_is_none(sweep: Sweep) -> None:
    sweep.write("transfer", [
        sweep.transfer("resnet50", "convnext_tiny", method="kl"),
        sweep.transfer("convnext_tiny", "resnet50", method="xekl"),
    ])  # fmt: skip
    table = only(sweep, "students")
    first, second = records(table)
    assert first["kl"] is None
    assert isinstance(first["xekl"], MeanStd)
    assert second["xekl"] is None
    assert any("do not all cover the same pairs" in note for note in table.notes)


def test_models_are_ranked(filled: Sweep) -> None:
    table = only(filled, "models")
    assert [row[0] for row in table.rows] == list(filled.MODELS)
    assert records(table)[0]["accuracy"] == pytest.approx(90.0)
    assert table.notes == ("n = 4 models. From, to: 95% interval of top-1 (Wilson).",)


def test_groups_are_never_averaged(sweep: Sweep) -> None:
    variants: list[dict[str, object]] = [
        {},
        {"settings": "other", "lr": 0.1},
        {"eval_data": "f" * 16, "n": 100},
        {"train_data": "u" * 16, "subset_seed": 7},
    ]
    rows = [sweep.transfer("resnet50", "convnext_tiny", **variant) for variant in variants]
    sweep.write("transfer", rows)
    tables = tables_of(sweep, "summary")
    assert sorted(records(table)[0]["delta"].mean for table in tables) == pytest.approx(
        sorted(float(str(row["delta"])) for row in rows)
    )
    assert len({table.caption for table in tables}) == 4
    assert sum("lr 0.1" in table.caption for table in tables) == 1
    assert sum("subset_seed 7" in table.caption for table in tables) == 1
    assert sum("100 evaluation" in table.caption for table in tables) == 1


def test_two_sweeps_are_two_groups(make_sweep: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        sweep = make_sweep(tmp_path / name)
        sweep.write("transfer", [sweep.transfer("resnet50", "convnext_tiny")])
    tables = sweep_tables([tmp_path], ["summary"])
    assert [table.group["sweep"] for table in tables] == ["a", "b"]


def test_sweeps_of_one_name_are_told_apart_and_not_read_twice(
    make_sweep: Any, tmp_path: Path
) -> None:
    for root in ("x", "y"):
        sweep = make_sweep(tmp_path / root / "demo")
        sweep.write("transfer", [sweep.transfer("resnet50", "convnext_tiny")])
    paths = [tmp_path / "x", tmp_path / "x" / "demo", tmp_path / "y"]
    tables = sweep_tables(paths, ["summary"])
    assert [records(table)[0]["n"] for table in tables] == [1, 1]
    assert len({table.group["sweep"] for table in tables}) == 2


def test_a_retrained_model_is_another_model(sweep: Sweep) -> None:
    sweep.write("transfer", [
        sweep.transfer("resnet50", "convnext_tiny", teacher_key="hash:11111111"),
        sweep.transfer("resnet50", "convnext_tiny", teacher_key="hash:22222222"),
    ])  # fmt: skip
    (record,) = records(only(sweep, "students"))
    assert record["teachers"] == 2
    names = set(read_results([sweep.folder]).ok("transfer")["teacher"])
    assert names == {"resnet50 (11111111)", "resnet50 (22222222)"}


def test_teachers_are_counted_within_a_method(sweep: Sweep) -> None:
    rows = [sweep.transfer(teacher, "convnext_tiny", method=method) for teacher, method in
            (("resnet50", "kl"), ("vit_base", "kl"), ("deit", "kl-dp"))]  # fmt: skip
    for some, told in ((rows[:2], False), (rows[2:], True)):
        sweep.write("transfer", some)
        table = only(sweep, "students")
        assert [record["teachers"] for record in records(table)] == [2]
        assert ("Not every method has all n teachers" in " ".join(table.notes)) == told


def test_limit_is_stamped(sweep: Sweep) -> None:
    sweep.write("transfer", [sweep.transfer("resnet50", "convnext_tiny", limit=200)])
    table = only(sweep, "summary")
    assert table.group["limit"] == 200
    assert any("--limit 200" in note for note in table.notes)


def test_failures_are_counted_and_left_out(filled: Sweep) -> None:
    before = only(filled, "summary")
    filled.write("transfer", [
        *(filled.failed("transfer", "ValueError: x", settings="5e771465") for _ in range(3)),
        filled.failed("transfer", "out of GPU memory", settings="other"),
    ])  # fmt: skip
    filled.write("models", [filled.failed("models", "no weights")])
    after = only(filled, "summary")
    assert after.texts() == before.texts()
    assert after.caption == before.caption
    assert "Left out: 3 failed transfers with these settings." in after.notes
    assert "Left out: 1 failed model of this sweep." in only(filled, "models").notes
    assert [row[:3] for row in only(filled, "failures").rows] == [
        ("predict", 1, "no weights"),
        ("transfer", 3, "ValueError: x"),
        ("transfer", 1, "out of GPU memory"),
    ]


def test_a_long_error_is_short_for_readers_and_whole_for_machines(sweep: Sweep) -> None:
    long = "the weights do not fit:\n" + "missing key layer.weight, " * 200
    sweep.write("transfer", [sweep.transfer("a", "b", status="failed", error=long)])
    (table,) = sweep_tables([sweep.folder], ["failures"])
    ((_, _, shown, _),) = table.texts()
    assert len(shown) == 200 and shown.endswith("…") and "\n" not in shown
    assert table.rows[0][2] == long


def test_parquet_files_of_other_names_are_named(sweep: Sweep) -> None:
    sweep.write("transfer", [sweep.transfer("a", "b")])
    (part,) = (sweep.folder / "transfer").iterdir()
    part.rename(part.with_name("mine.parquet"))
    with pytest.raises(DataError, match="1 Parquet file there, none of kt's") as caught:
        sweep_tables([sweep.folder])
    assert "part-" in caught.value.tip


def test_a_pairs_run_that_succeeded_later_did_not_fail(sweep: Sweep) -> None:
    failed = {**sweep.failed("complementarity", "x"), "teacher": None, "student": None}
    sweep.write("complementarity", [failed])
    assert only(sweep, "failures").rows == (("pairs", 1, "x", None),)
    sweep.write("complementarity", [sweep.pair("resnet50", "convnext_tiny")])
    assert only(sweep, "failures").rows == ()


def test_order_of_parts_does_not_matter(make_sweep: Any, tmp_path: Path) -> None:
    one, two = make_sweep(tmp_path / "a" / "demo"), make_sweep(tmp_path / "b" / "demo")
    rows = [one.transfer(t, s, method=m) for m in one.METHODS
            for t, s in itertools.permutations(one.MODELS, 2)]  # fmt: skip
    one.write("transfer", rows)
    for row in reversed(rows):
        two.write("transfer", [row])
    first, second = only(one, "students"), only(two, "students")
    frames = [pd.DataFrame(records(table)) for table in (first, second)]
    assert list(frames[0]["student"]) == list(frames[1]["student"])
    assert first.bold == second.bold
    for method in one.METHODS:
        means = [np.array([cell.mean for cell in frame[method]]) for frame in frames]
        assert means[0] == pytest.approx(means[1])


def test_unreadable_parts_are_named_and_skipped(filled: Sweep) -> None:
    (filled.folder / "transfer" / "part-broken.parquet").write_bytes(b"not parquet")
    skipped: list[str] = []
    found = read_results([filled.folder], on_skip=lambda part, _: skipped.append(part.name))
    tables = build(found)
    assert skipped == ["part-broken.parquet"]
    names = list(dict.fromkeys(table.name for table in tables))
    assert names == ["summary", "students", "matrix", "complementarity", "models"]


def test_nothing_readable_is_an_error(sweep: Sweep) -> None:
    part = sweep.folder / "transfer" / "part-broken.parquet"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"not parquet")
    with pytest.raises(DataError, match="none of the 1 Parquet files"):
        sweep_tables([sweep.folder])


def test_missing_and_empty_paths_are_usage_errors(filled: Sweep, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, message in (
        ("nowhere", "does not exist"),
        ("empty", "no results in"),
        ("file", "is not a folder"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            sweep_tables([filled.folder, tmp_path / name])
        assert caught.value.tip


def test_a_table_without_rows_is_refused_by_name(sweep: Sweep) -> None:
    sweep.write("models", [sweep.model("resnet50")])
    with pytest.raises(DataError, match="no table 'summary'") as caught:
        tables_of(sweep, "summary")
    assert "kt transfer" in caught.value.tip
    assert only(sweep, "failures").rows == ()
