from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kt_cli.errors import DataError, UnknownName, UsageError
from kt_cli.report.groups import KEYS
from kt_cli.report.query import Query
from kt_cli.report.read import count_rows, occurring, read_results
from kt_cli.rows import store

Sweep = Any  # of the conftest beside this file
SWEEP_TOML = 'name = "demo"\n'


def transfers(folder: Path) -> pd.DataFrame:
    return store.read([folder], "transfer")


def test_rows_are_those_of_the_store(filled: Sweep) -> None:
    found = read_results([filled.folder])
    for table in ("models", "complementarity", "transfer"):
        expected = store.read([filled.folder], table).sort_values("run_id", ignore_index=True)
        rows = found.ok(table).sort_values("run_id", ignore_index=True)
        assert {*expected, "sweep"} == set(rows)
        for column in expected:
            one, other = rows[column].astype(object), expected[column].astype(object)
            assert (
                one.where(one.notna(), None).tolist() == other.where(other.notna(), None).tolist()
            )


def test_only_the_columns_and_tables_that_are_needed(filled: Sweep) -> None:
    found = read_results([filled.folder], {"transfer": ("delta",)})
    rows = found.ok("transfer")
    assert set(rows) == {*KEYS["transfer"], "delta", "sweep"}
    assert len(rows) == 120
    assert found.ok("complementarity").empty
    assert set(found.ok("complementarity")) == {*KEYS["complementarity"], "sweep"}
    assert len(found.ok("models")) == 4  # always: they say what models are called


def test_texts_are_ordered_categories_that_roles_share(filled: Sweep) -> None:
    rows = read_results([filled.folder]).ok("transfer")
    names = sorted(filled.MODELS)
    assert list(rows["teacher"].cat.categories) == names
    assert rows["teacher"].dtype == rows["student"].dtype
    assert rows["teacher_key"].dtype == rows["student_key"].dtype
    by_name = [names.index(name) for name in rows["teacher"].astype(str)]
    assert rows["teacher"].cat.codes.tolist() == by_name
    pairs = zip(rows["teacher"].astype(str), rows["student"].astype(str), strict=True)
    assert (rows["teacher"] < rows["student"]).tolist() == [t < s for t, s in pairs]


def test_counts_are_integers_where_all_are_known(filled: Sweep) -> None:
    rows = read_results([filled.folder]).ok("transfer")
    assert rows["n"].dtype == rows["seed"].dtype == "int64"
    assert rows["limit"].isna().all()


def test_where_is_applied_while_reading(filled: Sweep) -> None:
    every = transfers(filled.folder)
    query = Query(where="method == 'kl-dp' and delta > 0")
    found = read_results([filled.folder], {"transfer": ("delta",), "complementarity": ()}, query)
    chosen = every[(every["method"] == "kl-dp") & (every["delta"] > 0)]
    assert sorted(found.ok("transfer")["delta"]) == sorted(chosen["delta"])
    assert 0 < len(chosen) < len(every)
    assert found.filtered == {"transfer": len(every) - len(chosen)}
    assert len(found.ok("complementarity")) == 12  # it has no methods: all are kept


def test_a_null_fits_no_list_either(sweep: Sweep) -> None:
    sweep.write("transfer", [
        sweep.transfer("resnet50", "convnext_tiny", seed=0, guard_alpha=0.5),
        sweep.transfer("resnet50", "convnext_tiny", seed=1, guard_alpha=0.25),
        sweep.transfer("resnet50", "convnext_tiny", seed=2, guard_alpha=None),
    ])  # fmt: skip
    for where, seeds in (("guard_alpha in [0.5, 1]", [0]), ("guard_alpha not in [0.5, 1]", [1]),
                         ("guard_alpha is None", [2])):  # fmt: skip
        found = read_results([sweep.folder], query=Query(where=where)).ok("transfer")
        assert found["seed"].tolist() == seeds, where


