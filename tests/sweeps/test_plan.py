from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
from timm.data import resolve_data_config

from kt_cli.data.sources import open_data
from kt_cli.rows import store
from kt_cli.rows.schema import TABLES
from kt_cli.runs.kinds import kind_of
from kt_cli.settings import DataSpec, PretrainSpec, SweepSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps.draw import ranked_pairs
from kt_cli.sweeps.images import Images
from kt_cli.sweeps.plan import MAX_ATTEMPTS, STAGES, Planner, Stage, unmeasured
from kt_cli.zoo.names import resolve
from kt_cli.zoo.save import save

IMAGES = Images("eval", "train", "train+guard", training=100, classes=10)
KEYS = [f"model{i}" for i in range(300)]
MODELS = [Model(f"key{i}", f"ref{i}", f"model{i}") for i in range(4)]
SPEC = SweepSpec(
    "x", ("whatever",), DataSpec("digits"), methods=("kl", "kl-dp"), seeds=(0, 1), pairs=3
)


def planner(
    folder: Path, spec: SweepSpec = SPEC, models: list[Model] = MODELS, retry: bool = False
) -> Planner:
    zoo_ids = ["train"] * len(spec.zoo)
    return Planner(spec, folder, models, IMAGES, zoo_ids, retry_failed=retry)


def stages_of(plan: Planner) -> list[Stage]:
    return [plan.stage(name) for name in STAGES]


def finish(folder: Path, run: Run, status: str = store.OK, **columns: object) -> None:
    rows = [
        {"run_id": i, "status": status, "attempt": run.attempt, "created": "1", **columns}
        for i in (kind_of(run).row_ids(run) if status == store.OK else [run.id])
    ]
    store.write(folder, kind_of(run).table, rows)


def predict_all(folder: Path, **failing: object) -> None:
    for i, run in enumerate(planner(folder).stage("predict").todo or ()):
        finish(folder, run, accuracy=90.0 + i)


def test_stages_open_one_after_the_other(tmp_path: Path) -> None:
    stages = {s.name: s for s in stages_of(planner(tmp_path))}
    assert [s.total for s in stages.values()] == [0, 4, 12, 3 * 2 * 2]
    assert stages["pretrain"].finished
    assert len(stages["predict"].todo or ()) == 4
    assert stages["pairs"].todo is None and stages["transfer"].todo is None
    predict_all(tmp_path)
    stages = {s.name: s for s in stages_of(planner(tmp_path))}
    assert stages["predict"].finished
    assert len(stages["pairs"].todo or ()) == 1 and len(stages["transfer"].todo or ()) == 12


def test_finished_runs_are_subtracted(tmp_path: Path) -> None:
    predict_all(tmp_path)
    plan = planner(tmp_path)
    (pairs,) = plan.stage("pairs").todo or ()
    first, *others = plan.stage("transfer").todo or ()
    finish(tmp_path, pairs, class_embedding="head:a", by_class=False)
    finish(tmp_path, first)
    assert plan.stage("pairs").finished and plan.stage("pairs").done == 12
    assert [r.id for r in plan.stage("transfer").todo or ()] == [r.id for r in others]
    assert plan.stage("transfer").done == 1


def test_pairs_are_done_again_for_what_their_rows_lack(tmp_path: Path) -> None:
    predict_all(tmp_path)
    (pairs,) = planner(tmp_path).stage("pairs").todo or ()
    finish(tmp_path, pairs, class_embedding="head:a", by_class=False)
    assert planner(tmp_path, replace(SPEC, class_embedding="head")).stage("pairs").finished
    for changed in ({"class_embedding": "clip"}, {"flips_by_class": True}):
        stage = planner(tmp_path, replace(SPEC, **changed)).stage("pairs")
        assert stage.done == 0 and len(stage.todo or ()) == 1


def test_random_teachers_are_measured_and_never_transferred(tmp_path: Path) -> None:
    models = [Model(f"{a}.x", f"{a}.x", a) for a in ("resnet18", "resnet34", "resnet50")]
    spec = replace(SPEC, baseline="random", pairs="all")
    for i, run in enumerate(planner(tmp_path, spec, models).stage("predict").todo or ()):
        finish(tmp_path, run, accuracy=80.0 + i)
    (pairs,) = planner(tmp_path, spec, models).stage("pairs").todo or ()
    assert [m.untrained for m in pairs.models] == [False] * 3 + [True] * 3
    assert len(kind_of(pairs).row_ids(pairs)) == 3 * 2 + 3 * 3
    transfers = planner(tmp_path, spec, models).stage("transfer").todo or ()
    assert len(transfers) == 6 * len(SPEC.methods) * len(SPEC.seeds)
    assert not any(m.untrained for run in transfers for m in run.models)


