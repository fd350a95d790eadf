from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kt_cli.zoo.imagenet_facts import facts

Kt = Callable[..., tuple[int, str, str]]


def listed(out: str) -> list[str]:
    """First column of a table, without its header."""
    return [line.split()[0] for line in out.splitlines()[1:] if line.strip()]


def published(out: str) -> list[str]:
    return [row["model"] for row in json.loads(out)]


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    from kt_cli.zoo import load

    for name, arch in (("b-vit", "test_vit"), ("a-resnet", "test_resnet")):
        module, config = load.build(arch, 10, 32)
        load.save(
            module, tmp_path / "zoo" / name, data_config=config, num_classes=10,
            label_names=["x"] * 10,
            card="", extra={},
        )  # fmt: skip
    return tmp_path / "zoo"


def test_lists_the_best_and_says_how_many_there_are(kt: Kt) -> None:
    code, out, err = kt("models")
    assert code == 0
    assert listed(out) == [fact.model for fact in facts()[:20]]
    assert "90.06" in out and "448" in out and "305.1" in out and "362.3" in out
    assert "20 of 1,266" in err
    assert "--top" in err


def test_top(kt: Kt) -> None:
    assert listed(kt("models", "--top", "3")[1]) == [fact.model for fact in facts()[:3]]
    assert len(listed(kt("models", "--top", "5000")[1])) == len(facts())
    assert kt("models", "--top", "0")[0] == 2


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("vit_*", lambda name: name.startswith("vit_")),
        ("resnet50.*", lambda name: name.startswith("resnet50.")),
        ("resnet50", lambda name: "resnet50" in name),
        ("ResNet50", lambda name: "resnet50" in name),
        ("deit_s", lambda name: name.startswith("deit_small_patch16_224.")),
    ],
)
def test_patterns(kt: Kt, pattern: str, matches: Callable[[str], bool]) -> None:
    code, out, _ = kt("models", pattern, "--json")
    assert code == 0
    assert published(out) == [fact.model for fact in facts() if matches(fact.model)]


def test_several_patterns_add_up(kt: Kt) -> None:
    both = published(kt("models", "mixer_b16*", "mixer_l16*", "mixer_*", "--json")[1])
    assert both == [fact.model for fact in facts() if fact.model.startswith("mixer_")]


def test_sort(kt: Kt) -> None:
    def column(sort: str, name: str) -> list[float | str]:
        rows = json.loads(kt("models", "vit_*", "--sort", sort, "--json")[1])
        return [row[name] for row in rows]

    for sort, name in (("params", "params_m"), ("gmacs", "gmacs"), ("name", "model")):
        assert column(sort, name) == sorted(column(sort, name))
    assert column("top1", "top1") == sorted(column("top1", "top1"), reverse=True)
    assert kt("models", "--sort", "size")[0] == 2


def test_only_small_ones(kt: Kt) -> None:
    _, out, _ = kt("models", "list", "--max-params", "5", "--json")
    assert published(out) == [fact.model for fact in facts() if fact.params_m <= 5]


def test_json_row(kt: Kt) -> None:
    (row,) = json.loads(kt("models", "resnet18.a1_in1k", "--json")[1])
    assert row == {
        "model": "resnet18.a1_in1k", "img_size": 288, "top1": 73.164, "params_m": 11.69,
        "gmacs": 3.01,
    }  # fmt: skip


def test_nothing_matches(kt: Kt) -> None:
    code, out, err = kt("models", "resnet5O")
    assert code == 2
    assert out == ""
    assert "resnet5O" in err
    assert "resnet50" in err


def test_folder_of_models(kt: Kt, zoo: Path, tmp_path: Path) -> None:
    code, out, err = kt("models", str(zoo))
    assert code == 0
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["a-resnet", "test_resnet", "10", "32"],
        ["b-vit", "test_vit", "10", "32"],
    ]
    assert "2 models" in err
    rows = json.loads(kt("models", str(zoo / "b-vit"), "--json")[1])
    assert [row["arch"] for row in rows] == ["test_vit"]
    (tmp_path / "empty").mkdir()
    code, out, err = kt("models", str(tmp_path / "empty"))
    assert (code, out) == (2, "")
    assert "empty" in err


def test_folder_and_pattern_together(kt: Kt, zoo: Path) -> None:
    _, out, _ = kt("models", str(zoo), "resnet18.a1_in1k")
    assert "a-resnet" in out
    assert "resnet18.a1_in1k" in out


def test_where_no_model_is_that_small_it_is_said(kt: Kt) -> None:
    code, out, err = kt("models", "list", "--max-params", "0.001")
    assert (code, out) == (0, "") and "is that small" in err