def test_where_on_derived_columns(filled: Sweep) -> None:
    every = transfers(filled.folder)
    query = Query(where="student_type == 'cnn' and teacher_family != 'resnet' and seed == 1")
    found = read_results([filled.folder], {"transfer": ()}, query)
    chosen = every[
        every["student"].isin(["resnet50", "convnext_tiny"])
        & (every["teacher"] != "resnet50")
        & (every["seed"] == 1)
    ]
    rows = found.ok("transfer")
    assert sorted(zip(rows["teacher"], rows["student"], rows["method"], strict=True)) == sorted(
        zip(chosen["teacher"], chosen["student"], chosen["method"], strict=True)
    )
    assert found.filtered == {"transfer": len(every) - len(chosen)}


def test_where_on_sizes_that_models_know(sweep: Sweep) -> None:
    sizes = {"resnet50": 25.6, "mixer_50%_b16": 59.9}
    sweep.write("models", [sweep.model(name, params_m=size) for name, size in sizes.items()])
    sweep.write("transfer", [
        sweep.transfer("resnet50", "mixer_50%_b16"), sweep.transfer("mixer_50%_b16", "resnet50"),
        sweep.transfer("resnet50", "vit_base_patch16_224"),
    ])  # fmt: skip
    query = Query(where="student_params_m > 2 * teacher_params_m")
    rows = read_results([sweep.folder], {"transfer": ()}, query).ok("transfer")
    assert rows["student"].tolist() == ["mixer_50%_b16"]


def test_where_on_the_names_that_tables_show(sweep: Sweep) -> None:
    """Of two models of one name, each by what it is called here; by the name alone both."""
    sweep.write("transfer", [
        sweep.transfer("resnet50", "convnext_tiny", teacher_key=f"hash:{digit * 8}", delta=1.0)
        for digit in "123"
    ])  # fmt: skip
    for where, found in (
        ("teacher == 'resnet50 (11111111)'", {"hash:11111111"}),
        ("teacher != 'resnet50 (11111111)' and delta > 0", {"hash:22222222", "hash:33333333"}),
        ("teacher == 'resnet50' and delta > 0", {f"hash:{d * 8}" for d in "123"}),
    ):
        results = read_results([sweep.folder], {"transfer": ("delta",)}, Query(where=where))
        assert set(results.ok("transfer")["teacher_key"]) == found
        assert results.filtered == {"transfer": 3 - len(found)}


def test_a_name_is_what_tables_without_the_condition_show(sweep: Sweep) -> None:
    """Which of two models of one name is meant does not depend on what else is asked."""
    sweep.write("transfer", [
        sweep.transfer("resnet50", "convnext_tiny", teacher_key=f"hash:{digit * 8}", delta=delta)
        for digit, delta in (("1", 1.0), ("2", -1.0))
    ])  # fmt: skip
    for digit, sign, count in (("1", ">", 1), ("1", "<", 0), ("2", "<", 1)):
        query = Query(where=f"teacher == 'resnet50 ({digit * 8})' and delta {sign} 0")
        rows = read_results([sweep.folder], {"transfer": ("delta",)}, query).ok("transfer")
        assert len(rows) == count


def test_failed_runs_stay_unless_the_condition_surely_fails(filled: Sweep) -> None:
    filled.write("transfer", [
        filled.failed("transfer", "x", method=method, settings="5e771465")
        for method in ("kl", "kl-dp", "kl-dp")
    ])  # fmt: skip
    query = Query(where="method == 'kl-dp' and delta > 0")
    failed = read_results([filled.folder], {"transfer": ()}, query).failed("transfer")
    assert failed["method"].tolist() == ["kl-dp", "kl-dp"]
    assert failed["method"].dtype == object


def test_where_chooses_among_the_rows_that_count(sweep: Sweep) -> None:
    """Of a run with several rows the newest finished one is asked, not whichever fits."""
    row = sweep.transfer("resnet50", "convnext_tiny")
    sweep.write("transfer", [
        {**row, "created": "1", "delta": 5.0}, {**row, "created": "2", "delta": -5.0},
        {**row, "created": "3", "status": "failed", "delta": None},
    ])  # fmt: skip
    up, down = (
        read_results([sweep.folder], {"transfer": ("delta",)}, Query(where=where))
        for where in ("delta > 0", "delta < 0")
    )
    assert up.ok("transfer").empty and up.failed("transfer").empty
    assert up.filtered == {"transfer": 1}
    assert down.ok("transfer")["delta"].tolist() == [-5.0]
    assert down.failed("transfer").empty


