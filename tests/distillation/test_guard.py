"""How far the guard lets a student go, and what it judges by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor, nn

from kt_cli.data.images import ImageSet
from kt_cli.distillation import batch_norm
from kt_cli.distillation.guard import Choice, Judge, choose
from kt_cli.distillation.guard_rules import ALPHAS, Flips, Prior, Verdict, gain
from kt_cli.distillation.weight_averaging import between
from kt_cli.knowledge.evaluate import Evaluator, evaluate
from kt_cli.knowledge.predictions import Predictions
from tests.distillation.toys import CONFIG, CPU, Tiny, assert_same, make_views, prepare, state

FULL = {**CONFIG, "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center"}
Pixels = NDArray[np.uint8]


def image_set(pixels: Pixels, labels: NDArray[np.int64], valid: Any = None) -> ImageSet:
    """Of (n, 4, 4, 3) pixels."""
    return ImageSet(
        "toys", ("a", "b", "c"), [str(i) for i in range(len(pixels))], labels,
        lambda i: Image.fromarray(pixels[i]), "x", valid,
    )  # fmt: skip


def by_gain(flips: Flips) -> Verdict:
    return gain(flips, 0.0, Prior.of([]))


def score_of(choice: Choice) -> float:
    return float(choice.verdict.score[int(choice.verdict.place) - 1])


# --- the choice ----------------------------------------------------------------------------------


class Threshold(nn.Module):
    """Class 1 where an image is brighter than its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        above = (x * 0.25 + 0.5).mean(dim=(1, 2, 3)) - self.weight
        return torch.stack([-above, above], dim=1)


def grey(levels: NDArray[np.floating]) -> Pixels:
    values = np.round(255 * levels).astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (len(values), 4, 4, 3)).copy()


def at(weight: float) -> dict[str, Tensor]:
    return {"weight": torch.tensor([weight])}


def line(start: float, end: float, levels: NDArray[np.floating]) -> tuple[Choice, float]:
    """What the guard chooses between two thresholds, where 0.5 is right; the threshold there."""
    module = Threshold()
    labels = (levels > 0.5).astype(np.int64)
    before = ((levels > start) == labels).astype(bool)
    evaluator = Evaluator(module, FULL, CPU)
    images = image_set(grey(levels), labels)
    choice = choose(evaluator, at(start), at(end), Judge(images, before), never_called, by_gain)
    return choice, float(module.weight.detach())


def never_called(module: nn.Module) -> None:
    raise AssertionError("there are no running statistics")


LEVELS = (np.arange(300) + 0.5) / 300


def test_the_best_place_of_the_line_is_chosen() -> None:
    """From 0.2 to 0.8 it is half way: there everything is right."""
    choice, weight = line(0.2, 0.8, LEVELS)
    gained = int(((LEVELS > 0.2) & (LEVELS <= 0.5)).sum())
    low = binomtest(gained, gained).proportion_ci(0.99, "exact").low  # two-sided: 0.005 below
    assert choice.alpha == 0.5 and choice.flips.n == 300 and weight == pytest.approx(0.5)
    assert score_of(choice) == pytest.approx(gained / 300 * (2 * low - 1))


@pytest.mark.parametrize(("start", "end", "alpha"), [(0.2, 0.5, 1.0), (0.1, 4.1, 0.1)])
def test_the_ends_can_be_the_best(start: float, end: float, alpha: float) -> None:
    choice, weight = line(start, end, LEVELS)
    assert choice.alpha == alpha and weight == pytest.approx(0.5)


@pytest.mark.parametrize("end", [0.2, 0.9, 0.5, 0.52])
def test_where_nothing_is_surely_better_the_student_stays(end: float) -> None:
    choice, weight = line(0.5, end, LEVELS)
    judged = image_set(grey(LEVELS), (LEVELS > 0.5).astype(np.int64))
    assert (choice.alpha, choice.flips.n, choice.images) == (0, 300, judged.fingerprint)
    assert weight == 0.5


class Tied(nn.Module):
    """Fourteen classes, two of which tie for the first place."""

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.arange(14.0) % 7
        return logits.expand(len(x), 14) + 0 * x.mean()


def test_the_guard_takes_of_a_tie_what_the_evaluation_takes() -> None:
    images = image_set(grey(LEVELS[:8]), np.zeros(8, dtype=np.int64))
    evaluated = evaluate(Tied(), FULL, images, CPU).pred
    judge = Judge(images, np.zeros(8, dtype=bool), evaluated)
    choice = choose(Evaluator(Tied(), FULL, CPU), {}, {}, judge, never_called, by_gain)
    assert choice.flips.gained.tolist() == [8] * 10


def test_the_surest_of_a_hundred_decides() -> None:
    images = image_set(grey(LEVELS[:2]), np.zeros(2, dtype=np.int64))
    others = [said(images, [i % 3, 1], [i / 100, 0.5]) for i in range(100)]
    judge = Judge.without_labels(said(images, [1, 2], [0.0, 0.5]), others)
    assert judge.answers is not None and judge.answers.tolist() == [99 % 3, 2]


def test_too_few_gains_are_not_enough() -> None:
    """Seven gains without a loss have p = 0.0078, eight 0.0039."""
    for gains, alpha in ((7, 0.0), (8, 1.0)):
        levels = np.concatenate([np.full(gains, 0.45), np.full(92, 0.9)])
        choice, _ = line(0.43, 0.452, levels)  # their grey is 115 of 255
        assert choice.alpha == alpha


