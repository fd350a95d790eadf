"""Statistics of pairs against loops by hand, SciPy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from kt_cli.complementarity import pairs
from kt_cli.complementarity.pairs import Outputs, all_pairs, mean_probability_accuracy


def random_outputs(seed: int, models: int = 5, n: int = 60, classes: int = 4) -> Outputs:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    labels[labels == classes - 1] = 0  # the last class has no samples
    guesses = rng.integers(0, classes, (models, n))
    skill = rng.random(models)[:, None]
    preds = np.where(rng.random((models, n)) < skill, labels, guesses)
    confidence = rng.integers(1, 5, (models, n)).astype(np.float32) / 5  # with many ties
    return Outputs(labels, preds, confidence, classes)


def entropy_by_hand(counts: list[int]) -> float:
    return float(scipy.stats.entropy(counts)) if sum(counts) else math.nan


def top_by_hand(counts: list[int], percent: int) -> float:
    if not sum(counts):
        return math.nan
    held, number = 0, 0
    for count in sorted(counts, reverse=True):
        held, number = held + count, number + 1
        if held * 100 >= percent * sum(counts):
            break
    return number


def by_hand(o: Outputs, t: int, s: int) -> dict[str, float]:
    n = len(o.labels)
    flips = [0] * o.num_classes
    negative = agree = oracle = confident = right_t = right_s = 0
    for i, label in enumerate(o.labels):
        tr, sr = o.preds[t][i] == label, o.preds[s][i] == label
        right_t, right_s = right_t + tr, right_s + sr
        flips[label] += tr and not sr
        negative += sr and not tr
        agree += o.preds[t][i] == o.preds[s][i]
        oracle += tr or sr
        confident += tr if o.confidence[t][i] > o.confidence[s][i] else sr
    positive = sum(flips)
    return {
        "teacher_acc": 100 * right_t / n,
        "student_acc": 100 * right_s / n,
        "acc_diff": 100 * (right_t - right_s) / n,
        "pos_flips": 100 * positive / n,
        "neg_flips": 100 * negative / n,
        "agreement": 100 * agree / n,
        "oracle_acc": 100 * oracle / n,
        "confident_acc": 100 * confident / n,
        "kappa": float(cohen_kappa_score(o.preds[t] == o.labels, o.preds[s] == o.labels)),
        "mcnemar_p": scipy.stats.binomtest(positive, positive + negative).pvalue
        if positive + negative
        else 1.0,
        "flip_entropy": entropy_by_hand(flips),
        **{f"top{p}_classes": top_by_hand(flips, p) for p in (2, 5, 20, 50)},
    }


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_all_pairs_equal_a_loop_by_hand(seed: int) -> None:
    outputs = random_outputs(seed)
    found = all_pairs(outputs)
    for t in range(5):
        for s in range(5):
            wanted = by_hand(outputs, t, s)
            assert found.keys() == wanted.keys()
            for name, value in wanted.items():
                assert found[name][t, s] == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_blocks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = random_outputs(0, models=7)
    whole = all_pairs(outputs)
    monkeypatch.setattr(pairs, "BLOCK_ELEMENTS", 2 * 7 * 4)
    blocks = [rows for rows, _ in pairs.pair_blocks(outputs)]
    assert [b.stop - b.start for b in blocks] == [2, 2, 2, 1]
    for name, matrix in all_pairs(outputs).items():
        np.testing.assert_array_equal(matrix, whole[name])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 40), st.integers(1, 6))
def test_identities(seed: int, models: int, n: int, classes: int) -> None:
    outputs = random_outputs(seed, models, n, classes)
    found = all_pairs(outputs)
    np.testing.assert_allclose(found["pos_flips"], found["neg_flips"].T, atol=1e-9)
    np.testing.assert_allclose(
        found["pos_flips"] - found["neg_flips"], found["acc_diff"], atol=1e-9
    )
    best = np.maximum(found["teacher_acc"], found["student_acc"])
    assert (found["oracle_acc"] >= best - 1e-9).all()
    assert (found["confident_acc"] <= found["oracle_acc"] + 1e-9).all()
    entropy = found["flip_entropy"][~np.isnan(found["flip_entropy"])]
    assert (entropy >= 0).all() and (entropy <= math.log(classes) + 1e-9).all()


def test_uniform_flips_have_the_largest_entropy() -> None:
    uniform = torch.full((1, 1, 8), 3.0)
    assert pairs.flip_entropy(uniform)[0, 0] == pytest.approx(math.log(8))
    assert pairs.top_classes(uniform, 50)[0, 0] == 4  # exactly half: no class more
    assert pairs.top_classes(uniform, 51)[0, 0] == 5


def test_mcnemar_equals_binomtest() -> None:
    for positive, negative in ((0, 0), (1, 0), (3, 9), (9, 3), (20, 20), (150, 90)):
        total = positive + negative
        wanted = scipy.stats.binomtest(positive, total).pvalue if total else 1.0
        assert float(pairs.mcnemar(positive, negative)) == pytest.approx(wanted)


def test_mean_probability_ensemble_by_hand() -> None:
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(30, 5)).astype(np.float16) for _ in range(3)]
    labels = rng.integers(0, 5, 30)
    right = 0
    for i in range(30):
        mean = sum(scipy.special.softmax(x[i].astype(float)) for x in logits)
        right += int(np.argmax(mean) == labels[i])
    assert mean_probability_accuracy(logits, labels) == pytest.approx(100 * right / 30)