def test_where_on_a_table_that_has_no_such_rows(filled: Sweep) -> None:
    found = read_results([filled.folder], {"models": ()}, Query(where="delta > 0"))
    assert len(found.ok("models")) == 4
    assert found.filtered == {}


def test_two_folders_of_one_sweep_are_one(make_sweep: Any, tmp_path: Path) -> None:
    one = make_sweep(tmp_path / "a" / "demo")
    one.fill(seeds=1)
    shutil.copytree(one.folder, tmp_path / "b" / "demo")
    (row, *_) = store.read([one.folder], "transfer").to_dict("records")
    kept = {c: row[c] for c in ("run_id", "teacher", "student", "method", "data", "eval_data")}
    kept |= {"teacher_key": row["teacher_key"], "student_key": row["student_key"], "n": 200}
    newer = {**kept, "status": "ok", "created": "2030", "delta": 77.0, "settings": "5e771465"}
    store.write(tmp_path / "b" / "demo", "transfer", [newer])
    for root in ("a", "b"):
        (tmp_path / root / "demo" / "sweep.toml").write_text(SWEEP_TOML)
    found = read_results([tmp_path / "a", tmp_path / "b"], {"transfer": ("run_id", "delta")})
    rows = found.ok("transfer").set_index("run_id")
    assert len(rows) == 60
    assert rows.loc[row["run_id"], "delta"] == 77.0
    assert found.folders == {"demo": tmp_path / "a" / "demo"}


def test_different_sweeps_of_one_name_stay_apart(make_sweep: Any, tmp_path: Path) -> None:
    for root, text in (("a", SWEEP_TOML), ("b", SWEEP_TOML + "seeds = [1]\n")):
        sweep = make_sweep(tmp_path / root / "demo")
        sweep.write("transfer", [sweep.transfer("resnet50", "convnext_tiny")])
        (sweep.folder / "sweep.toml").write_text(text)
    found = read_results([tmp_path / "a", tmp_path / "b"], {"transfer": ()})
    assert len(found.ok("transfer")) == 2
    assert set(found.folders) == {str(tmp_path / root / "demo") for root in ("a", "b")}


def test_two_sweeps_share_their_names(make_sweep: Any, tmp_path: Path) -> None:
    for name, teacher in (("x", "resnet50"), ("y", "vit_base_patch16_224")):
        sweep = make_sweep(tmp_path / name)
        sweep.write("transfer", [sweep.transfer(teacher, "convnext_tiny")])
    rows = read_results([tmp_path]).ok("transfer")
    assert rows["sweep"].tolist() == ["x", "y"]
    assert rows["teacher"].tolist() == ["resnet50", "vit_base_patch16_224"]
    assert rows["teacher"].dtype == rows["student"].dtype
    assert list(rows["sweep"].cat.categories) == ["x", "y"]


def test_old_and_newer_schemas_are_read(filled: Sweep) -> None:
    """Columns that an old part lacks are null, unknown ones are left alone, numbers are cast."""
    folder = filled.folder / "transfer"
    (part,) = store.list_parts(folder)
    rows = pq.read_table(part)
    old = rows.drop_columns(["transfer_rate", "together", "gain"])
    old = old.append_column("unheard_of", pa.array(range(len(old))))
    delta = old.column_names.index("delta")
    whole = pa.array(np.arange(len(old)), pa.int32())
    pq.write_table(old.set_column(delta, "delta", whole), folder / "part-old.parquet")
    part.unlink()
    found = read_results([filled.folder]).ok("transfer")
    assert found["gain"].isna().all() and found["together"].isna().all()
    assert "unheard_of" not in found
    assert found["delta"].tolist() == list(range(len(old)))