def test_other_settings_are_other_runs(tmp_path: Path) -> None:
    predict_all(tmp_path)
    for run in planner(tmp_path).stage("transfer").todo or ():
        finish(tmp_path, run)
    assert planner(tmp_path).stage("transfer").finished
    changed = replace(SPEC, transfer=replace(SPEC.transfer, lr=1.0))
    assert planner(tmp_path, changed).stage("transfer").done == 0


def test_a_part_that_is_damaged_in_one_column_is_done_again(tmp_path: Path) -> None:
    """A column that the plan does not look at; who reads others sees the same rows."""
    predict_all(tmp_path)
    part = store.list_parts(tmp_path / "models")[1]
    lost = store.read([tmp_path], "models")["run_id"][1]
    page = pq.read_metadata(part).row_group(0).column(list(TABLES["models"]).index("accuracy"))
    content = bytearray(part.read_bytes())
    content[page.data_page_offset + page.total_compressed_size - 2] ^= 4
    part.write_bytes(content)
    skipped: set[Path] = set()
    plan = replace(planner(tmp_path), on_skip=lambda path, why: skipped.add(path))
    (again,) = plan.stage("predict").todo or ()
    assert (again.id, again.attempt) == (lost, 1) and skipped == {part}
    assert lost not in list(store.read([tmp_path], "models", ["run_id"])["run_id"])
    finish(tmp_path, again, accuracy=91.0)
    assert plan.stage("predict").finished and part.exists()


def test_failed_runs_are_tried_again_three_times(tmp_path: Path) -> None:
    for attempt in range(1, MAX_ATTEMPTS + 1):
        run = (planner(tmp_path).stage("predict").todo or ())[0]
        assert run.attempt == attempt
        finish(tmp_path, run, store.FAILED, error="broken")
    stage = planner(tmp_path).stage("predict")
    assert stage.given_up == 1 and len(stage.todo or ()) == 3
    assert len(planner(tmp_path, retry=True).stage("predict").todo or ()) == 4


def test_a_model_that_fails_costs_its_own_pairs_only(tmp_path: Path) -> None:
    """No others are drawn in their place, and none when it can be had at last."""
    models = [Model(key, key, key) for key in KEYS[:7]]
    spec = replace(SPEC, pairs=20, together=("soup",), team=2)
    bad, *good = planner(tmp_path, spec, models).stage("predict").todo or ()
    for i, run in enumerate(good):
        finish(tmp_path, run, accuracy=90.0 + i**2)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        # As long as it may still succeed, nothing is drawn.
        assert planner(tmp_path, spec, models).stage("transfer").todo is None
        finish(tmp_path, replace(bad, attempt=attempt), store.FAILED, created=str(attempt))
    assert planner(tmp_path, spec, models).stage("pairs").total == 6 * 5
    stage = planner(tmp_path, spec, models).stage("transfer")
    assert stage.missing == (models[0].name,) and models[0].name in stage.without
    assert stage.total == (20 + 7) * len(spec.transfers())
    assert stage.todo and all(models[0] not in run.models for run in stage.todo)
    assert len(stage.todo) + stage.given_up == stage.total
    finish(tmp_path, replace(bad, attempt=MAX_ATTEMPTS + 1), accuracy=20.0)
    later = planner(tmp_path, spec, models).stage("transfer")
    assert later.total == stage.total == len(later.todo or ()) and later.missing == ()
    assert {run.id for run in stage.todo} < {run.id for run in later.todo or ()}


