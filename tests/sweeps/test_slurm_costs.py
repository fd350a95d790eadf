"""What runs cost by the rows there are, and what fits into a number of GPU-hours."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm

from kt_cli.rows import store
from kt_cli.runs.columns import pair_columns
from kt_cli.runs.predict import predict_runs
from kt_cli.settings import DataSpec, EvalSpec, TransferSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps.cost_model import (
    FIXED,
    MACS_PER_PARAMETER,
    MACS_PER_SECOND,
    TYPICAL_MACS,
    Costs,
    fitting,
    spent,
)
from kt_cli.zoo import imagenet_facts
from kt_cli.zoo.names import resolve

DATA = DataSpec("digits")
A, B, C = (Model(name, name, name) for name in ("resnet50.a1_in1k", "resnet18.a1_in1k", "own"))


def transfer(*models: Model, method: str = "kl") -> Run:
    return Run("transfer", models, "train", TransferSpec(method=method, epochs=2), DATA)


def seconds(costs: Costs, run: Run) -> float:
    return costs.seconds([run])[0]


def test_published_costs_are_used_where_nothing_is_measured(tmp_path: Path) -> None:
    costs = Costs(tmp_path, training=100, evaluation=10)
    published = imagenet_facts.fact(A.key)
    assert published is not None and published.gmacs is not None
    run = Run("predict", (A,), "eval", EvalSpec(), DATA)
    assert seconds(costs, run) == pytest.approx(published.gmacs * 1e9 * 10 / MACS_PER_SECOND)
    assert seconds(costs, transfer(B, A)) > seconds(costs, transfer(A, B))


def test_an_architecture_costs_what_is_published_of_one_of_it_at_its_size(tmp_path: Path) -> None:
    published = imagenet_facts.fact("test_resnet.r160_in1k")
    assert published is not None and published.gmacs is not None
    costs = Costs(tmp_path, training=100, evaluation=10, speed=1e9)
    arch = Model("test_resnet")
    assert costs.per_image(arch) == pytest.approx(published.gmacs)
    assert costs.per_image(arch, 80) == pytest.approx(published.gmacs / 4)


def test_a_saved_model_costs_what_its_architecture_does_at_its_own_size(tmp_path: Path) -> None:
    published = imagenet_facts.fact("test_resnet.r160_in1k")
    assert published is not None and published.gmacs is not None
    config = {"architecture": "test_resnet", "pretrained_cfg": {"input_size": [3, 40, 40]}}
    model = saved(tmp_path / "m", config, 0)
    costs = Costs(tmp_path, training=100, evaluation=10, speed=1e9)
    assert costs.per_image(model) == pytest.approx(published.gmacs / 16)
    assert costs.per_image(model, 80) == pytest.approx(published.gmacs / 4)


def test_a_saved_model_of_an_unknown_architecture_costs_by_its_size(tmp_path: Path) -> None:
    costs = Costs(tmp_path, training=100, evaluation=10, speed=1e9)
    small, large = (saved(tmp_path / str(n), {"architecture": "mine"}, 4 * n) for n in (10, 1000))
    assert costs.per_image(large) == pytest.approx(100 * costs.per_image(small))
    assert costs.per_image(small) == pytest.approx(10 * MACS_PER_PARAMETER / 1e9)


def test_an_architecture_of_which_nothing_is_published_costs_by_its_parameters(
    tmp_path: Path,
) -> None:
    costs = Costs(tmp_path, training=100, evaluation=10, speed=1e9)
    assert imagenet_facts.fact_of_architecture("test_mambaout") is None
    count = sum(p.numel() for p in timm.create_model("test_mambaout").parameters())
    assert costs.per_image(Model("test_mambaout")) == count * MACS_PER_PARAMETER / 1e9
    assert costs.per_image(Model("test_mambaout"), 112) == count * MACS_PER_PARAMETER / 4e9
    assert costs.per_image(Model("nobody_knows")) == TYPICAL_MACS / 1e9


def saved(folder: Path, config: dict[str, object], size: int) -> Model:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(bytes(size))
    return Model(folder.name, f"local-dir:{folder}")


def test_a_transfer_that_is_not_planned_yet_costs_as_who_teaches_and_learns(tmp_path: Path) -> None:
    costs = Costs(tmp_path, training=100, evaluation=10)
    each = [costs.per_image(model) for model in (A, B)]
    planned = seconds(costs, transfer(A, B))
    assert costs.typical("transfer", each, [[each[0]], [each[1]]], 2) == pytest.approx(planned)


def test_speeds_in_rows_win(tmp_path: Path) -> None:
    store.write(tmp_path, "models", [
        {"run_id": key, "model_key": key, "status": status, "samples_per_s": speed, "seconds": took,
         "measured_with": speed and key}
        for key, status, speed, took in ((A.key, store.OK, 4.0, 3.0), (B.key, store.OK, 2.0, 5.0),
                                         (C.key, store.FAILED, None, 1.0))
    ])  # fmt: skip
    costs = Costs(tmp_path, training=100, evaluation=10)
    assert [costs.per_image(m) for m in (A, B, C)] == [0.25, 0.5, np.median([0.25, 0.5])]
    # forward and backward of the student, the frozen student, the teacher; evaluated twice
    wanted = FIXED + (3 * 0.5 + 0.5 + 0.25) * 2 * 100 + 2 * 0.5 * 10
    assert seconds(costs, transfer(A, B)) == pytest.approx(wanted)
    assert spent(tmp_path) == 9.0
    store.write(tmp_path, "transfer", [
        {"run_id": "t", "teacher_key": A.key, "student_key": B.key, "epochs": 2, "status": store.OK,
         "seconds": 3 * wanted},
    ])  # fmt: skip
    corrected = Costs(tmp_path, training=100, evaluation=10)
    assert seconds(corrected, transfer(A, B)) == pytest.approx(3 * wanted)
    assert seconds(corrected, transfer(B, A)) == pytest.approx(3 * seconds(costs, transfer(B, A)))


def test_drift_is_one_more_training_of_a_student_whoever_teaches_it(tmp_path: Path) -> None:
    spec = replace(TransferSpec(method="kl", epochs=2), subtract_drift=True)
    settings = [spec, replace(spec, method="kl-dp"), replace(spec, seed=1)]
    runs = [Run("transfer", (t, s), "train", each, DATA) for t, s in ((A, B), (C, B), (B, A))
            for each in settings]  # fmt: skip
    costs = Costs(tmp_path, training=100, evaluation=10)
    without = costs.seconds([replace(r, settings=replace(r.settings, subtract_drift=False))
                             for r in runs])  # fmt: skip
    more = np.subtract(costs.seconds(runs), without)
    # forward and backward, and the frozen student; evaluated twice. Another seed is another one.
    drifts = [FIXED + (4 * 2 * 100 + 2 * 10) * costs.per_image(m) for m in (B, A)]
    wanted = [drifts[0], 0, drifts[0], 0, 0, 0, drifts[1], 0, drifts[1]]
    np.testing.assert_allclose(more, wanted, atol=1e-9)
    # A row that may have it in it says nothing of what a transfer takes; the next one does.
    took = dict(zip((A, C), (7.0, 5.0), strict=True))
    store.write(tmp_path, "transfer", [
        {"run_id": t.key, **pair_columns([t, B]), "epochs": 2, "status": store.OK,
         "seconds": took[t] * seconds(costs, transfer(t, B)), "subtract_drift": True,
         "created": str(i)}
        for i, t in enumerate((A, C))
    ])  # fmt: skip
    corrected = Costs(tmp_path, training=100, evaluation=10)
    assert seconds(corrected, transfer(A, B)) == pytest.approx(5 * seconds(costs, transfer(A, B)))


def test_rows_of_teams_correct_too(tmp_path: Path) -> None:
    before = seconds(Costs(tmp_path, training=100, evaluation=10), transfer(B, C, A))
    store.write(tmp_path, "transfer", [
        {"run_id": "t", **pair_columns([B, C, A]), "epochs": 2, "status": store.OK,
         "seconds": 5 * before},
    ])  # fmt: skip
    after = seconds(Costs(tmp_path, training=100, evaluation=10), transfer(B, C, A))
    assert after == pytest.approx(5 * before)


def test_models_that_were_measured_together_share_their_speed(tmp_path: Path) -> None:
    """A chunk's predictions have one speed: the dear models took more of it."""
    store.write(tmp_path, "models", [
        {"run_id": m.key, "model_key": m.key, "status": store.OK, "samples_per_s": 4.0,
         "measured_with": with_.key} for m, with_ in ((A, A), (B, A), (C, C))
    ])  # fmt: skip
    costs = Costs(tmp_path, training=100, evaluation=10)
    macs = [found.gmacs or 0 for m in (A, B) if (found := imagenet_facts.fact(m.key))]
    assert costs.per_image(A) + costs.per_image(B) == pytest.approx(2 / 4.0)
    assert costs.per_image(A) / costs.per_image(B) == pytest.approx(macs[0] / macs[1])
    assert costs.per_image(C) == pytest.approx(1 / 4.0)  # as fast by chance, but alone


