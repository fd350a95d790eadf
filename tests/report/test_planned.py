"""A report shows what the sweep.toml beside the rows plans, and says how much else there is."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kt_cli.api.report import report
from kt_cli.api.results import results
from kt_cli.errors import KtWarning
from kt_cli.report.planned import MODELS, PLAN, Planned
from kt_cli.report.query import Query
from kt_cli.report.read import Results, read_results

Sweep = Any  # of the conftest beside this file


def plan(folder: Path, toml: str, keys: list[str] | None = None) -> None:
    (folder / "sweep.toml").write_text(toml)
    if keys is not None:
        (folder / MODELS).write_text(json.dumps(keys))


def read(sweep: Sweep, **query: Any) -> Results:
    return read_results([sweep.folder], query=Query(**query))


def test_a_seed_and_a_method_that_were_taken_out_are_left_out(filled: Sweep) -> None:
    plan(filled.folder, '[transfer]\nmethods = ["kl", "xekl"]\nseeds = [1]\n')
    filled.write("transfer", [filled.failed("transfer", "x", method="kl-dp", seed=1)])
    found = read(filled)
    rows = found.ok("transfer")
    assert set(rows["seed"]) == {1} and {*rows["method"]} == {"kl", "xekl"}
    assert found.failed("transfer").empty
    assert len(rows) == 24 and found.unplanned == 120 - 24 + 1
    assert len(found.ok("complementarity")) == 12 and len(found.ok("models")) == 4
    every = read(filled, all_rows=True)
    assert len(every.ok("transfer")) == 120 and every.unplanned == 0


def test_rows_of_other_images_are_left_out(filled: Sweep) -> None:
    """As of a --limit that was another before; every table has them."""
    plan(filled.folder, "[transfer]\n")
    known = read(filled).ok("transfer")["eval_data"].iloc[0]
    others = {"eval_data": "o" * 16, "limit": 300}
    teacher, student = filled.MODELS[:2]
    filled.write("transfer", [filled.transfer(teacher, student, **others)])
    filled.write("complementarity", [filled.pair(teacher, student, **others)])
    rows = {"transfer": {"eval_data": [known]}}
    assert len(read(filled).ok("transfer")) == 121
    (filled.folder / PLAN).write_text(json.dumps({"pairs": [], "rows": rows}))
    found = read(filled)
    assert len(found.ok("transfer")) == 120 and len(found.ok("complementarity")) == 12
    assert found.unplanned == 2
    assert len(read(filled, all_rows=True).ok("transfer")) == 121


def test_a_model_that_was_taken_out_is_left_out_everywhere(filled: Sweep) -> None:
    kept = [f"key:{name}" for name in filled.MODELS[:3]]
    gone = filled.MODELS[3]
    filled.write("transfer", [
        filled.team(filled.MODELS[:2], filled.MODELS[2]),
        filled.team([filled.MODELS[0], gone], filled.MODELS[2]),
        filled.failed("transfer", "x", teacher_key=None, student_key=None),
    ])  # fmt: skip
    plan(filled.folder, "", kept)
    assert read(filled).unplanned == 0  # of an empty sweep.toml nothing is known
    plan(filled.folder, 'name = "demo"\n', kept)
    found = read(filled)
    assert len(found.ok("models")) == 3 and len(found.ok("complementarity")) == 6
    rows = found.ok("transfer")
    assert len(rows) == 60 + 1 and rows["teacher"].str.contains(" + ", regex=False).sum() == 1
    assert len(found.failed("transfer")) == 1
    assert not rows[["teacher", "student"]].isin([gone]).any(axis=None)


def test_pairs_that_are_no_longer_drawn_are_left_out(filled: Sweep) -> None:
    a, b, c, _ = filled.MODELS
    filled.write("transfer", [
        filled.team([a, b], c),  # of several teachers the models count
        filled.failed("transfer", "x", teacher_key=f"key:{c}", student_key=f"key:{a}"),
        filled.failed("transfer", "y", teacher_key=None, student_key=None),
    ])  # fmt: skip
    plan(filled.folder, 'name = "demo"\n')
    pairs = [[f"key:{t}", f"key:{s}"] for t, s in ((a, b), (b, a))]
    (filled.folder / PLAN).write_text(json.dumps({"pairs": pairs}))
    found = read(filled)
    rows = found.ok("transfer")
    alone = rows[~rows["teacher"].str.contains(" + ", regex=False)]
    assert {*zip(alone["teacher"], alone["student"], strict=True)} == {(a, b), (b, a)}
    assert len(alone) == 20 and len(rows) == 21 and found.unplanned == 100 + 1
    assert len(found.failed("transfer")) == 1 and len(found.ok("complementarity")) == 12
    for odd in ("[]", '{"pairs": 1}', '{"pairs": [1]}', '{"pairs": []}', "{"):
        (filled.folder / PLAN).write_text(odd)
        assert read(filled).unplanned == 0


@pytest.mark.parametrize("toml", ["not = toml = at all", "", 'transfer = "x"'])
def test_what_says_nothing_leaves_nothing_out(filled: Sweep, toml: str) -> None:
    plan(filled.folder, toml)
    (filled.folder / MODELS).write_text("{not json")
    assert len(read(filled).ok("transfer")) == 120


def test_how_many_are_left_out_is_said_once(filled: Sweep) -> None:
    plan(filled.folder, "[transfer]\nseeds = [0]\n")
    for say in (
        lambda **more: report(filled.folder, table=["summary"], **more),
        lambda **more: results(filled.folder, **more).summary(),
        lambda **more: results(filled.folder, **more).rows("transfer"),
    ):
        with pytest.warns(KtWarning, match="^60 rows .* --all-rows") as told:
            say()
        assert len(told) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            say(all_rows=True)


def test_a_zoo_has_seeds_and_images_of_its_own(sweep: Sweep) -> None:
    sweep.write("pretrain", [{**sweep.outcome(), "model": "a", "seed": 0, "train_data": "all"}])
    plan(sweep.folder, '[transfer]\nmethods = ["kl"]\nseeds = [1]\n')
    rows = {"transfer": {"train_data": ["t" * 16]}}
    (sweep.folder / PLAN).write_text(json.dumps({"pairs": [], "rows": rows}))
    found = read(sweep)
    assert len(found.ok("pretrain")) == 1 and found.unplanned == 0


def test_of_several_teachers_all_are_planned() -> None:
    """By their list: a key may hold the sign that joins keys for people."""
    rows = pd.DataFrame({
        "teacher_key": pd.Categorical(["a + b", "a + c"]),
        "teacher_keys": [None, ["a", "c"]],
    })  # fmt: skip
    assert Planned({"teacher_key": {"a + b", "a"}}).holds(rows).tolist() == [True, False]
    assert Planned({"teacher_key": {"a", "b", "c"}}).holds(rows).tolist() == [False, True]
