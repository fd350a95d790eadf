from __future__ import annotations

import math
import statistics
from typing import Any

import pytest

from kt_cli.errors import DataError
from kt_cli.report.query import Query
from kt_cli.report.table import Table
from tests.report.records import records, sweep_tables

Sweep = Any  # of the conftest beside this file
VIT, RESNET, MIXER, CONVNEXT = "vit_base_patch16_224", "resnet50", "mixer_50%_b16", "convnext_tiny"


def only(sweep: Sweep, query: Query = Query()) -> Table:
    (table,) = sweep_tables([sweep.folder], ["teams"], query)
    return table


def test_each_teacher_alone_and_then_all_together(sweep: Sweep) -> None:
    alone = [
        sweep.transfer(t, MIXER, seed=seed, delta=delta, transfer_rate=rate)
        for t, seed, delta, rate in (
            (VIT, 0, 1.0, 10.0), (VIT, 1, 2.0, 20.0), (RESNET, 0, -1.0, 30.0),
        )
    ]  # fmt: skip
    asc = {"settings": "aaaa", "together": "sequential", "order": "asc"}
    together = [
        sweep.team([VIT, RESNET], MIXER, seed=0, delta=3.0, teacher_rates=[10.0, 20.0]),
        sweep.team([VIT, RESNET], MIXER, seed=1, delta=4.0, teacher_rates=[20.0, 40.0]),
        sweep.team([VIT, RESNET], MIXER, delta=0.5, step_accs=[80.5, 81.0], **asc),
    ]
    sweep.write("transfer", [*alone, *together, sweep.transfer(CONVNEXT, MIXER)])
    table = only(sweep)
    found = records(table)
    assert [(r["student"], r["taught_by"], r["n"]) for r in found] == [
        (MIXER, VIT, 2), (MIXER, RESNET, 1), (MIXER, "all, parallel", 2),
        (MIXER, "all, sequential, asc", 1),
    ]  # fmt: skip
    assert [r["delta"].mean for r in found] == [1.5, -1.0, 3.5, 0.5]
    assert found[0]["delta"].std == pytest.approx(statistics.stdev([1.0, 2.0]))
    assert found[0]["transfer_rate"] == 15.0
    assert found[2]["teacher_rates"] == "15.0 / 30.0"
    assert found[3]["step_accs"] == "80.5 / 81.0"
    assert found[0]["step_accs"] is None
    assert {r["team"] for r in found} == {f"{RESNET} + {VIT}"}
    assert not table.bold  # single runs
    assert "n = 6 transfers of 1 team, 1 method, 2 seeds." in table.notes
    assert table.group["settings"] == "5e771465, 7ea3, aaaa"


def test_means_over_teams_come_first(sweep: Sweep) -> None:
    deltas = {(VIT, MIXER): 1.0, (RESNET, MIXER): 3.0, (VIT, RESNET): -2.0, (MIXER, RESNET): -1.0}
    sweep.write("transfer", [
        *(sweep.transfer(t, s, delta=delta) for (t, s), delta in deltas.items()),
        sweep.team([VIT, RESNET], MIXER, delta=5.0),
        sweep.team([VIT, MIXER], RESNET, delta=-0.5),
    ])  # fmt: skip
    found = records(only(sweep))
    overall = [r for r in found if r["student"] == "all teams of 2"]
    assert found[: len(overall)] == overall
    assert [(r["taught_by"], r["n"], r["delta"].mean) for r in overall] == [
        ("each alone", 2, statistics.fmean([2.0, -1.5])),
        ("the best alone", 2, statistics.fmean([3.0, -1.0])),
        ("all, parallel", 2, statistics.fmean([5.0, -0.5])),
    ]
    assert overall[2]["delta"].std == pytest.approx(statistics.stdev([5.0, -0.5]))


def test_the_best_way_is_bold_where_all_teams_bear_it_out(sweep: Sweep) -> None:
    students = [f"s{i}" for i in range(8)]
    sweep.write("transfer", [
        *(sweep.transfer(t, s, delta=0.1) for s in students for t in (VIT, RESNET)),
        *(sweep.team([VIT, RESNET], s, delta=2.0 + i % 3) for i, s in enumerate(students)),
    ])  # fmt: skip
    table = only(sweep)
    assert [records(table)[i]["taught_by"] for i, _ in table.bold] == ["all, parallel"]
    assert any(note.startswith("Bold: ") and "over all teams" in note for note in table.notes)