def test_what_cannot_be_read_is_named_once_and_skipped(filled: Sweep) -> None:
    folder = filled.folder / "transfer"
    (part,) = store.list_parts(folder)
    (folder / "part-broken.parquet").write_bytes(b"not parquet")
    (folder / "part-cut.parquet").write_bytes(part.read_bytes()[:-100])
    wrong = pa.table({"run_id": ["a"], "status": ["ok"], "delta": ["much"], "created": ["1"]})
    pq.write_table(wrong, folder / "part-wrong.parquet")
    names: list[str] = []
    found = read_results(
        [filled.folder], {"transfer": ("delta",)}, Query(where="seed == 0"),
        on_skip=lambda path, reason: names.append(path.name),
    )  # fmt: skip
    assert sorted(names) == ["part-broken.parquet", "part-cut.parquet", "part-wrong.parquet"]
    assert sorted(path.name for path in found.skipped) == sorted(names)
    assert len(found.ok("transfer")) == 60


def test_parts_merged_meanwhile_are_read_once(
    filled: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that vanishes between the listing and the reading is found in its new place."""
    rows = [filled.transfer("resnet50", "convnext_tiny", method="crd") for _ in range(4)]
    parts = [filled.write("transfer", [row]) for row in rows]
    listed = store.list_parts
    state = {"merged": False}

    def racing(folder: Path) -> list[Path]:
        before = listed(folder)
        if folder.name == "transfer" and not state["merged"]:
            state["merged"] = True
            store.merge(filled.folder, "transfer", parts)
        return before

    monkeypatch.setattr("kt_cli.rows.parts.list_parts", racing)
    skipped: list[Path] = []
    found = read_results([filled.folder], on_skip=lambda path, reason: skipped.append(path))
    assert state["merged"] and not skipped
    assert int((found.ok("transfer")["method"] == "crd").sum()) == 4


def test_corrupt_pages_are_nothing_to_report(sweep: Sweep) -> None:
    part = sweep.write("transfer", [sweep.transfer("resnet50", "convnext_tiny")])
    content = bytearray(part.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    part.write_bytes(content)
    with pytest.raises(DataError, match="none of the 1 Parquet files"):
        read_results([sweep.folder])


def test_rows_are_counted_without_reading_them(filled: Sweep) -> None:
    counts = count_rows([filled.folder, filled.folder.parent])
    assert counts == {"pretrain": 0, "models": 4, "complementarity": 12, "transfer": 120}


def test_what_occurs_in_the_columns_of_a_condition(filled: Sweep) -> None:
    query = Query(where="method == 'nope' and student_type == 'mlp' and delta > 3")
    there = occurring([filled.folder], query)
    assert there == {
        "method": sorted(filled.METHODS),
        "student_type": ["cnn", "mlp", "transformer"],
    }


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"where": "metod == 1"}, UnknownName, "unknown column 'metod'"),
        ({"where": "delta >"}, UsageError, "not understood"),
        ({"by": ("student_famly",)}, UnknownName, "unknown column 'student_famly'"),
        ({"by": ("curve_loss",)}, UnknownName, "unknown column 'curve_loss'"),
        ({"top": 0}, UsageError, "top must be positive"),
        ({"against": "papers"}, UnknownName, "'papers'"),
    ],
)
def test_questions_that_cannot_be_are_refused(
    asked: dict[str, Any], error: type[UsageError], message: str
) -> None:
    with pytest.raises(error, match=message):
        Query(**asked)


@pytest.mark.parametrize(
    "name",
    ["run_id", "created", "error", "together", "limit", "n", "top2_rate", "reference_compat"],
)
def test_columns_of_every_type_can_be_asked_for(filled: Sweep, name: str) -> None:
    rows = transfers(filled.folder)
    query = Query(where=f"{name} is not None")
    found = read_results([filled.folder], {"transfer": ()}, query).ok("transfer")
    assert len(found) == int(rows[name].notna().sum())
