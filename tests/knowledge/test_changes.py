"""What changed from a model to another, against loops by hand."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest

from kt_cli.api.complementarity import complementarity
from kt_cli.knowledge.changes import Changes, ClassChange, Confusion

pytestmark = pytest.mark.filterwarnings("ignore:.*near chance")
N, CLASSES = 200, 5


def made(seed: int, teacher: bool = True) -> tuple[Changes, np.ndarray, dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, N)
    said = {
        name: np.where(random.random(N) < share, labels, random.integers(0, CLASSES, N))
        for name, share in (("before", 0.5), ("after", 0.6), ("teacher", 0.8))
    }
    if not teacher:
        del said["teacher"]
    return Changes(complementarity(said, labels=labels).comparison), labels, said


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_a_loop(seed: int) -> None:
    found, labels, said = made(seed)
    rows = list(zip(labels, said["before"], said["after"], said["teacher"], strict=True))
    gained = [t == y for y, b, a, t in rows if b != y and a == y]
    lost = sum(b == y and a != y for y, b, a, _ in rows)
    assert found.gain == pytest.approx(100 * len(gained) / N)
    assert found.loss == pytest.approx(100 * lost / N)
    assert found.delta == pytest.approx(found.gain - found.loss)
    assert found.delta == pytest.approx(found.found.accuracies[1] - found.found.accuracies[0])
    assert found.learned == pytest.approx(100 * np.mean(gained))
    assert found.p == pytest.approx(binomtest(lost, lost + len(gained)).pvalue)
    by_class = {
        str(c): ClassChange(
            found.found.classes[c], sum(y == c for y, *_ in rows),
            sum(y == c and b != y and a == y for y, b, a, _ in rows),
            sum(y == c and b == y and a != y for y, b, a, _ in rows),
        )
        for c in range(CLASSES)
    }  # fmt: skip
    moved = sorted((c for c in by_class.values() if c.gained != c.lost), key=lambda c: c.name)
    assert sorted(found.classes(CLASSES), key=lambda c: c.name) == moved
    nets = [c.gained - c.lost for c in found.classes(2)]
    ahead = [net for net in nets if net > 0]
    assert ahead == sorted(ahead, reverse=True) and len(ahead) <= 2
    confused = {
        (y, a): Confusion(
            found.found.classes[y], found.found.classes[a],
            int(((labels == y) & (said["before"] == a)).sum()),
            int(((labels == y) & (said["after"] == a)).sum()),
        )
        for y, a in product(range(CLASSES), repeat=2) if y != a
    }  # fmt: skip
    wanted = {c for c in confused.values() if c.before != c.after}
    assert set(found.confusions(100)) == wanted
    sizes = [abs(c.after - c.before) for c in found.confusions(100)]
    assert sizes == sorted(sizes, reverse=True)


def test_of_classes_that_moved_alike_the_one_where_more_changed_comes_first() -> None:
    labels = np.repeat(np.arange(4), 4)
    right = {  # of each class the images right before, and after
        "before": [0, 1, 0, 1,  0, 0, 0, 0,  1, 1, 0, 1,  1, 0, 0, 0],
        "after": [1, 0, 1, 1,  1, 0, 0, 0,  0, 0, 1, 1,  0, 0, 0, 0],
    }  # fmt: skip
    said = {name: np.where(known, labels, (labels + 1) % 4) for name, known in right.items()}
    found = Changes(complementarity(said, labels=labels).comparison)
    assert [(c.gained, c.lost) for c in found.classes(4)] == [(2, 1), (1, 0), (1, 2), (0, 1)]


def test_a_verdict_says_what_the_numbers_bear_out() -> None:
    labels = np.repeat(np.arange(2), 50)
    wrong = 1 - labels

    def verdict(before: int, after: int) -> str:
        said = {"before": wrong.copy(), "after": wrong.copy()}
        said["before"][:before] = labels[:before]
        said["after"][:after] = labels[:after]
        return Changes(complementarity(said, labels=labels).comparison).verdict

    assert verdict(40, 60).startswith("A significant gain of 20.00 points (p = ")
    assert verdict(60, 40).startswith("A significant loss of 20.00 points (p = ")
    assert verdict(40, 43) == (
        "No significant change; with 100 images, of which 3 changed, a Δ of ±6.00 could be seen."
    )
    assert verdict(40, 40) == "No change: all 100 images are right or wrong as before."


def test_without_a_teacher_nothing_is_said_of_one() -> None:
    found, _, _ = made(0, teacher=False)
    assert not found.taught and found.learned is None
    assert SimpleNamespace(**found.to_dict()).n == N