def test_the_best_alone_is_not_bold_by_being_chosen(sweep: Sweep) -> None:
    students = [f"s{i}" for i in range(12)]
    sweep.write("transfer", [
        *(sweep.transfer(t, s, delta=float((i + j) % 2) + i % 3 / 10)
          for i, s in enumerate(students) for j, t in enumerate((VIT, RESNET))),
        *(sweep.team([VIT, RESNET], s, delta=0.3 + i % 2 / 10) for i, s in enumerate(students)),
    ])  # fmt: skip
    table = only(sweep)
    overall = [r for r in records(table) if r["student"] == "all teams of 2"]
    assert max(overall, key=lambda r: float(r["delta"].mean))["way"] == "best alone"
    assert not table.bold and "after the fact" in " ".join(table.notes)


def test_teachers_that_were_trained_again_are_told_apart(sweep: Sweep) -> None:
    """Two models of one name: each team has its own members, and is no other seed of the other."""
    keys = {"old": "local:f0ce9acc", "new": "local:00000000"}
    rows = [sweep.transfer(VIT, MIXER, teacher_key=key, delta=d, seed=0)
            for key, d in zip(keys.values(), (1.0, 2.0), strict=True)]  # fmt: skip
    rows.append(sweep.transfer(RESNET, MIXER, delta=0.5))
    rows += [sweep.team([VIT, RESNET], MIXER, delta=d, teacher_key=f"{key} + key:{RESNET}",
                        teacher_keys=[key, f"key:{RESNET}"])
             for key, d in zip(keys.values(), (5.0, -3.0), strict=True)]  # fmt: skip
    sweep.write("transfer", rows)
    by_team: dict[str, list[tuple[str, int, float]]] = {}
    for r in records(only(sweep)):
        if not r["student"].startswith("all teams"):
            by_team.setdefault(r["team"], []).append((r["way"], r["n"], r["delta"].mean))
    assert sorted(by_team.values()) == [
        [("alone", 1, 1.0), ("alone", 1, 0.5), ("parallel", 1, 5.0)],
        [("alone", 1, 2.0), ("alone", 1, 0.5), ("parallel", 1, -3.0)],
    ]


def test_orders_of_teachers_are_no_seeds(sweep: Sweep) -> None:
    given = {"together": "sequential", "order": "given"}
    sweep.write("transfer", [
        sweep.team([VIT, RESNET], MIXER, delta=1.0, **given),
        sweep.team([RESNET, VIT], MIXER, delta=-3.0, **given),
    ])  # fmt: skip
    found = records(only(sweep))
    assert [(r["teachers"], r["n"], r["delta"].mean) for r in found] == [
        (f"{RESNET} + {VIT}", 1, -3.0), (f"{VIT} + {RESNET}", 1, 1.0)
    ]  # fmt: skip


def test_a_team_whose_teachers_did_not_teach_alone(sweep: Sweep) -> None:
    sweep.write("transfer", [sweep.team([VIT, RESNET], MIXER, delta=5.0, transfer_rate=None)])
    (record,) = records(only(sweep))
    assert record["way"] == "parallel"
    assert math.isnan(record["transfer_rate"])


def test_teachers_alone_with_other_settings_do_not_compare(sweep: Sweep) -> None:
    sweep.write("transfer", [
        sweep.transfer(VIT, MIXER, settings="other", lr=0.5),
        sweep.team([VIT, RESNET], MIXER),
    ])  # fmt: skip
    (record,) = records(only(sweep))
    assert record["way"] == "parallel"


def test_methods_are_apart_and_failures_counted(sweep: Sweep) -> None:
    sweep.write("transfer", [
        sweep.team([VIT, RESNET], MIXER, method="kl-dp"),
        sweep.team([VIT, RESNET], MIXER, method="kl"),
        sweep.failed("transfer", "out of memory", settings="7ea3"),
        sweep.failed("transfer", "out of memory", settings="another"),
    ])  # fmt: skip
    table = only(sweep)
    assert [r["method"] for r in records(table)] == ["kl", "kl-dp"]
    assert "Left out: 1 failed transfer with these settings." in table.notes


def test_seeds_can_be_averaged_first(sweep: Sweep) -> None:
    rows = [sweep.team([VIT, RESNET], MIXER, seed=seed, delta=float(seed)) for seed in range(3)]
    sweep.write("transfer", rows)
    (record,) = records(only(sweep, Query(seed_average=True)))
    assert (record["n"], record["delta"].mean) == (1, 1.0)


def test_without_teams_there_is_no_such_table(filled: Sweep) -> None:
    with pytest.raises(DataError, match="no table 'teams'") as caught:
        only(filled)
    assert "several teachers" in caught.value.tip
    names = {table.name for table in sweep_tables([filled.folder])}
    assert names == {"summary", "students", "matrix", "complementarity", "models"}
