"""Which runs of a chunk are done together."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from kt_cli.settings import DataSpec, EvalSpec, PairsSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps import chunk
from kt_cli.sweeps.chunk import _groups, finish

DATA = DataSpec("digits")


def predict(name: str, data_id: str = "eval", attempt: int = 1) -> Run:
    return Run("predict", (Model(name, name, name),), data_id, EvalSpec(), DATA, attempt=attempt)


def sizes(runs: list[Run], alone: bool = False, start: int = 0) -> list[tuple[int, int]]:
    return [(first, len(group)) for first, group in _groups(runs, start, alone)]


def test_predictions_on_the_same_images_share_them() -> None:
    runs = [predict("a"), predict("b"), predict("c", "other"), predict("d", "other")]
    assert sizes(runs, start=10) == [(10, 2), (12, 2)]


def test_what_failed_before_is_done_by_itself() -> None:
    runs = [predict("a"), predict("b", attempt=2), predict("c", attempt=2), predict("d")]
    assert sizes(runs) == [(0, 1), (1, 1), (2, 1), (3, 1)]


def test_alone_means_one_by_one() -> None:
    assert sizes([predict("a"), predict("b")], alone=True) == [(0, 1), (1, 1)]


def test_other_runs_are_never_grouped() -> None:
    pairs = Run("pairs", (Model("a"), Model("b")), "eval", PairsSpec(), DATA)
    assert sizes([pairs, replace(pairs, data_id="other")]) == [(0, 1), (1, 1)]


def test_a_failed_run_says_how_long_it_took(tmp_path: Path) -> None:
    """The images are not those that were planned, which is found once for both."""
    (first,), (second,) = finish([predict("a"), predict("b")], tmp_path)
    assert first["status"] == second["status"] == "failed" and "changed" in first["error"]
    assert first["seconds"] == second["seconds"] > 0


def test_a_failed_run_lets_go_of_what_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: a GPU may have no memory for the next run before Python looks for circles."""
    held: list[weakref.ref[nn.Module]] = []

    def fails(*_: object) -> None:
        module = nn.Linear(2, 2)
        held.append(weakref.ref(module))
        raise ValueError("broken")

    monkeypatch.setattr(chunk, "check_data", fails)
    gc.disable()
    try:
        (row,) = finish([predict("a")], tmp_path)[0]
    finally:
        gc.enable()
    assert row["error"] == "ValueError: broken" and held[0]() is None