def test_a_model_of_the_zoo_that_is_never_trained_costs_its_own_pairs_only(tmp_path: Path) -> None:
    spec = replace(SPEC, pairs=12, zoo=(PretrainSpec("late", "test_vit"),))
    models = resolve(["resnet18", "resnet34", "resnet50"])
    (training,) = planner(tmp_path, spec, models).stage("pretrain").todo or ()
    finish(tmp_path, replace(training, attempt=2), store.FAILED)
    assert planner(tmp_path, spec, models).models() is None
    finish(tmp_path, replace(training, attempt=MAX_ATTEMPTS), store.FAILED)
    for i, run in enumerate(planner(tmp_path, spec, models).stage("predict").todo or ()):
        finish(tmp_path, run, accuracy=90.0 + i)
    before = planner(tmp_path, spec, models).stage("transfer")
    assert before.missing == ("late",) and before.given_up > 0
    model, extra = timm.create_model("test_vit", num_classes=10), {"run_id": training.id}
    config = resolve_data_config(model=model)
    save(model, tmp_path / "zoo" / "late", data_config=config, num_classes=10, label_names=None,
         card="", extra=extra)  # fmt: skip
    finish(tmp_path, replace(training, attempt=MAX_ATTEMPTS + 1))
    (last,) = planner(tmp_path, spec, models).stage("predict").todo or ()
    finish(tmp_path, last, accuracy=10.0)
    after = planner(tmp_path, spec, models).stage("transfer")
    assert after.total == before.total == len(after.todo or ())
    assert {run.id for run in before.todo or ()} < {run.id for run in after.todo or ()}


def test_models_of_a_zoo_exist_once_they_are_trained(tmp_path: Path) -> None:
    spec = replace(SPEC, zoo=(PretrainSpec("a", "test_vit"), PretrainSpec("b", "test_vit")))
    stages = {s.name: s for s in stages_of(planner(tmp_path, spec))}
    assert [s.total for s in stages.values()] == [2, 6, 30, 12]
    first, second = stages["pretrain"].todo or ()
    assert first.out == "zoo/a" and stages["predict"].todo is None
    finish(tmp_path, first)  # a row, but its model is gone: train it again
    assert len(planner(tmp_path, spec).stage("pretrain").todo or ()) == 2
    finish(tmp_path, second, store.FAILED)
    assert planner(tmp_path, spec).models() is None


def test_a_zoo_is_trained_on_all_images_whatever_transfers_see(tmp_path: Path) -> None:
    entries = PretrainSpec("a", "test_vit"), PretrainSpec("b", "test_vit", fraction=0.5)
    data = DataSpec("digits", fraction=0.1)
    spec = replace(SPEC, data=data, zoo=entries, models=())
    whole, half = planner(tmp_path, spec, []).stage("pretrain").todo or ()
    every = len(open_data(DataSpec("digits"), training=True).training())
    assert len(open_data(data, training=True).training()) < every / 8
    for run, wanted in ((whole, every), (half, every / 2)):
        _, (images,) = kind_of(run).images(run)
        assert abs(len(images) - wanted) <= 10  # stratified by class


def test_only_students_are_counted_before_the_zoo_is_trained(tmp_path: Path) -> None:
    zoo = tuple(PretrainSpec(name, "test_vit") for name in ("weak_a", "weak_b", "c", "d"))
    spec = replace(
        SPEC, zoo=zoo, students=("weak_*",), pairs="auto", together=("soup",), team=2,
        methods=("kl", "kl-dp", "xekl"), seeds=(0, 1, 2),
    )  # fmt: skip
    totals = [stage.total for stage in stages_of(planner(tmp_path, spec, []))]
    assert totals == [4, 4, 12, 2 * 3 * 9 + 2 * 9]
    assert totals == [stage.total for stage in unmeasured(spec, [entry.name for entry in zoo])]


def test_a_plan_without_data() -> None:
    stages = unmeasured(replace(SPEC, pairs="auto"), KEYS)
    assert [s.total for s in stages] == [0, 300, 89_700, 400 * 4]


def test_transfers_are_grouped_by_student(tmp_path: Path) -> None:
    predict_all(tmp_path)
    spec = replace(SPEC, pairs="all")
    students = [run.models[-1].key for run in planner(tmp_path, spec).stage("transfer").todo or ()]
    changes = sum(a != b for a, b in itertools.pairwise(students))
    assert changes == 3


def test_students_are_kept_on_request(tmp_path: Path) -> None:
    predict_all(tmp_path)
    runs = planner(tmp_path, replace(SPEC, save_students=True)).stage("transfer").todo or ()
    assert {run.out for run in runs} == {f"students/{run.id}" for run in runs}
    assert not any(run.out for run in planner(tmp_path).stage("transfer").todo or ())


def test_the_drawn_pairs_are_told_once_they_are_known(tmp_path: Path) -> None:
    assert planner(tmp_path).drawn() == []
    predict_all(tmp_path)
    runs = planner(tmp_path).stage("transfer").todo or ()
    drawn = planner(tmp_path).drawn()
    assert len(drawn) == 3 and {*drawn} == {(r.models[0].key, r.models[-1].key) for r in runs}


