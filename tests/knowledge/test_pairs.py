"""Statistics of pairs against loops by hand, SciPy and scikit-learn."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from kt_cli.knowledge import pairs
from kt_cli.knowledge.class_similarity import ClassEmbedding
from kt_cli.knowledge.flips import FlipCounter
from kt_cli.knowledge.pairs import Outputs, all_pairs, most_confident


def random_outputs(seed: int, models: int = 5, n: int = 60, classes: int = 4) -> Outputs:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    labels[labels == classes - 1] = 0  # the last class has no samples
    guesses = rng.integers(0, classes, (models, n))
    skill = rng.random(models)[:, None]
    preds = np.where(rng.random((models, n)) < skill, labels, guesses)
    confidence = rng.integers(1, 5, (models, n)).astype(np.float32) / 5  # with many ties
    return Outputs(labels, preds == labels, preds, confidence, classes)


def random_embedding(classes: int, width: int = 7) -> ClassEmbedding:
    return ClassEmbedding.of("test", np.random.default_rng(classes).normal(size=(classes, width)))


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


def similarity_by_hand(counts: list[int], percent: int, e: ClassEmbedding) -> float:
    """The mean over all ways to choose among classes that tie for the last places."""
    size = top_by_hand(counts, percent)
    if math.isnan(size) or size < 2:
        return math.nan
    order = sorted(range(len(counts)), key=lambda c: -counts[c])
    last = counts[order[int(size) - 1]]
    sure = [c for c in order if counts[c] > last]
    tied = [c for c in order if counts[c] == last]
    cosines = (e.vectors @ e.vectors.T).double().numpy()
    means = []
    for chosen in itertools.combinations(tied, int(size) - len(sure)):
        pairs_ = itertools.combinations([*sure, *chosen], 2)
        means.append(np.mean([cosines[a, b] for a, b in pairs_]))
    return float(np.mean(means))


def by_hand(o: Outputs, t: int, s: int, e: ClassEmbedding) -> dict[str, float]:
    n = len(o.labels)
    flips = [0] * o.num_classes
    negative = agree = oracle = right_t = right_s = 0
    confident = 0.0
    for i, label in enumerate(o.labels):
        tr, sr = int(o.preds[t][i] == label), int(o.preds[s][i] == label)
        right_t, right_s = right_t + tr, right_s + sr
        flips[label] += tr and not sr
        negative += sr and not tr
        agree += o.preds[t][i] == o.preds[s][i]
        oracle += tr or sr
        if o.confidence[t][i] == o.confidence[s][i]:
            confident += (tr + sr) / 2
        else:
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
        **{f"top{p}_similarity": similarity_by_hand(flips, p, e) for p in (2, 5, 20, 50)},
    }


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_all_pairs_equal_a_loop_by_hand(seed: int) -> None:
    outputs = random_outputs(seed, classes=4 + seed)
    embedding = random_embedding(4 + seed)
    found = all_pairs(outputs, embedding)
    for t in range(5):
        for s in range(5):
            wanted = by_hand(outputs, t, s, embedding)
            assert {k for k in found if not k.endswith("_pct")} == wanted.keys()
            for name, value in wanted.items():
                close = 1e-5 if name.endswith("similarity") else 1e-9
                assert found[name][t, s] == pytest.approx(value, abs=close, nan_ok=True), name


def test_without_an_embedding_similarities_are_null() -> None:
    found = all_pairs(random_outputs(0))
    assert np.isnan(found["top50_similarity"]).all()
    assert np.isnan(found["top50_similarity_pct"]).all()


def test_flips_by_class_add_up() -> None:
    outputs = random_outputs(3)
    blocks = list(pairs.pair_blocks(outputs, by_class=True))
    counts = np.concatenate([block["flips_by_class"] for _, block in blocks])
    shares = np.concatenate([block["pos_flips"] for _, block in blocks])
    np.testing.assert_allclose(counts.sum(axis=2) * 100 / 60, shares)
    for t, s in itertools.product(range(5), repeat=2):
        known = outputs.right[t] & ~outputs.right[s]
        wanted = np.bincount(outputs.labels[known], minlength=4)
        np.testing.assert_array_equal(counts[t, s], wanted)


def test_several_right_labels() -> None:
    """What is right is told apart from the class that a sample counts for."""
    outputs = random_outputs(1)
    generous = dataclasses.replace(outputs, right=outputs.right | (outputs.preds == 0))
    counter, first = FlipCounter(generous.right, generous.labels, 4), slice(0, 1)
    found = counter.flips_of(counter.both_right(first), first)[0, 1]
    known = generous.right[0] & ~generous.right[1]
    np.testing.assert_array_equal(found, np.bincount(outputs.labels[known], minlength=4))


def test_an_unknown_confidence_leaves_its_pairs_null() -> None:
    outputs = random_outputs(2)
    outputs.confidence[1] = np.nan
    found = all_pairs(outputs)["confident_acc"]
    assert np.isnan(found[1]).all() and np.isnan(found[:, 1]).all()
    assert not np.isnan(np.delete(np.delete(found, 1, 0), 1, 1)).any()


def test_similar_classes_have_a_high_percentile() -> None:
    axes = np.repeat(np.eye(10), 5, axis=0) + 0.01 * np.random.default_rng(0).normal(size=(50, 10))
    embedding = ClassEmbedding.of("test", axes)
    one_kind, spread = np.zeros((2, 50), np.int32)
    one_kind[:5], spread[::5] = 4, 4
    found = pairs.by_class_statistics(np.stack([one_kind, spread]), embedding)
    assert found["top50_similarity_pct"][0] == 100
    assert found["top50_similarity_pct"][1] < 50
    assert found["top50_similarity"][0] == pytest.approx(1, abs=0.01)
    assert embedding.mean == pytest.approx(4 / 49, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_a_set_that_was_drawn_ties_with_itself(seed: int) -> None:
    """Of three classes there are three sets of two, each about a third of the random ones."""
    embedding = ClassEmbedding.of("test", np.random.default_rng(seed).normal(size=(3, 9)))
    counts = np.array([[2, 2, 1], [2, 1, 2], [1, 2, 2]], np.int32)
    found = pairs.by_class_statistics(counts, embedding)
    alike = np.sort(found["top50_similarity_pct"])
    np.testing.assert_allclose(alike, [100 / 6, 50, 500 / 6], atol=5)


def test_percentiles_of_random_sets_are_uniform() -> None:
    embedding = random_embedding(40)
    rng = np.random.default_rng(1)
    counts = np.zeros((400, 40), np.int32)
    for row in counts:
        row[rng.permutation(40)[:8]] = 1
    found = pairs.by_class_statistics(counts, embedding)["top50_similarity_pct"]
    # Ties: four of eight equal classes, the mean over all choices; narrower than single sets.
    assert 40 < float(np.mean(found)) < 60


def test_more_columns_than_classes_keep_the_cosines() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 50))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = ClassEmbedding.of("test", rows).vectors.numpy()
    assert vectors.shape == (6, 6)
    np.testing.assert_allclose(vectors @ vectors.T, unit @ unit.T, atol=1e-6)


def test_blocks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = random_outputs(0, models=7)
    whole = all_pairs(outputs)
    monkeypatch.setattr(pairs, "BLOCK", 2 * 7 * 4)
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
    found = pairs.by_class_statistics(np.full((1, 1, 8), 3, np.int32))
    assert found["flip_entropy"][0, 0] == pytest.approx(math.log(8))
    assert found["top50_classes"][0, 0] == 4  # exactly half: no class more
    assert pairs.by_class_statistics(np.full((1, 9), 3, np.int32))["top50_classes"][0] == 5


def test_who_is_sure_of_nothing_decides_where_the_other_is_too() -> None:
    right = np.array([[True, True, False, False], [True, False, True, False]])
    nothing = np.zeros((2, 4), np.float32)
    assert most_confident(right, nothing)[0, 1] == 1 + 0.5 + 0.5
