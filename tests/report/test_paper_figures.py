from __future__ import annotations

import pytest

from kt_cli.report import paper_figures


@pytest.mark.parametrize(
    ("method", "median", "mean"),
    [  # as the paper's results are quoted: over 20 students with 20 teachers each
        ("kl", 32.5, 32.5), ("xekl", 42.5, 42.3), ("xekl-mcl", 80.0, 60.8),
        ("kl-dp", 92.5, 73.8), ("kl-dp-u", 82.5, 69.0), ("cd", 0.0, 16.3), ("crd", 0.0, 16.8),
    ],
)  # fmt: skip
def test_success_rates(method: str, median: float, mean: float) -> None:
    found = paper_figures.success(method)
    assert found is not None
    assert found.students == 20
    assert found.median == median
    assert found.mean == pytest.approx(mean, abs=0.051)


def test_what_is_not_published_is_none() -> None:
    assert paper_figures.success("kl-dp+guard") is None
    assert paper_figures.deltas("resnet50") == {}
    assert paper_figures.published_as("my/resnetv2_50") is None


@pytest.mark.parametrize(
    ("model", "student"),
    [
        ("resnetv2_50", "resnetv2_50"),
        ("resnetv2_50.a1h_in1k", "resnetv2_50"),
        ("resnetv2_50 (1a2b3c4d)", "resnetv2_50"),
        ("mixer_b16_224.goog_in21k_ft_in1k", "mixer_b16_224"),
        ("mixer_b16_224.miil_in21k_ft_in1k", "mixer_b16_224_miil"),
        ("senet154.gluon_in1k", "gluon_senet154"),
        ("gluon_senet154", "gluon_senet154"),
        ("senet154", None),
        ("pit_b_224.in1k", "pit_b_224"),
    ],
)
def test_students_by_todays_and_by_the_authors_names(model: str, student: str | None) -> None:
    assert paper_figures.published_as(model) == student


def test_other_weights_of_one_architecture_are_told() -> None:
    models = [
        "resnetv2_50",
        "resnetv2_50.a1h_in1k",
        "vit_base_patch16_224.dino",
        "resnet50.a1_in1k",
    ]
    assert paper_figures.other_weights(models) == ["vit_base_patch16_224.dino"]


def test_deltas_of_a_student() -> None:
    found = paper_figures.deltas("mixer_l16_224.goog_in21k_ft_in1k")
    assert set(found) == {"kl", "xekl", "xekl-mcl", "kl-dp", "kl-dp-u", "cd", "crd"}
    assert found["kl"] == pytest.approx(5.6772)
    assert set(paper_figures.deltas("mixnet_s")) == {
        "kl-dp"
    }  # one of the ten students of kl-dp alone


def test_each_model_has_one_name_and_every_method_twenty_common_students() -> None:
    pairs = {(r.student, r.model) for r in paper_figures.results()}
    assert len(pairs) == len({s for s, _ in pairs}) == len({m for _, m in pairs}) == 30
    for method in {r.method for r in paper_figures.results()}:
        mine = [r for r in paper_figures.results() if r.method == method]
        assert sum(r.common for r in mine) == 20
        assert len(mine) == (30 if method == "kl-dp" else 20)
