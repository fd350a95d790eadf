from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kt_cli.zoo import prefetch, timm_registry
from kt_cli.zoo.imagenet_facts import fact
from kt_cli.zoo.prefetch import Failures, Wanted

Kt = Callable[..., tuple[int, str, str]]
Fetch = Callable[[Wanted, int, object], Failures]
MODELS = ("resnet18.a1_in1k", "resnet50.a1_in1k", "test_vit.r160_in1k")


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int]]:
    """What is asked for, with how many at a time; the first of several always fails."""
    asked: list[tuple[list[str], int]] = []

    def fetch(wanted: Wanted, jobs: int, progress: object) -> Failures:
        asked.append(([model.ref for model in wanted], jobs))
        return [(next(iter(wanted)), "it is [gone]")] if len(wanted) > 1 else []

    monkeypatch.setattr(prefetch, "fetch", fetch)
    monkeypatch.setattr(timm_registry, "cached", lambda ref: None)
    return asked


def test_a_dry_run_shows_sizes_and_fetches_nothing(kt: Kt, fetched: list[object]) -> None:
    code, out, err = kt("models", "prefetch", *MODELS, "random:resnet18", "--dry-run")
    known = fact(MODELS[1])
    assert code == 0 and fetched == [] and known is not None
    rows = [line.split() for line in out.splitlines()[1:]]
    assert [row[0] for row in rows] == list(MODELS)
    assert rows[1][1:] == [f"{known.params_m * 4:.1f}", "MB"]
    assert "3 models to fetch, about" in err and "1 that the hub does not have" in err


def test_failures_are_named_and_the_others_kept(kt: Kt, fetched: list[object]) -> None:
    code, out, err = kt("models", "prefetch", ",".join(MODELS), "-j", "3")
    assert code == 1 and fetched == [(list(MODELS), 3)]
    assert out == f"{MODELS[0]}: it is [gone]\n"
    assert "Fetched 2 models." in err and "weights of 1 model could not be had" in err


def test_what_is_there_is_not_fetched(
    kt: Kt, fetched: list[object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        timm_registry, "cached", lambda ref: tmp_path if ref.startswith("resnet") else None
    )
    code, out, err = kt("models", "prefetch", *MODELS)
    assert (code, out) == (0, "") and fetched == [([MODELS[2]], 8)]
    assert "1 model to fetch" in err and "2 there already" in err


def test_more_than_the_disk_holds_is_refused(
    kt: Kt, fetched: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = prefetch.plan
    monkeypatch.setattr(prefetch, "plan", lambda *given: replace(plan(*given), free=10**8))
    code, _, err = kt("models", "prefetch", *MODELS)
    assert code == 1 and fetched == [] and "has 100.0 MB left" in err and "HF_HOME" in err


def test_without_a_network_there_is_one_error(kt: Kt) -> None:
    code, out, err = kt("models", "prefetch", "test_*")
    assert (code, out) == (1, "")
    assert "HF_HUB_OFFLINE" in err and "Unset" in err


def test_unknown_models_are_refused(kt: Kt) -> None:
    code, _, err = kt("models", "prefetch", "resnet5O")
    assert code == 2 and "resnet50" in err


def test_listing_is_what_models_does_by_itself(kt: Kt) -> None:
    assert kt("models", "vit_b*", "--top", "2") == kt("models", "list", "vit_b*", "--top", "2")
    assert kt("models", "--top", "2")[1] == kt("models", "list", "--top", "2")[1]
    code, out, _ = kt("models", "--help")
    assert code == 0 and "prefetch" in out and "list" in out
