from __future__ import annotations

from typing import Any

import pytest

from kt_cli.report.groups import SAME_DATA, SAME_TRANSFER, split
from kt_cli.report.read import read_results

Sweep = Any  # of the conftest beside this file


def test_one_group_has_all_rows_and_says_nothing_of_differences(filled: Sweep) -> None:
    rows = read_results([filled.folder]).ok("transfer")
    (group,) = split(rows, SAME_TRANSFER)
    assert len(group.rows) == len(rows)
    assert group.differs == ""
    assert group.about == {
        "sweep": "demo", "data": "digits", "images": 200, "limit": None, "eval_data": "e" * 16,
        "eval_size": "test", "eval_amp": None, "train_data": "t" * 16, "guard_data": "g" * 16,
        "settings": "5e771465",
    }  # fmt: skip
    assert group.first("lr") == 0.01


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": "other", "lr": 0.1}, "lr 0.1"),
        ({"settings": "other", "bn": "eval"}, "bn eval"),
        ({"eval_data": "f" * 16, "n": 100}, "evaluation images 100"),
        ({"eval_amp": "float16"}, "eval_amp float16"),
        ({"eval_size": "train"}, "eval_size train"),
        ({"train_data": "u" * 16, "subset_seed": 7}, "subset_seed 7"),
        ({"settings": "other", "micro_batch": 32}, "micro_batch 32"),
    ],
)
def test_what_differs_is_apart_and_named(
    sweep: Sweep, change: dict[str, object], named: str
) -> None:
    sweep.write("transfer", [
        sweep.transfer("resnet50", "convnext_tiny"),
        sweep.transfer("resnet50", "convnext_tiny", **change),
    ])  # fmt: skip
    groups = split(read_results([sweep.folder]).ok("transfer"), SAME_TRANSFER)
    assert [len(group.rows) for group in groups] == [1, 1]
    assert sum(named in group.differs for group in groups) == 1


def test_guards_that_judged_on_other_images_are_apart(sweep: Sweep) -> None:
    pair = ("resnet50", "convnext_tiny")
    plain = sweep.transfer(*pair, method="kl")
    sweep.write("transfer", [plain, sweep.transfer(*pair, method="kl+guard", guard_data="one")])
    (group,) = split(read_results([sweep.folder]).ok("transfer"), SAME_TRANSFER)
    assert len(group.rows) == 2 and group.about["guard_data"] == "one"
    sweep.write("transfer", [sweep.transfer(*pair, method="kl+guard", guard_data="other")])
    groups = split(read_results([sweep.folder]).ok("transfer"), SAME_TRANSFER)
    assert [(len(g.rows), g.about["guard_data"], g.differs) for g in groups] == [
        (1, "one", "guard_data one"), (1, "other", "guard_data other"),
        (1, None, "guard_data none"),
    ]  # fmt: skip


def test_no_rows_are_no_groups(sweep: Sweep) -> None:
    sweep.write("models", [sweep.model("resnet50")])
    found = read_results([sweep.folder])
    assert split(found.ok("transfer"), SAME_TRANSFER) == []
    assert len(split(found.ok("models"), SAME_DATA)) == 1


@pytest.mark.parametrize("other", ["folder-1234/ffffffff", "folder-5678/abcdabcd"])
def test_images_that_differ_are_called_differently(sweep: Sweep, other: str) -> None:
    """Fingerprints begin alike: with the source, and the list of the images."""
    pair = ("resnet50", "convnext_tiny")
    sweep.write("transfer", [
        sweep.transfer(*pair, eval_data=data) for data in ("folder-1234/abcdabcd", other)
    ])  # fmt: skip
    rows = read_results([sweep.folder]).ok("transfer")
    names = [group.differs for group in split(rows, SAME_TRANSFER)]
    assert len(set(names)) == 2, names
