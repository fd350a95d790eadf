"""What tables say about what they leave out, and the paper's numbers beside one's own."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kt_cli.errors import DataError
from kt_cli.report.query import Query
from kt_cli.report.table import DEFAULT_NAMES, NAMES, Table
from kt_cli.report.tables import TABLES, needs
from tests.report.records import records, sweep_tables

Sweep = Any  # of the conftest beside this file
PUBLISHED = "resnetv2_50.a1h_in1k"


def only(sweep: Sweep, name: str, query: Query = Query()) -> Table:
    (table,) = sweep_tables([sweep.folder], [name], query)
    return table


def test_every_name_has_a_builder_that_names_real_columns() -> None:
    from kt_cli.rows.schema import TABLES as COLUMNS

    assert tuple(TABLES) == NAMES
    assert set(DEFAULT_NAMES) < set(NAMES)
    for builder in TABLES.values():
        for table, columns in builder.needs.items():
            assert set(columns) <= set(COLUMNS[table])


@pytest.mark.parametrize("name", NAMES)
def test_a_table_reads_what_it_says_it_needs(filled: Sweep, name: str) -> None:
    """Reading those columns alone gives the same table as reading all of them."""
    from kt_cli.report.read import read_results
    from kt_cli.report.tables import build

    filled.write("transfer", [filled.team(filled.MODELS[:2], filled.MODELS[2])])
    query = Query(by=("student_params_m", "epochs"))
    all_read, needed = (
        build(read_results([filled.folder], columns, query), [name], query)
        for columns in (None, needs([name], query))
    )
    assert [t.texts() for t in needed] == [t.texts() for t in all_read]
    assert [t.notes for t in needed] == [t.notes for t in all_read]


def test_where_is_said_with_what_it_left_out(filled: Sweep) -> None:
    query = Query(where="method == 'kl' and student == 'resnet50'")
    table = only(filled, "summary", query)
    assert records(table)[0]["n"] == 6
    (note,) = [n for n in table.notes if "Only where" in n]
    assert (
        note == f"Only where {query.where}, which leaves out 114 transfers of all that were read."
    )


def test_rows_without_the_column_of_where_are_all_there_and_it_is_said(filled: Sweep) -> None:
    table = only(filled, "models", Query(where="method == 'kl'"))
    assert len(table.rows) == 4
    assert "Not chosen by method == 'kl': these rows have no method." in table.notes


def test_transfers_without_a_delta_are_counted(sweep: Sweep) -> None:
    sweep.write("transfer", [
        sweep.transfer("resnet50", "convnext_tiny", delta=1.0),
        sweep.transfer("convnext_tiny", "resnet50", delta=None, gain=None, loss=None),
    ])  # fmt: skip
    table = only(sweep, "summary")
    assert "Left out: 1 transfer without Δ." in table.notes
    (record,) = records(table)
    assert record["success_rate"].value == 100
    assert record["delta"].mean == 1.0
    for name, key in (("students", "kl-dp"), ("matrix", "mean")):
        found = {r["student"]: r[key] for r in records(only(sweep, name))}
        assert found["resnet50"] is None
        assert found["convnext_tiny"].mean == 1.0


def test_a_matrix_says_its_own_failures(filled: Sweep) -> None:
    failed = filled.failed("transfer", "broken") | {"method": "kl", "settings": "5e77"}
    settings = filled.transfer("resnet50", "convnext_tiny")["settings"]
    filled.write("transfer", [failed | {"settings": settings}])
    tables = sweep_tables([filled.folder], ["matrix"])
    said = {t.group["method"]: any("failed transfer" in n for n in t.notes) for t in tables}
    assert said["kl"] and not said["kl-dp"]


def test_only_nan_deltas_are_tables_of_dashes(sweep: Sweep) -> None:
    sweep.write("transfer", [
        sweep.transfer("resnet50", "convnext_tiny", method=m, delta=None) for m in ("kl", "kl-dp")
    ])  # fmt: skip
    for name in ("summary", "students", "matrix", "influence"):
        for table in sweep_tables([sweep.folder], [name]):
            assert "Left out: 2 transfers without Δ." in table.notes or name == "matrix"
            assert not table.bold
    with pytest.raises(DataError, match="no table 'compare'"):
        only(sweep, "compare")


def test_unreadable_files_are_said_in_each_table(filled: Sweep) -> None:
    (filled.folder / "transfer" / "part-broken.parquet").write_bytes(b"no")
    for table in sweep_tables([filled.folder], NAMES):
        note = "Left out: the rows of 1 file that cannot be read."
        assert (note in table.notes) == (table.name != "failures")


def test_one_pair_has_no_interval(sweep: Sweep) -> None:
    sweep.write("transfer", [sweep.transfer("resnet50", "convnext_tiny", delta=1.0)])
    table = only(sweep, "summary")
    (record,) = records(table)
    assert math.isnan(record["delta_interval"].low)
    texts = dict(zip([c.key for c in table.shown], table.texts()[0], strict=True))
    assert texts["success_rate"] == "100.0"
    assert texts["delta_interval"] == "–"
    assert not only(sweep, "influence").rows


def test_a_model_near_chance_is_named_and_many_are_counted(sweep: Sweep) -> None:
    names = [f"m{i:02}" for i in range(14)]
    sweep.write("models", [sweep.model(n, warning="near chance") for n in names])
    notes = only(sweep, "models").notes
    assert sum(": near chance" in note for note in notes) == 10
    assert "4 more models have a warning." in notes


def test_published_success_beside_ones_own(filled: Sweep) -> None:
    table = only(filled, "summary", Query(against="paper"))
    found = {r["method"]: r for r in records(table)}
    assert (found["kl-dp"]["published_median"], found["kl"]["published_mean"]) == (92.5, 32.5)
    assert found["kl-dp+guard"]["published_median"] is None
    assert any(note.startswith("published: Roth et al.") for note in table.notes)
    without = only(filled, "summary")
    assert not [c for c in without.columns if c.key.startswith("published")]
    assert not any("Roth" in note for note in without.notes)


def test_mean_over_students_is_that_of_their_shares(sweep: Sweep) -> None:
    deltas = {("a", "x"): [1.0], ("b", "x"): [-1.0], ("a", "y"): [1.0], ("c", "x"): [2.0]}
    sweep.write("transfer", [
        sweep.transfer(t, s, delta=d) for (t, s), found in deltas.items() for d in found
    ])  # fmt: skip
    (record,) = records(only(sweep, "summary", Query(against="paper")))
    assert record["mean_success_rate"] == pytest.approx((100 * 2 / 3 + 100) / 2)


def test_published_deltas_of_students_in_both(sweep: Sweep) -> None:
    other = "vit_base_patch16_224.dino"
    sweep.write("transfer", [
        sweep.transfer("resnet50", student, method=method)
        for student in (PUBLISHED, other, "unknown") for method in ("kl", "kl-dp+guard")
    ])  # fmt: skip
    table = only(sweep, "students", Query(against="paper"))
    found = {r["student"]: r for r in records(table)}
    assert found[PUBLISHED]["kl_published"] == pytest.approx(-1.9308)
    assert found["unknown"]["kl_published"] is None
    assert "kl-dp+guard_published" not in found["unknown"]
    assert not any(key.endswith("published") for _, key in table.bold)
    assert any(note.endswith(f"other weights here: {other}.") for note in table.notes)


def test_several_teachers_have_nothing_published(sweep: Sweep) -> None:
    sweep.write("transfer", [sweep.team(["resnet50", "convnext_tiny"], PUBLISHED, method="kl")])
    for name in ("summary", "students"):
        table = only(sweep, name, Query(against="paper"))
        assert not any("Roth" in note for note in table.notes)