def test_only_named_students_are_taught(tmp_path: Path) -> None:
    predict_all(tmp_path)
    spec = replace(SPEC, pairs="all", students=("model[12]",))
    stage = planner(tmp_path, spec).stage("transfer")
    pairs = {(run.models[0].name, run.models[-1].name) for run in stage.todo or ()}
    names = [m.name for m in MODELS]
    assert pairs == {(t, s) for s in ("model1", "model2") for t in names if t != s}


ROLES = {
    "teachers": ({"teachers": ("model[01]",)}, "01", "0123"),
    "apart": ({"teachers": ("model[01]",), "students": ("model[23]",)}, "01", "23"),
    "overlap": ({"teachers": ("model0", "model[12]"), "students": ("model[23]",)}, "012", "23"),
    "one": ({"teachers": ("model1",)}, "1", "0123"),
}


@pytest.mark.parametrize("together", [(), ("soup", "parallel")])
@pytest.mark.parametrize("name", ROLES)
def test_as_many_run_between_those_that_teach_and_are_taught_as_the_plan_counts(
    tmp_path: Path, name: str, together: tuple[str, ...]
) -> None:
    said, teachers, students = ROLES[name]
    spec = replace(SPEC, pairs="all", together=together, team=2, **said)
    before = planner(tmp_path, spec).stage("transfer")
    predict_all(tmp_path)
    stage = planner(tmp_path, spec).stage("transfer")
    runs = stage.todo or ()
    assert before.total == stage.total == len(runs) and before.todo is None
    alone = {tuple(m.name[-1] for m in run.models) for run in runs if len(run.models) == 2}
    assert alone == {(t, s) for t in teachers for s in students if t != s}
    teams = [[m.name[-1] for m in run.models] for run in runs if len(run.models) == 3]
    assert all({*team[:-1]} <= {*teachers} - {team[-1]} for team in teams)
    led = {s for s in students if len({*teachers} - {s}) >= 2} if together else set()
    assert {team[-1] for team in teams} == led and len(teams) == len(led) * 3 * 2


def test_which_pairs_of_teachers_are_drawn_is_one_list_of_any_length(tmp_path: Path) -> None:
    predict_all(tmp_path)
    spec = replace(SPEC, teachers=("model[12]",))
    counts = (2, 5, 6)
    found = [planner(tmp_path, replace(spec, pairs=n)).stage("transfer").todo or () for n in counts]
    ids = [{run.id for run in runs} for runs in found]
    assert [len(some) for some in ids] == [4 * n for n in counts] and ids[0] < ids[1] < ids[2]


def test_each_student_has_a_team_of_its_drawn_teachers(tmp_path: Path) -> None:
    predict_all(tmp_path)
    spec = replace(SPEC, pairs=6, methods=("kl", "kl-dp"), together=("parallel", "soup"), team=2)
    runs = planner(tmp_path, spec).stage("transfer").todo or ()
    alone = [run for run in runs if len(run.models) == 2]
    teams = [run for run in runs if len(run.models) == 3]
    assert len(alone) == 6 * 2 * 2 and {run.settings.together for run in alone} == {"single"}
    for team in teams:
        *teachers, student = team.models
        drawn = {run.models[0] for run in alone if run.models[-1] is student}
        assert student not in teachers and len(set(teachers)) == 2
        assert len(drawn & set(teachers)) == min(2, len(drawn))
    ways = {(run.settings.method, run.settings.together) for run in teams}
    assert ways == {("kl", "soup"), ("kl-dp", "soup"), ("kl-dp", "parallel")}
    students = [run.models[-1].name for run in runs]
    assert sum(a != b for a, b in itertools.pairwise(students)) == len(set(students)) - 1
    assert len(teams) == len(set(students)) * 3 * 2
    with_four = replace(spec, team=4)  # there are only three others
    assert all(
        len(r.models) == 2 for r in planner(tmp_path, with_four).stage("transfer").todo or ()
    )


