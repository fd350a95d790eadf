"""Who could teach a student: predictors against loops by hand, teams, earlier transfers."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from kt_cli.knowledge.teaching import RANKED_BY, Measured, Teaching, by_teacher, ranked

N, CLASSES = 300, 6


def said(random: np.random.Generator, labels: np.ndarray, share: float) -> Any:
    pred = np.where(random.random(N) < share, labels, random.integers(0, CLASSES, N))
    confidence = random.uniform(0.3, 1, N).astype(np.float32)
    label_prob = np.where(pred == labels, confidence, confidence * random.random(N))
    return SimpleNamespace(pred=pred, confidence=confidence, right=pred == labels,
                           label_prob=label_prob.astype(np.float32))  # fmt: skip


def made(seed: int, labelled: bool = True, teachers: int = 4) -> tuple[Teaching, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, N)
    shares = np.linspace(0.3, 0.8, teachers)
    return Teaching(said(random, labels, 0.5), [said(random, labels, s) for s in shares],
                    labelled), labels  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("part", [False, True])
def test_scores_are_those_of_a_loop(seed: int, part: bool) -> None:
    found, labels = made(seed)
    among = np.random.default_rng(9).random(N) < 0.5 if part else np.ones(N, bool)
    scores, student = found.scores_among(among) if part else found.scores, found.student
    images = np.flatnonzero(among).tolist()
    for m, teacher in enumerate(found.teachers):
        reach = flips = 0.0
        for i in images:
            if teacher.pred[i] == labels[i] != student.pred[i]:
                flips += 1
                reach += float(student.label_prob[i]) / float(student.confidence[i])
        assert scores["reachable"][m] == pytest.approx(100 * reach / len(images), rel=1e-5)
        assert scores["pos_flips"][m] == pytest.approx(100 * flips / len(images))
        assert scores["accuracy"][m] == pytest.approx(100 * teacher.right[images].mean())
        wanted = 1 - cohen_kappa_score(teacher.right[images], student.right[images])
        assert scores["unlike"][m] == pytest.approx(wanted)
        surest = sorted(images, key=lambda i: -teacher.confidence[i])[: round(0.2 * len(images))]
        ahead = teacher.right[surest].mean() - student.right[images].mean()
        assert scores["surest"][m] == pytest.approx(100 * ahead)


def test_nothing_is_within_reach_of_who_has_it_right() -> None:
    found, _ = made(0)
    assert (found.reach[found.student.right] == 0).all()
    assert ((found.reach >= 0) & (found.reach <= 1)).all()
    scores = found.scores
    assert (scores["reachable"] <= scores["pos_flips"] + 1e-9).all()
    np.testing.assert_array_equal(found.ranking, scores[RANKED_BY[True]])


def test_without_labels_none_is_looked_at() -> None:
    found, _ = made(1, labelled=False)
    (score,) = found.scores.values()
    np.testing.assert_array_equal(found.ranking, score)
    student = found.student
    for m, teacher in enumerate(found.teachers):
        pairs = zip(teacher.pred, teacher.confidence, student.pred, student.confidence, strict=True)
        wanted = sum(max(0.0, float(c) - float(sc)) for p, c, sp, sc in pairs if p != sp)
        assert score[m] == pytest.approx(100 * wanted / N, rel=1e-5)
    for one in (student, *found.teachers):
        del one.right, one.label_prob
    again = Teaching(student, found.teachers, labelled=False)
    np.testing.assert_array_equal(again.scores["confident"], score)


def test_a_team_is_greedy_and_within_its_bound_of_the_best() -> None:
    found, _ = made(2, teachers=6)

    def covered(team: Any) -> float:
        return float(found.reach[found.right[list(team)].any(axis=0)].sum())

    for size in (1, 2, 3):
        best = max(covered(team) for team in combinations(range(6), size))
        assert covered(found.team(size)) >= (1 - 1 / np.e) * best
    one, two = found.team(1), found.team(2)
    assert two[:1] == one and one[0] == int(found.scores["reachable"].argmax())
    assert covered(two) == max(covered([one[0], other]) for other in range(6) if other != one[0])


def test_a_team_ends_where_nobody_adds_anything() -> None:
    found, _ = made(3)
    same = Teaching(found.student, [found.teachers[0]] * 3)
    assert same.team(3) == [0]


def test_what_would_not_show_is_not_visible() -> None:
    found, _ = made(0)
    assert not found.visible(100 * 5 / N) and found.visible(100 * 6 / N)


def test_earlier_transfers_come_first_or_last() -> None:
    rows = [("a", 2.0, 0.001), ("a", 1.0, 0.2), ("b", -1.0, 0.01), ("c", 0.5, 0.6), ("x", 9.0, 0.0)]
    a, b, c, d = by_teacher(rows, ["a", "b", "c", "d"])
    assert a == Measured(1.5, 2, 0.002, 1)
    assert b is not None and b.sign == -1
    assert c is not None and c.sign == 0 and d is None
    assert ranked(np.array([1.0, 9.0, 2.0, 3.0]), [a, b, c, d]) == [0, 3, 2, 1]


def test_a_sign_needs_all_that_is_significant_to_agree_with_the_mean() -> None:
    rows = [
        ("harmed once", -2.2, 1e-5), ("harmed once", 1.5, 0.06), ("harmed once", 1.5, 0.06),
        ("both", -1.0, 1e-4), ("both", 2.0, 1e-4), ("harmed", -2.2, 1e-5), ("harmed", 0.5, 0.6),
    ]  # fmt: skip
    found = by_teacher(rows, ["harmed once", "both", "harmed"])
    assert [one.sign for one in found if one] == [0, 0, -1]


@pytest.mark.parametrize("n", [281, 291, 562, 582, 1109])
def test_six_images_within_reach_are_six(n: int) -> None:
    def visible(images: int) -> bool:
        return Teaching.visible(SimpleNamespace(n=n), 100 * images / n)  # type: ignore[arg-type]

    assert visible(6) and not visible(5)
