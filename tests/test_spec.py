from __future__ import annotations

from dataclasses import replace

import pytest

from kt_cli.spec import (
    DataSpec,
    EvalSpec,
    Model,
    PairsSpec,
    PretrainSpec,
    Run,
    TransferSpec,
    pair_id,
)

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
        assert Run.from_json(run.to_json()) == run
        assert Run.from_json(run.to_json()).id == run.id


def test_settings_leave_out_method_and_seed_only() -> None:
    spec = TransferSpec()
    assert replace(spec, method="kl", seed=7).settings == spec.settings
    assert replace(spec, lr=1.0).settings != spec.settings


def test_pair_ids_are_those_of_ordered_pairs() -> None:
    run = Run("pairs", (TEACHER, STUDENT), "eval", PairsSpec(by_class=True))
    assert run.row_ids() == [
        pair_id(TEACHER, STUDENT, "eval", PairsSpec()),
        pair_id(STUDENT, TEACHER, "eval", PairsSpec(embedding="clip")),
    ]
    assert len(set(run.row_ids())) == 2
