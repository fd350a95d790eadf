from __future__ import annotations

import pytest

from kt_cli.errors import UsageError
from kt_cli.zoo import timm_package
from kt_cli.zoo.imagenet_facts import fact, facts, top


def test_published_numbers() -> None:
    # Read by hand from the published tables.
    best = facts()[0]
    assert best.model == "eva02_large_patch14_448.mim_m38m_ft_in22k_in1k"
    assert (best.img_size, best.top1, best.params_m) == (448, 90.056, 305.08)
    resnet = fact("resnet18.a1_in1k")  # 73.164 at 288 pixels, 71.504 at 224
    assert resnet is not None
    assert (resnet.img_size, resnet.top1, resnet.params_m, resnet.gmacs) == (
        288, 73.164, 11.69, 3.01,
    )  # fmt: skip
    large = fact("eva_giant_patch14_560.m30m_ft_in22k_in1k")  # published as 1,014.45
    assert large is not None
    assert large.params_m == 1014.45


def test_sorted_and_distinct() -> None:
    rows = facts()
    assert len({row.model for row in rows}) == len(rows) == 1266
    assert list(rows) == sorted(rows, key=lambda row: (-row.top1, row.model))
    assert all(0 < row.top1 < 100 and row.img_size > 0 and row.params_m > 0 for row in rows)


def test_macs_grow_with_the_area() -> None:
    small, large = fact("resnet50.a1_in1k"), fact("resnet50.a1h_in1k")
    assert small is not None and large is not None
    assert small.gmacs and large.gmacs
    ratio = (small.img_size / large.img_size) ** 2
    assert small.gmacs / large.gmacs == pytest.approx(ratio, rel=0.05)


def test_top() -> None:
    assert top(3) == [row.model for row in facts()[:3]]
    assert len(top(1266)) == 1266
    for n in (0, 1267):
        with pytest.raises(UsageError, match="1266"):
            top(n)


def test_every_model_is_in_timm_with_a_thousand_classes() -> None:
    assert {row.model for row in facts()} <= set(timm_package.pretrained_names())
    assert {timm_package.config(row.model).num_classes for row in facts()} == {1000}


def test_unknown_model_has_no_fact() -> None:
    assert fact("resnet50") is None
