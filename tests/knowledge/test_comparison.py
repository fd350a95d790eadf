"""Named models side by side, against sums by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.special
import torch
from PIL import Image

from kt_cli.data.sources import open_data
from kt_cli.errors import UsageError
from kt_cli.knowledge import gallery
from kt_cli.knowledge.comparison import Comparison, compare, to_dict
from kt_cli.knowledge.explanation import samples, sentence
from kt_cli.knowledge.predict import How
from kt_cli.rows import arrays
from kt_cli.settings import DataSpec, EvalSpec
from kt_cli.zoo.names import random_twins
from tests.knowledge.conftest import model_in

HOW = How(EvalSpec(), torch.device("cpu"), logits=True)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("compared")
    images = open_data(DataSpec("digits", limit=120)).eval
    names = {"a": "test_resnet", "b": "test_vit", "c": "test_convnext"}
    models = [model_in(folder, name, arch) for name, arch in names.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KT_CACHE", str(folder / "cache"))
        return compare([*random_twins(models[:1]), *models], images, HOW)


def test_baselines_come_last_and_know_nothing_together(found: Comparison) -> None:
    assert found.names == ("a", "b", "c", "random:test_resnet")
    assert found.untrained == (False, False, False, True) and found.trained == 3
    right = found.right[:3]
    assert found.oracle == pytest.approx(100 * right.any(axis=0).mean())
    for i in range(3):
        others = np.delete(right, i, axis=0)
        wanted = 100 * (right[i] & ~others.any(axis=0)).mean()
        assert found.alone[i] == pytest.approx(wanted)
    told = to_dict(found)
    assert {pair["student"] for pair in told["pairs"]} == {"a", "b", "c"}
    assert {pair["teacher"] for pair in told["pairs"]} == set(found.names)
    assert np.isnan(found.holm_p[3]).all()


def test_mean_of_probabilities_by_hand(found: Comparison) -> None:
    total = np.zeros((120, 10))
    for said in found.predictions[:3]:
        assert said.path is not None
        logits = arrays.read(said.path)[0]["logits"].astype(np.float64)
        total += scipy.special.softmax(logits, axis=1)
    wanted = 100 * (total.argmax(axis=1) == found.images.labels).mean()
    assert found.mean_probability == pytest.approx(wanted)


def test_the_most_confident_of_several(found: Comparison) -> None:
    confidence = np.stack([p.confidence for p in found.predictions[:3]])
    right = found.right[:3]
    shares = [
        np.mean([right[m, i] for m in range(3) if confidence[m, i] == confidence[:, i].max()])
        for i in range(120)
    ]
    assert found.confident == pytest.approx(100 * np.mean(shares))


def test_classes_and_shares_add_up(found: Comparison) -> None:
    for pair in to_dict(found, count=10)["pairs"]:
        total = sum(entry["flips"] for entry in pair["classes"])
        assert total == round(pair["pos_flips"] * 120 / 100)
        if total:
            assert sum(entry["share"] for entry in pair["classes"]) == pytest.approx(100)


def test_samples_are_what_one_knows_and_the_other_does_not(found: Comparison) -> None:
    picked = samples(found, 0, 1, 1000)
    assert len(picked) == found.flips(0, 1).sum()
    leads = []
    for sample in picked:
        assert found.right[0, sample.index] and not found.right[1, sample.index]
        assert sample.teacher_prob is not None and sample.student_prob is not None
        leads.append(sample.teacher_prob - sample.student_prob)
    assert leads == sorted(leads, reverse=True)


def test_the_sentence_names_both_and_the_ceiling(found: Comparison) -> None:
    text = sentence(found, 0, 1)
    ceiling = found.pairs["oracle_acc"][0, 1]
    if found.flips(0, 1).sum():
        assert "a " in text and " b " in text and f"{ceiling:.2f}%" in text
    else:
        assert "nothing" in text


@pytest.mark.parametrize("ending", [".png", ".pdf", ".svg", ".html"])
def test_gallery(found: Comparison, tmp_path: Path, ending: str) -> None:
    target = tmp_path / "new" / f"gallery{ending}"
    gallery.draw(target, found, [(0, 1), (1, 0)], 5)
    content = target.read_bytes()
    if ending == ".png":
        with Image.open(target) as drawn:
            assert drawn.width > 600
    elif ending == ".html":
        text = content.decode()
        assert text.count("<figure>") == min(5, found.flips(0, 1).sum()) + min(
            5, found.flips(1, 0).sum()
        )
        assert "http" not in text
    assert len(content) > 500


def test_a_gallery_of_unknown_form() -> None:
    with pytest.raises(UsageError, match=r"cannot draw into x\.docx"):
        gallery.require_ending(Path("x.docx"))