def test_predictions_together_take_their_time_once(tmp_path: Path) -> None:
    names = ["random:test_vit", "random:test_resnet", "random:test_convnext"]
    runs = [Run("predict", (m,), "eval", EvalSpec(), DataSpec("digits", limit=20))
            for m in resolve(names)]  # fmt: skip
    began = time.perf_counter()
    rows = [row for found in predict_runs(runs, tmp_path) if isinstance(found, list)
            for row in found]  # fmt: skip
    took = time.perf_counter() - began
    assert len({row["seconds"] for row in rows}) == 1
    assert {row["measured_with"] for row in rows} == {runs[0].id}
    assert 0 < sum(row["seconds"] for row in rows) <= took
    again = [row for found in predict_runs(runs, tmp_path) if isinstance(found, list)
             for row in found]  # fmt: skip
    assert [row["seconds"] for row in again] == [0.0] * 3  # from the cache
    assert {row["measured_with"] for row in again} == {None}


def test_the_pairs_drawn_first_fit_first_and_whole() -> None:
    runs = [transfer(t, s, method=m) for s in (A, B, C) for t in (A, B, C) if t is not s
            for m in ("kl", "kl-dp")]  # fmt: skip
    ranks = {(t.key, s.key): rank for rank, (t, s) in enumerate(
        [(C, A), (A, B), (B, C), (A, C), (B, A), (C, B)])}  # fmt: skip
    for budget, pairs in ((1.9, 0), (2.0, 1), (5.0, 2), (100.0, 6)):
        found = fitting(runs, [1.0] * len(runs), ranks, budget)
        assert found == [r for r in runs if ranks[r.models[0].key, r.models[1].key] < pairs]
