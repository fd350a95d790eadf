"""What is left of a sweep: rows of what it plans, and what was given up."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kt_cli.rows import store
from kt_cli.settings import DataSpec, SweepSpec, TransferSpec
from kt_cli.sweeps import remaining

KEYS = ["a", "b", "c"]
OLD = SweepSpec(
    "x", ("whatever",), DataSpec("digits"), methods=("kl", "kl-dp"), transfer=TransferSpec(lr=0.1)
)
NEW = replace(OLD, transfer=TransferSpec(lr=0.2))


def write(folder: Path, spec: SweepSpec, count: int, status: str = store.OK) -> None:
    rows: list[dict[str, Any]] = [
        {"run_id": f"{one.settings} {one.method} {i} {status}", "status": status, "attempt": 1,
         "created": "1", "method": one.method, "seed": one.seed, "settings": one.settings,
         "teacher_key": "a", "student_key": KEYS[i % 3], "seconds": 10.0, "eval_data": "e",
         "eval_size": "test", "eval_amp": "", "train_data": "t"}
        for one in spec.transfers() for i in range(count)
    ]  # fmt: skip
    store.write(folder, "transfer", rows)


def plan(
    folder: Path, spec: SweepSpec, total: int, images: tuple[str, str] = ("e", "t"), **given_up: int
) -> list[remaining.Part]:
    rows = remaining.rows_of(spec, *images)
    text = remaining.plan(2, {"transfer": (total, 5.0)}, (), 0.0, given_up, rows, {})
    (folder / remaining.PLAN).write_text(text)
    (folder / remaining.MODELS).write_text(json.dumps(KEYS))
    return remaining.parts(folder, planned(folder))


def planned(folder: Path) -> Callable[[str], store.Outcomes]:
    return lambda table: store.Outcomes(
        folder, table, of=remaining.planned_rows(folder).get(table, {})
    )


def test_rows_of_other_settings_models_and_seeds_are_not_what_is_planned(tmp_path: Path) -> None:
    write(tmp_path, OLD, 6)
    (old,) = plan(tmp_path, OLD, 12)
    assert (old.done, old.total, old.seconds) == (12, 12, 0)
    write(tmp_path, NEW, 2)
    write(tmp_path, NEW, 1, store.FAILED)
    (new,) = plan(tmp_path, NEW, 12)
    assert (new.done, new.failed, new.seconds) == (4, 2, 8 * 10 / 2)
    assert remaining.taken(planned(tmp_path)) == 4 * 10
    (seeds,) = plan(tmp_path, replace(NEW, seeds=(7,)), 12)
    assert (seeds.done, seeds.seconds) == (0, 12 * 5 / 2)
    (one,) = plan(tmp_path, replace(NEW, methods=("kl",)), 2)
    assert one.done == 2
    plan(tmp_path, NEW, 4)
    (tmp_path / remaining.MODELS).write_text(json.dumps(["a", "z"]))
    assert remaining.parts(tmp_path, planned(tmp_path))[0].done == 2


def test_what_took_longer_makes_the_rest_longer(tmp_path: Path) -> None:
    def left(predicted: int, **done: tuple[int, float]) -> list[float]:
        stages = {"predict": (4, 1.0), "transfer": (6, 5.0)}
        text = remaining.plan(1, stages, (), 0.0, {}, {}, done)
        (tmp_path / remaining.PLAN).write_text(text)
        names = [f"{i}" for i in range(predicted)]
        store.write(tmp_path, "models", [
            {"run_id": i, "status": store.OK, "created": "1", "seconds": 3.0} for i in names
        ])  # fmt: skip
        return [part.seconds for part in remaining.parts(tmp_path, planned(tmp_path))]

    assert left(0) == [4.0, 30.0]
    assert left(3) == [3.0, 30.0]  # which may have been the dearest
    assert left(4) == [0.0, 90.0]
    # Planned again when three were done: the last took 3 seconds for 1.
    assert left(4, predict=(3, 9.0)) == [0.0, 90.0]
    assert left(4, predict=(3, 11.5)) == [0.0, 15.0]
    assert left(4, predict=(4, 12.0)) == [0.0, 30.0]  # by measured costs then


def test_a_row_that_is_there_twice_took_its_time_once(tmp_path: Path) -> None:
    """As where a folder of another machine was copied over this one."""
    for _ in range(2):
        write(tmp_path, NEW, 2)
    plan(tmp_path, NEW, 6)
    assert planned(tmp_path)("transfer").counts == (4, 0)
    assert remaining.taken(planned(tmp_path)) == 4 * 10


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    plan(tmp_path, NEW, 6)
    assert remaining.damaged(tmp_path) == []
    (tmp_path / remaining.PLAN).write_text("{")
    (tmp_path / remaining.MODELS).unlink()
    assert remaining.damaged(tmp_path) == [str(tmp_path / remaining.PLAN)]


def test_what_was_given_up_is_not_left(tmp_path: Path) -> None:
    write(tmp_path, NEW, 2)
    (part,) = plan(tmp_path, NEW, 10, transfer=5)
    assert (part.done, part.given_up, part.seconds) == (4, 5, 1 * 10 / 2)


def test_a_micro_batch_that_was_halved_is_still_what_is_planned() -> None:
    halving = replace(NEW, transfer=TransferSpec(lr=0.2, retry_oom=True))
    assert "settings" in remaining.rows_of(NEW, "e")["transfer"]
    assert "settings" not in remaining.rows_of(halving, "e")["transfer"]


def test_rows_of_other_images_are_not_what_is_planned(tmp_path: Path) -> None:
    write(tmp_path, NEW, 3)
    others = replace(NEW, transfer=replace(NEW.transfer, eval_size="train"))
    for spec, images, wanted in ((NEW, ("e", "t"), 6), (NEW, ("other", "t"), 0),
                                 (NEW, ("e", "other"), 0), (others, ("e", "t"), 0)):  # fmt: skip
        assert plan(tmp_path, spec, 6, images)[0].done == wanted
    store.write(tmp_path, "models", [
        {"run_id": name, "status": store.OK, "created": "1", "model_key": "a", "eval_data": name,
         "eval_size": "test", "eval_amp": ""} for name in ("e", "f")
    ])  # fmt: skip
    plan(tmp_path, NEW, 6)
    assert planned(tmp_path)("models").counts == (1, 0)


def test_a_plan_of_an_earlier_version_counts_all_rows(tmp_path: Path) -> None:
    write(tmp_path, OLD, 1)
    (tmp_path / remaining.PLAN).write_text('{"at_once": 1, "stages": {"transfer": [3, 1.0]}}')
    (part,) = remaining.parts(tmp_path, planned(tmp_path))
    assert (part.done, part.given_up) == (2, 0)
