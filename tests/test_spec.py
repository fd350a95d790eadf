from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kt_cli.runs.kinds import from_json
from kt_cli.runs.pairs import row_ids
from kt_cli.settings import DataSpec, EvalSpec, PairsSpec, PretrainSpec, TransferSpec
from kt_cli.spec import Model, Run, pair_id

TEACHER = Model("resnet50.a1_in1k", "resnet50.a1_in1k", "resnet50")
STUDENT = Model("local:0123", "local-dir:/zoo/vit", "vit")
RUN = Run("transfer", (TEACHER, STUDENT), "train+eval", TransferSpec())


def test_identity_ignores_where_things_are_and_how_they_are_called() -> None:
    moved = replace(STUDENT, ref="local-dir:/elsewhere/vit", name="another name")
    same = replace(
        RUN, models=(TEACHER, moved), data=DataSpec("/mnt/data"), out="students/x", attempt=3
    )
    assert same.id == RUN.id


@pytest.mark.parametrize(
    "other",
    [
        replace(RUN, models=(STUDENT, TEACHER)),
        replace(RUN, models=(TEACHER, replace(STUDENT, key="local:4567"))),
        replace(RUN, data_id="train+other"),
        *(
            replace(RUN, settings=replace(TransferSpec(), **{name: value}))
            for name, value in {
                "method": "kl",
                "seed": 1,
                "epochs": 21,
                "lr": 2e-4,
                "batch_size": 128,
                "micro_batch": 32,
                "momentum": 0.8,
                "weight_decay": 0.0,
                "temperature": 2.0,
                "kd_lambda": 0.4,
                "augment": "none",
                "crop": 0.9,
                "side": 128,
                "eval_size": "train",
            }.items()
        ),
    ],
)
def test_identity_changes_with_everything_that_can_change_the_result(other: Run) -> None:
    assert other.id != RUN.id


def test_a_run_survives_json() -> None:
    for run in (
        replace(RUN, data=DataSpec("digits", guard=0.1, limit=5), out="students/x", attempt=2),
        Run("predict", (STUDENT,), "eval", EvalSpec("train")),
        Run("pretrain", (), "train", PretrainSpec("vit", "test_vit", img_size=32)),
    ):
        assert from_json(run.to_json()) == run
        assert from_json(run.to_json()).id == run.id


def test_settings_leave_out_method_and_seed_only() -> None:
    spec = TransferSpec()
    assert replace(spec, method="kl", seed=7).settings == spec.settings
    assert replace(spec, lr=1.0).settings != spec.settings


def test_pair_ids_are_those_of_ordered_pairs() -> None:
    run = Run("pairs", (TEACHER, STUDENT), "eval", PairsSpec(by_class=True))
    assert row_ids(run) == [
        pair_id(TEACHER, STUDENT, "eval", PairsSpec()),
        pair_id(STUDENT, TEACHER, "eval", PairsSpec(embedding="clip")),
    ]
    assert len(set(row_ids(run))) == 2


SAID_TWICE = [
    ("kl", {"lr": 1e-4}),
    ("kl", {"kd_lambda": 0.5, "kd_topk": 0, "distil_on": "all", "mcl_every": 2}),
    ("kl-mcl", {"lr": 0.01, "distil_on": "not-negative"}),
    ("xekl-mcl", {"kd_lambda": 0.68}),
    ("kl-dp", {"batch_size": 32, "mcl_every": 16}),
    ("kl-mcl", {"reference_compat": True, "kd_topk": 100}),
    ("kl-dp", {"batch_size": 16, "micro_batch": 16}),
]


@pytest.mark.parametrize(("method", "said"), SAID_TWICE)
def test_what_is_published_may_be_said_or_left_out(method: str, said: dict[str, Any]) -> None:
    """`said` are the values that count anyhow, but for those that change what is published."""
    kept = {k: said[k] for k in ("batch_size", "reference_compat") if k in said}
    short, full = TransferSpec(method, **kept), TransferSpec(method, **said)
    assert short.settings == full.settings == short.with_defaults.settings
    assert replace(RUN, settings=short).id == replace(RUN, settings=full).id


def test_methods_compare_as_their_authors_ran_them() -> None:
    every = [TransferSpec(m) for m in ("kl", "kl-dp", "kl-mcl", "xekl-mcl", "kl-mcl+guard")]
    assert len({spec.with_defaults.lr for spec in every}) > 1
    assert (
        len({spec.settings for spec in every} | {spec.with_defaults.settings for spec in every})
        == 1
    )


@pytest.mark.parametrize(
    ("method", "other"),
    [("kl", {"lr": 0.01}), ("kl-mcl", {"lr": 1e-4}), ("xekl", {"kd_lambda": 0.68}),
     ("kl", {"kd_topk": 100}), ("kl", {"distil_on": "not-negative"}), ("kl-mcl", {"mcl_every": 3}),
     ("kl", {"micro_batch": 32}), ("kl", {"target_topk": 12}), ("kl", {"reference_compat": True})],
)  # fmt: skip
def test_what_another_method_publishes_is_another_setting(
    method: str, other: dict[str, Any]
) -> None:
    spec = TransferSpec(method)
    assert replace(spec, **other).settings != spec.settings
    assert replace(RUN, settings=replace(spec, **other)).id != replace(RUN, settings=spec).id


def test_one_learning_rate_for_all_methods_parts_those_that_publish_it() -> None:
    given = {m: TransferSpec(m, lr=1e-3).settings for m in ("kl", "kl-dp", "kl-mcl")}
    assert given["kl"] == given["kl-dp"]
    # "not-negative" is published for kl-mcl, so it still compares.
    assert given["kl-mcl"] == given["kl"]
    published = {m: TransferSpec(m, lr=1e-4).settings for m in ("kl", "kl-dp", "kl-mcl")}
    assert published["kl"] == published["kl-dp"] != published["kl-mcl"]
