"""The sentence that a report ends with says what its numbers bear out, and no more."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest

from kt_cli.report.arrange import arrange
from kt_cli.report.conclusion import concluded, conclusions
from kt_cli.report.formats import render_json, render_latex, render_markdown
from kt_cli.report.query import Query
from kt_cli.report.table import Cell, Column, Interval, MeanStd, Table
from tests.report.records import sweep_tables

Sweep = Any  # of the conftest beside this file
NAN = math.nan
MODELS = tuple(f"model{i}" for i in range(7))


def summary(
    *rows: tuple[str, int, float, tuple[float, float]], best: str = "", alike: bool = False
) -> Table:
    """Of methods with n, Δ and its interval; half of the transfers gained."""
    keys = ("method", "n", "success_rate", "delta", "delta_interval")
    columns = tuple(Column(key, lead=key == "method", kind="text" if key == "method" else "number")
                    for key in keys)  # fmt: skip
    cells: tuple[tuple[Cell, ...], ...] = tuple(
        (
            method,
            n,
            Interval(50.0, 20, 80),
            MeanStd(delta, 0.0 if alike else 1.0, n),
            Interval(delta, *ends),
        )
        for method, n, delta, ends in rows
    )
    bold = frozenset((i, "delta") for i, row in enumerate(rows) if row[0] == best)
    group = {"sweep": "s", "settings": "ab"}
    return concluded(Table("summary", "", columns, cells, bold=bold, group=group))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (summary(("kl", 8, 0.5, (0.1, 0.9))), "kl helps: 4 of 8 transfers gained (50.0% "
         "[20, 80]), Δ +0.50 points on average [+0.10, +0.90]."),
        (summary(("kl", 8, 0.5, (-0.1, 1.1))), "It is not shown that kl helps: 4 of 8 "),
        (summary(("kl", 8, -0.5, (-0.9, -0.1))), "kl harms: 4 of 8 "),
        (summary(("kl", 2, 0.5, (NAN, NAN))),
         "kl: 1 of 2 transfers gained (50.0% [20, 80]), "
         "Δ +0.50 points on average; too few models to say what "
         "others would do."),
        (summary(("kl", 8, -1.0, (-2, -0.1)), ("kl-dp", 8, 0.5, (0.1, 1.0)), best="kl-dp"),
         "kl-dp helps: 4 of 8 transfers gained (50.0% [20, 80]), "
         "Δ +0.50 points on average [+0.10, +1.00]; better "
         "than the other on the same pairs; kl (Δ −1.00) harms."),
        (summary(("kl", 8, 0.2, (-2, 2)), ("kl-dp", 8, 0.5, (0.1, 1.0)), ("self", 8, 0.9, (0, 2))),
         "kl-dp helps: 4 of 8 transfers gained (50.0% [20, 80]), "
         "Δ +0.50 points on average [+0.10, +1.00]; none is "
         "shown to be better than all others."),
        (summary(("kl", 8, 0.2, (-2, 2)), ("self+guard", 8, 0.9, (0.1, 2)), best="self+guard"),
         "No method is shown to help; kl did best: "
         "4 of 8 transfers gained (50.0% [20, 80]), Δ +0.20 points on average [−2, +2]; "
         "self+guard, in which nobody teaches, is better on the same pairs."),
        (summary(("kl", 2, 0.0, (NAN, NAN)), alike=True),
         "kl: 1 of 2 transfers gained (50.0% [20, 80]), Δ 0.00 points on average; all alike."),
        (summary(("kl", 8, -1.0, (-2, -0.5)), ("kl-dp", 8, -0.5, (-1, -0.1))),
         "Nothing helps here; kl-dp harms least: "),
        (summary(("kl", 8, 0.2, (-2, 2)), ("kl-dp", 8, 0.5, (-1, 2))),
         "No method is shown to help; kl-dp did best: 4 of 8 "),
        # One that is shown to help goes before a higher mean that is not.
        (summary(("kl", 8, 0.2, (0.1, 0.3)), ("kl-dp", 8, 2.0, (-1, 5))), "kl helps: 4 of 8 "),
    ],
)  # fmt: skip
def test_a_sentence_for_what_is_borne_out(table: Table, said: str) -> None:
    (sentence,) = conclusions([table])
    assert sentence.startswith(said) and sentence.endswith(".")


def test_students_that_a_guard_left_as_they_were_are_counted(sweep: Sweep) -> None:
    pairs = list(itertools.permutations(MODELS, 2))
    change = {"method": "kl-dp+guard", "guard_data": "g" * 16}
    rows = [sweep.transfer(t, s, **{**change, "guard_alpha": alpha, "delta": alpha * (1 + i / 50)})
            for i, (t, s) in enumerate(pairs) for alpha in [float(i % 3 > 0)]]  # fmt: skip
    sweep.write("transfer", rows)
    (sentence,) = conclusions(sweep_tables([sweep.folder], ["summary"]))
    kept = sum(1 for row in rows if not row["guard_alpha"])
    assert kept == 14 and f"), {kept} left as they were, Δ " in sentence
    sweep.write("transfer", [{**row, "seed": 0, "settings": "00", "guard_alpha": 0.0, "delta": 0.0,
                              **sweep.outcome()} for row in rows])  # fmt: skip
    still, _ = conclusions(sweep_tables([sweep.folder], ["summary"]))
    assert still.endswith(": kl-dp+guard left all 42 students as good as they were.")


def test_written_reports_have_it_too(filled: Sweep) -> None:
    tables = sweep_tables([filled.folder])
    (sentence,) = conclusions(tables)
    assert f"\n% {sentence}\n" in render_latex(tables)
    head = render_markdown(tables).splitlines()[0]
    assert head.replace("\\", "") == f"**{sentence}**"
    said = {table["name"]: table["conclusion"] for table in json.loads(render_json(tables))}
    assert said["summary"] == sentence and said["models"] is None
    for query in (Query(columns=("method", "n")), Query(sort=("-n",), top=1)):
        few = arrange(tables, query)  # it is about all of them, also where not all are shown
        assert conclusions(few) == [sentence]
        assert f"\n% {sentence}\n" in render_latex(few)
        assert json.loads(render_json(few))[0]["conclusion"] == sentence


def test_groups_that_do_not_compare_have_a_sentence_each() -> None:
    table = summary(("kl", 8, 0.5, (0.1, 0.9)))
    found = conclusions([table] * 5)
    assert len(found) == 4 and found[0].startswith("s, settings ab: kl helps")
    assert found[3] == "2 more have a summary of their own."


def test_groups_of_one_name_are_told_apart(sweep: Sweep) -> None:
    pairs = list(itertools.permutations(MODELS, 2))
    for images, data in ((899, "a"), (300, "b")):
        sweep.write("transfer", [sweep.transfer(t, s, n=images, eval_data=data * 16)
                                 for t, s in pairs])  # fmt: skip
    said = conclusions(sweep_tables([sweep.folder], ["summary"]))
    labels = [sentence.partition(": ")[0] for sentence in said]
    assert len(set(labels)) == 2 and all(label.endswith(" images") for label in labels)
    assert {label.rpartition(", ")[2] for label in labels} == {"899 images", "300 images"}


def test_success_is_counted_as_the_tables_do(sweep: Sweep) -> None:
    rows = [sweep.transfer(t, s) for t, s in itertools.permutations(MODELS, 2)]
    sweep.write("transfer", rows)
    (sentence,) = conclusions(sweep_tables([sweep.folder]))
    deltas = np.array([row["delta"] for row in rows])
    assert f"{(deltas > 0).sum()} of 42 transfers gained" in sentence
    mean = f"{deltas.mean():+.2f}".replace("-", "−")
    assert f"Δ {mean} points on average" in sentence


def test_what_by_tells_apart_is_named(sweep: Sweep) -> None:
    pairs = list(itertools.permutations(MODELS, 2))
    rows = [sweep.transfer(t, s, seed=seed, delta=2.0 * seed - 0.5 + 0.001 * i)
            for i, (t, s) in enumerate(pairs) for seed in (0, 1)]  # fmt: skip
    sweep.write("transfer", rows)
    (sentence,) = conclusions(sweep_tables([sweep.folder], ["summary"], Query(by=("seed",))))
    assert sentence.startswith("kl-dp, seed 1 helps: 42 of 42 transfers gained")
    assert "same pairs" not in sentence and "kl-dp, seed 0 (Δ −0.48) harms" in sentence


def test_the_control_is_no_winner_however_it_is_told_apart(sweep: Sweep) -> None:
    pairs = list(itertools.permutations(MODELS, 2))
    rows = [sweep.transfer(t, s, method=method, seed=seed, delta=delta + 0.001 * i)
            for i, (t, s) in enumerate(pairs) for seed in (0, 1)
            for method, delta in (("self", 2.0), ("kl", 1.0))]  # fmt: skip
    sweep.write("transfer", rows)
    for by in ((), ("seed",)):
        (sentence,) = conclusions(sweep_tables([sweep.folder], ["summary"], Query(by=by)))
        assert sentence.startswith("kl")


def test_without_transfers_it_is_about_what_models_know(sweep: Sweep) -> None:
    rows = [sweep.pair(t, s, pos_flips=float(i), acc_diff=float(i - 20))
            for i, (t, s) in enumerate(itertools.permutations(MODELS, 2))]  # fmt: skip
    sweep.write("complementarity", rows)
    (sentence,) = conclusions(sweep_tables([sweep.folder]))
    assert sentence == (
        "On 0.0 to 41.0% of the images a teacher is right where its student is wrong (ρ⁺; median "
        "20.5%, of weaker teachers 9.5%)."
    )
    assert conclusions([]) == []
