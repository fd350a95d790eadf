"""What is refused before any work, and the published values of each method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kt_cli.distillation import methods
from kt_cli.distillation.methods import METHODS
from kt_cli.errors import UnknownName, UsageError
from kt_cli.settings import TransferSpec
from kt_cli.settings.transfer import canonical, guard_of, with_guard
from kt_cli.sweeps.config import build


def spec_of(name: str, **settings: Any) -> TransferSpec:
    return TransferSpec(method=name, **settings)


def refused(name: str, count: int = 1, labelled: bool = True, **settings: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        methods.require_possible(spec_of(name, **settings), count, labelled)
    return caught.value


@pytest.mark.parametrize("name", [*METHODS, *(f"{name}+guard" for name in METHODS)])
def test_every_method_is_possible(name: str) -> None:
    methods.require_possible(spec_of(name), 1, labelled=True)
    for way in ("sequential", "soup"):
        methods.require_possible(spec_of(name, together=way), 3, labelled=True)


@pytest.mark.parametrize("name", ["kl-dp", "xekl", "kl-mcl", "flip-avg", "crd", "cd"])
def test_without_labels_what_reads_them_is_refused(name: str) -> None:
    error = refused(name, labelled=False)
    assert name in error.message and "labels" in error.message
    assert "kl, kl-dp-u, self" in error.tip


@pytest.mark.parametrize("name", ["kl", "kl-dp-u", "self"])
def test_without_labels_what_reads_none_is_possible(name: str) -> None:
    methods.require_possible(spec_of(name), 1, labelled=False)
    methods.require_possible(spec_of("kl-mcl", distil_on="all"), 1, labelled=False)


def test_flips_need_labels() -> None:
    assert "kl, kl-dp-u, self" in refused("kl", labelled=False, distil_on="positive").tip


def test_teachers_need_a_way_to_teach_together() -> None:
    assert "3 teachers" in refused("kl-dp", 3).message
    assert "sequential" in refused("kl-dp", 3).tip
    assert "soup" in refused("kl-dp", 1, together="soup").message
    methods.require_possible(spec_of("kl-dp", together="soup"), 2, labelled=True)


@pytest.mark.parametrize("name", METHODS)
def test_parallel_teachers_are_for_the_partitions_that_choose(name: str) -> None:
    if name in ("kl-dp", "kl-dp-u"):
        methods.require_possible(spec_of(name, together="parallel"), 3, labelled=True)
    else:
        error = refused(name, 3, together="parallel")
        assert name in error.message and "kl-dp, kl-dp-u" in error.tip
    methods.require_possible(spec_of(name, together="parallel"), 1, labelled=True)


@pytest.mark.parametrize("name", METHODS)
def test_reference_compat_is_for_what_departs_from_the_paper(name: str) -> None:
    if name in ("xekl", "kl-mcl", "xekl-mcl", "flip-st", "flip-t", "flip-avg"):
        methods.require_possible(spec_of(name, reference_compat=True), 1, labelled=True)
    else:
        error = refused(name, reference_compat=True)
        assert name in error.message and "xekl, kl-mcl, xekl-mcl, flip-st" in error.tip
    methods.require_possible(spec_of("kl", reference_compat=True, distil_on="positive"), 1, True)


@pytest.mark.parametrize("on", ["positive", "not-negative"])
@pytest.mark.parametrize("name", METHODS)
def test_distil_on_is_for_plain_distillation(name: str, on: str) -> None:
    if name in ("kl", "xekl", "kl-mcl", "xekl-mcl"):
        methods.require_possible(spec_of(name, distil_on=on), 1, labelled=True)
    else:
        error = refused(name, distil_on=on)
        assert name in error.message and on in error.message
    methods.require_possible(spec_of(name, distil_on="all"), 1, labelled=True)


@pytest.mark.parametrize("name", METHODS)
def test_means_and_features_need_whole_targets(name: str) -> None:
    if name in ("flip-avg", "crd", "cd"):
        assert name in refused(name, target_topk=50).message
    else:
        methods.require_possible(spec_of(name, target_topk=50), 1, labelled=True)


def test_no_more_classes_are_distilled_than_are_kept() -> None:
    refused("kl", target_topk=50, kd_topk=51)
    methods.require_possible(spec_of("kl", target_topk=50, kd_topk=50), 1, labelled=True)
    refused("kl-mcl", target_topk=50, reference_compat=True)  # takes 100
    methods.require_possible(
        spec_of("kl-mcl", target_topk=50, kd_topk=20, reference_compat=True), 1, labelled=True
    )


@pytest.mark.parametrize(("name", "near"), [("kl-pd", "kl-dp"), ("xkl", "xekl"), ("cdr", "crd")])
def test_an_unknown_method_names_the_nearest(name: str, near: str) -> None:
    for asked in (name, f"{name}+guard"):
        with pytest.raises(UnknownName, match=name) as caught:
            methods.find(asked)
        assert near in caught.value.tip


@pytest.mark.parametrize("guard", ["+guard", "+safe", "+safe:0.5", "+shrink"])
def test_a_guarded_method_is_the_method(guard: str) -> None:
    assert all(methods.find(name + guard) is method for name, method in METHODS.items())


@pytest.mark.parametrize(
    ("method", "guard"),
    [
        ("kl", None), ("kl+guard", ("gain", 0.1)), ("kl-dp+safe", ("safe", 0.1)),
        ("kl+safe:0", ("safe", 0.0)), ("kl+safe:1.5", ("safe", 1.5)),
        ("kl+shrink", ("shrink", 0.1)),
    ],
)  # fmt: skip
def test_the_guard_of_a_method(method: str, guard: tuple[str, float] | None) -> None:
    assert guard_of(method) == guard


@pytest.mark.parametrize(
    ("said", "one_way"),
    [("kl+safe:0.10", "kl+safe"), ("kl+safe:.1", "kl+safe"), ("kl+safe:0.50", "kl+safe:0.5"),
     ("kl-dp+safe:-0.0", "kl-dp+safe:0"), ("kl", "kl"), ("kl+shrink", "kl+shrink"),
     ("kl+safe:0.1000001", "kl+safe:0.1000001"), ("kl+safe:05", "kl+safe:5")],
)  # fmt: skip
def test_a_margin_that_is_said_another_way_is_the_same_run(said: str, one_way: str) -> None:
    assert canonical(said) == one_way == TransferSpec(method=said).with_defaults.method
    # As reports read it.
    assert build({"models": ["a"], "transfer": {"methods": [said]}}, "x").methods == (one_way,)
    with pytest.raises(UsageError, match="must list values that differ"):
        build({"models": ["a"], "transfer": {"methods": [said, one_way]}}, "x")
    if "safe" in said:
        assert with_guard(said, f"safe:{one_way.partition(':')[2] or 0.1}")


@pytest.mark.parametrize("method", ["kl+", "kl+gain", "kl+safe:", "kl+safe:-1", "kl+safe:nan",
                                    "kl+shrink:1", "kl+safe:100", "kl+safe+guard"])  # fmt: skip
def test_what_is_no_guard_is_refused(method: str) -> None:
    with pytest.raises((UnknownName, UsageError)):
        methods.find(method)


def values(name: str, **settings: Any) -> tuple[Any, ...]:
    found = spec_of(name, **settings).with_defaults
    return found.lr, found.kd_lambda, found.kd_topk, found.distil_on


@pytest.mark.parametrize("guard", ["", "+guard"])
@pytest.mark.parametrize("name", METHODS)
def test_published_values_of_each_method(name: str, guard: str) -> None:
    wanted = {
        "kl-mcl": (0.01, 0.5, 0, "not-negative"),
        "xekl-mcl": (0.01, 0.68, 0, "not-negative"),
    }.get(name, (1e-4, 0.5, 0, "all"))
    assert values(name + guard) == wanted


def test_the_authors_code_distils_100_classes_with_slow_weights() -> None:
    for name in ("kl-mcl", "xekl-mcl"):
        assert values(name, reference_compat=True)[2] == 100
        assert values(name, reference_compat=True, kd_topk=7)[2] == 7
    assert values("xekl", reference_compat=True)[2] == 0


def test_given_values_stay() -> None:
    given = {"lr": 0.5, "kd_lambda": 0.0, "kd_topk": 0, "distil_on": "all"}
    assert values("xekl-mcl", **given) == tuple(given.values())
    assert values("xekl-mcl", **given, reference_compat=True) == tuple(given.values())
    settled = spec_of("xekl-mcl").with_defaults
    assert settled.with_defaults == settled and replace(settled, lr=None).with_defaults == settled


@pytest.mark.parametrize("name", ["crd", "cd"])
def test_what_reads_features_is_not_compiled(name: str) -> None:
    assert "--compile" in refused(name, compile=True).message
    methods.require_possible(spec_of("kl-dp", compile=True), 1, labelled=True)
