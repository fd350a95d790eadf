"""Identities that must not change when code is moved: else everybody's finished runs are lost."""

from __future__ import annotations

import pytest

from kt_cli.settings import EvalSpec, PairsSpec, PretrainSpec, TransferSpec
from kt_cli.settings.declared import Settings
from kt_cli.spec import Model, Run, pair_id

TEACHER = Model("resnet50.a1_in1k", "resnet50", "resnet50")
STUDENT = Model("local:0123", "local-dir:/zoo/vit", "vit")

SETTINGS: dict[str, tuple[str, Settings]] = {
    "predict": ("predict", EvalSpec()),
    "predict-train-size": ("predict", EvalSpec("train", "float16")),
    "pairs": ("pairs", PairsSpec()),
    "pairs-clip": ("pairs", PairsSpec(embedding="clip", by_class=True)),
    "pretrain": ("pretrain", PretrainSpec("a", "test_vit")),
    "fine-tune": ("pretrain", PretrainSpec("b", "resnet50", True, img_size=64, freeze_epochs=2)),
    "kl-dp": ("transfer", TransferSpec()),
    "kl": ("transfer", TransferSpec("kl", seed=3, lr=1e-4)),
    "kl-mcl": ("transfer", TransferSpec("kl-mcl")),
    "xekl-mcl": ("transfer", TransferSpec("xekl-mcl", reference_compat=True)),
    "guarded": ("transfer", TransferSpec("kl-dp-u+guard", bn="recompute", augment="flip")),
    "team": ("transfer", TransferSpec("kl-dp", together="sequential", order="desc")),
    "half": ("transfer", TransferSpec("crd", amp="float16", epochs=3, micro_batch=32)),
}
GOLDEN = {
    "predict": "df57b8f96aeb7824",
    "predict-train-size": "a437fc04177e0e8d",
    "pairs": "2281cbba15fa993b",
    "pairs-clip": "2281cbba15fa993b",
    "pretrain": "183617283cecd1c9",
    "fine-tune": "652aab93f4d3891c",
    "kl-dp": "50a7c27f16e4fef8",
    "kl": "8dd596b5dc337db8",
    "kl-mcl": "8b4e340fc899ce80",
    "xekl-mcl": "857a69d7184fa5f9",
    "guarded": "7fc6318a4445641b",
    "team": "397749f7c5d18ef3",
    "half": "fbc7220d09ac2117",
    "pair": "d2702d3e49d23f54",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_ids_stay_as_they_are(name: str) -> None:
    kind, settings = SETTINGS[name]
    assert Run(kind, (TEACHER, STUDENT), "images", settings).id == GOLDEN[name]


def test_ids_of_pairs_stay_as_they_are() -> None:
    assert pair_id(TEACHER, STUDENT, "images", PairsSpec()) == GOLDEN["pair"]