def test_in_a_tie_the_smaller_step_is_taken() -> None:
    levels = np.concatenate([np.full(50, 0.3), np.full(50, 0.7)])
    choice, weight = line(0.2, 0.8, levels)  # from 0.32 to 0.68 all is right
    assert choice.alpha == 0.2 and weight == pytest.approx(0.32)


# --- running statistics --------------------------------------------------------------------------

NAMES = {f"body.2.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


def restore(module: nn.Module) -> None:
    batch_norm.recompute(module, make_views("flip"), prepare)


def noise(n: int = 300) -> Pixels:
    return np.random.default_rng(5).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)


@torch.no_grad()
def predicted(values: Mapping[str, Tensor], pixels: Pixels) -> NDArray[np.int64]:
    module = Tiny(0, norm=True)
    module.load_state_dict(dict(values))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    found: NDArray[np.int64] = module.eval()(prepare(images)).argmax(1).numpy()
    return found


def by_hand(start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> Any:
    """The state at α with statistics of its own."""
    module = Tiny(0, norm=True)
    module.load_state_dict(between(start, end, alpha))
    restore(module)
    return state(module)


@pytest.fixture
def ends() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two students; their statistics are those of no data at all."""
    return state(Tiny(1, norm=True)), state(Tiny(2, norm=True))


@pytest.mark.parametrize("best", [0.3, 0.7, 1.0])
def test_each_place_is_judged_and_left_with_its_own_statistics(
    ends: tuple[dict[str, Tensor], dict[str, Tensor]], best: float
) -> None:
    start, end = ends
    copies = {n: v.clone() for n, v in start.items()}, {n: v.clone() for n, v in end.items()}
    pixels = noise()
    # The truth is what the best place says.
    labels = predicted(by_hand(start, end, best), pixels)
    before = predicted(start, pixels) == labels
    module = Tiny(0, norm=True)
    judge = Judge(image_set(pixels, labels), before)
    found = choose(Evaluator(module, FULL, CPU), start, end, judge, restore, by_gain)
    afters = np.array([predicted(by_hand(start, end, a), pixels) == labels for a in ALPHAS])
    assert found.flips.gained.tolist() == (afters & ~before).sum(1).tolist()
    assert found.flips.lost.tolist() == (before & ~afters).sum(1).tolist()
    assert (found.alpha, found.flips.n) == (best, 300)
    assert found.images == judge.images.fingerprint
    assert_same(module.state_dict(), by_hand(start, end, best))
    assert not module.training
    assert_same(start, copies[0])
    assert_same(end, copies[1])


def test_without_a_better_place_the_student_is_as_before_bit_for_bit(
    ends: tuple[dict[str, Tensor], dict[str, Tensor]],
) -> None:
    start, end = ends
    pixels = noise()
    labels = predicted(start, pixels)
    module = Tiny(0, norm=True)
    judge = Judge(image_set(pixels, labels), np.ones(300, bool))
    assert choose(Evaluator(module, FULL, CPU), start, end, judge, restore, by_gain).alpha == 0
    assert_same(module.state_dict(), start)


# --- what is right -------------------------------------------------------------------------------


def said(images: ImageSet, pred: list[int], confidence: list[float]) -> Predictions:
    sure = np.array(confidence, np.float32)
    return Predictions(images, np.array(pred, np.int16), sure, sure, None, {})


def test_without_labels_the_surest_answer_is_right_the_students_in_a_tie() -> None:
    images = image_set(noise(6), np.full(6, -1))
    student = said(images, [0, 0, 0, 0, 1, 2], [0.5, 0.5, 0.5, 0.9, 0.5, 0.5])
    one = said(images, [1, 1, 1, 1, 1, 1], [0.6, 0.5, 0.6, 0.8, 0.9, 0.4])
    two = said(images, [2, 2, 2, 2, 2, 2], [0.7, 0.5, 0.6, 0.9, 0.1, 0.6])
    judge = Judge.without_labels(student, [one, two])
    # Teacher two, the student (all tie), teacher one (before two), the student, one, two.
    assert judge.answers is not None and judge.answers.tolist() == [2, 0, 1, 0, 1, 2]
    assert judge.before.tolist() == [False, True, False, True, True, True]
    assert judge.right(np.array([[2, 1, 1, 0, 0, 2], [2, 0, 1, 0, 1, 2]])).tolist() == [
        [True, False, True, True, False, True],
        [True] * 6,
    ]


def test_with_labels_what_they_say_is_right_several_too() -> None:
    labels = np.array([0, 1, 2])
    judge = Judge(image_set(noise(3), labels), np.ones(3, bool))
    assert judge.right(np.array([0, 2, 2])).tolist() == [True, False, True]
    several = image_set(noise(3), labels, np.array([[0, 1], [1, -1], [2, -1]], np.int32))
    assert Judge(several, np.ones(3, bool)).right(np.array([1, 0, 2])).tolist() == [
        True, False, True,
    ]  # fmt: skip


def test_answers_of_the_surest_decide_without_labels() -> None:
    """The line again; its images have no labels, but a teacher that is sure of the truth."""
    truth = (LEVELS > 0.5).astype(int)
    images = image_set(grey(LEVELS), np.full(300, -1))
    student = said(images, (LEVELS > 0.2).astype(int).tolist(), [0.6] * 300)
    teacher = said(images, truth.tolist(), [0.7] * 300)
    module = Threshold()
    judge = Judge.without_labels(student, [teacher])
    found = choose(Evaluator(module, FULL, CPU), at(0.2), at(0.8), judge, never_called, by_gain)
    assert found.alpha == 0.5 and score_of(found) > 0