def test_guarded_runs_are_of_other_data(tmp_path: Path) -> None:
    predict_all(tmp_path)
    runs = planner(tmp_path, replace(SPEC, methods=("kl", "kl+guard"))).stage("transfer").todo or ()
    assert {(run.settings.method, run.data_id) for run in runs} == {
        ("kl", "train"), ("kl+guard", "train+guard"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("images", "augment", "budget", "kind", "why"),
    [
        (100, "none", 1, "memory", "fit in memory"),
        (100, "paper", 1, "memory", "fit in memory"),
        (10**6, "none", 100, "disk", "half precision"),
        (10**6, "none", 1, "topk", "exceed the budget"),
        (10**8, "none", 1, "online", "exceed the budget"),
    ],
)
def test_where_targets_are_kept(
    tmp_path: Path, images: int, augment: str, budget: int, kind: str, why: str
) -> None:
    predict_all(tmp_path)
    spec = replace(
        SPEC, methods=("kl-dp", "flip-avg"), target_budget=budget,
        transfer=replace(SPEC.transfer, augment=augment),
    )  # fmt: skip
    about = replace(IMAGES, training=images, classes=1000)
    stage = Planner(spec, tmp_path, MODELS, about).stage("transfer")
    assert why in stage.note
    for run in stage.todo or ():
        settings = run.settings
        if kind != "topk":
            assert (settings.keep_targets, settings.target_topk) == (kind, 0)
        elif settings.method == "flip-avg":  # a mean of logits needs all of them
            assert (settings.keep_targets, settings.target_topk) == ("online", 0)
        else:
            assert settings.keep_targets == "disk" and 10 <= settings.target_topk < 1000


def test_one_use_is_not_worth_keeping(tmp_path: Path) -> None:
    predict_all(tmp_path)
    spec = replace(SPEC, methods=("kl",), seeds=(0,), pairs=1)
    assert "computed as they are needed" in planner(tmp_path, spec).stage("transfer").note


def drawn(accuracies: np.ndarray, keys: list[str], count: int, seed: int) -> list[tuple[int, int]]:
    return ranked_pairs(accuracies, keys, seed, *[range(len(keys))] * 2)[:count]


def test_drawn_pairs_are_ordered_pairs_once_each() -> None:
    accuracies = np.random.default_rng(0).normal(80, 4, 300)
    every = drawn(accuracies, KEYS, 100_000, seed=0)
    assert len(every) == len(set(every)) == 89_700
    assert all(t != s for t, s in every)
    assert every == drawn(accuracies, KEYS, 100_000, seed=0)


def test_fewer_pairs_are_a_part_of_more(tmp_path: Path) -> None:
    predict_all(tmp_path)
    ids = [
        {run.id for run in planner(tmp_path, replace(SPEC, pairs=n)).stage("transfer").todo or ()}
        for n in (0, 3, 6, 100)
    ]
    assert [len(some) for some in ids] == [0, 12, 24, 48]
    assert all(fewer <= more for fewer, more in itertools.pairwise(ids))


def test_pairs_are_drawn_evenly_over_the_accuracy_difference() -> None:
    accuracies = np.random.default_rng(0).normal(80, 3, 300)
    pairs = np.array(drawn(accuracies, KEYS, 400, seed=1))
    difference = accuracies[pairs[:, 0]] - accuracies[pairs[:, 1]]
    everything = (accuracies[:, None] - accuracies[None])[~np.eye(300, dtype=bool)]
    edges = np.linspace(everything.min(), everything.max(), 21)
    available = np.histogram(everything, edges)[0]
    taken = np.histogram(difference, edges)[0]
    full = available >= 25
    # Bins that have enough give the same number, to within one; the others give all they have.
    assert np.ptp(taken[full]) <= 1
    assert (taken[~full] >= np.minimum(available[~full], taken[full].min())).all()
    assert drawn(accuracies, KEYS, 400, seed=2) != drawn(accuracies, KEYS, 400, seed=1)


def test_equal_accuracies_can_be_drawn_too() -> None:
    assert len(drawn(np.full(5, 90.0), KEYS[:5], 20, seed=0)) == 20


def test_what_is_drawn_does_not_depend_on_the_order_of_the_models() -> None:
    accuracies = np.random.default_rng(0).normal(80, 3, 30)
    order = np.random.default_rng(1).permutation(30)
    one = {(KEYS[t], KEYS[s]) for t, s in drawn(accuracies, KEYS[:30], 50, 0)}
    shuffled = [KEYS[i] for i in order]
    other = {(shuffled[t], shuffled[s]) for t, s in drawn(accuracies[order], shuffled, 50, 0)}
    assert one == other
