"""What a comparison means: one ordered pair in a sentence, and the images behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from kt_cli.errors import counted
from kt_cli.knowledge.comparison import Comparison
from kt_cli.knowledge.percent import percent
from kt_cli.knowledge.significance import SIGNIFICANT

ALIKE = 95.0  # percentile from which classes are called alike
FEW = 10  # images, below which nothing is said about their classes
EVEN = 0.8  # of the classes that chance would reach, below which flips are concentrated
DRAWS = 200
SEED = 0


@dataclass(frozen=True)
class Direction:
    """What a teacher knows that a student does not, in numbers of images.

    Attributes:
        n: all images. student_right: those that the student has right.
        flips: teacher right, student wrong. back: the reverse.
        p: McNemar's, of flips against back.
        concentrated: the flips lie in few classes; None where that cannot be told.
        percentile: of the likeness of the classes that hold half of the flips; None if unknown.
    """

    teacher: str
    student: str
    n: int
    student_right: int
    flips: int
    back: int
    p: float
    concentrated: bool | None = None
    percentile: float | None = None

    @property
    def share(self) -> float:
        """ρ⁺ in percent."""
        return float(percent(self.flips, self.n))

    @property
    def ahead(self) -> float:
        """By how much the teacher is more accurate, in points."""
        return float(percent(self.flips - self.back, self.n))


def direction(found: Comparison, teacher: int, student: int) -> Direction:
    """The numbers of one ordered pair."""
    right, flips = found.right, found.flips(teacher, student)
    similar = float(found.pairs["top50_similarity_pct"][teacher, student])
    return Direction(
        teacher=found.names[teacher],
        student=found.names[student],
        n=found.n,
        student_right=int(right[student].sum()),
        flips=int(flips.sum()),
        back=int((right[student] & ~right[teacher]).sum()),
        p=float(found.pairs["mcnemar_p"][teacher, student]),
        concentrated=concentrated(flips, found.images.class_sizes),
        percentile=None if np.isnan(similar) else similar,
    )


def concentrated(flips: NDArray[np.int64], images: NDArray[np.int64]) -> bool | None:
    """Whether flips (C,) lie in fewer classes than as many images drawn blindly would.

    Not against ln C: a few flips cannot reach many classes. Concentrated are those whose entropy
    is below 97.5% of such draws and whose effective number of classes (its exponential) is below
    EVEN of what the draws reach on average. None for few flips, and for one class.
    """
    total = int(flips.sum())
    if total < FEW or np.count_nonzero(images) < 2:
        return None
    draws = np.random.default_rng(SEED).multinomial(total, images / images.sum(), size=DRAWS)
    entropy, by_chance = (
        entr(counts / counts.sum(axis=1, keepdims=True)).sum(axis=1)
        for counts in (flips[None], draws)
    )
    few = entropy[0] - by_chance.mean() < np.log(EVEN)
    return bool(few and entropy[0] < np.quantile(by_chance, 0.025))


# --- in words ------------------------------------------------------------------------------------


def sentence(pair: Direction) -> str:
    """What the numbers of an ordered pair mean."""
    teacher, student = pair.teacher, pair.student
    if not pair.flips and not pair.back:
        same = f"{teacher} and {student} have the same images right"
        return f"{same}: neither has anything to learn from the other."
    if not pair.flips:
        nothing = f"{teacher} knows nothing that {student} does not"
        return f"{nothing}: on these images {student} has nothing to learn from it."
    before = percent(pair.student_right, pair.n)
    digits = 2 if pair.share >= 0.01 else 4
    return (
        f"{_standing(pair)} knows {_in_words(pair.share)} ({counted(pair.flips, 'image')}) that "
        f"{student} does not: a perfect transfer would lift {student} from {before:.{digits}f}% "
        f"to {before + pair.share:.{digits}f}%{_where(pair)}."
    )


def _standing(pair: Direction) -> str:
    """Who is ahead, up to the verb."""
    teacher, ahead = pair.teacher, pair.ahead
    if not ahead:
        return f"{teacher} and {pair.student} are equally accurate, yet {teacher}"
    points = f"{abs(ahead):.1f}" if abs(ahead) >= 1 else f"{abs(ahead):.2g}"
    text = f"{teacher} is {points} points {'stronger' if ahead > 0 else 'weaker'}"
    if pair.p >= SIGNIFICANT:
        return f"{text}, which may be chance, and"
    return f"{text} and" if ahead > 0 else f"{text}, yet"


def _where(pair: Direction) -> str:
    if pair.concentrated is None:
        return ""
    alike = pair.percentile is not None and pair.percentile >= ALIKE
    if pair.concentrated:
        return "; this knowledge is concentrated in few classes" + ", which are alike" * alike
    return "; this knowledge is spread over the classes" + ", foremost over similar ones" * alike


def _in_words(share: float) -> str:
    """A share in percent, with more digits where two would show nothing."""
    return f"{share:.2f}%" if share >= 0.01 or share == 0 else f"{share:.2g}%"


# --- the images behind it ------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """An image that a teacher has right and a student wrong; probabilities are None if unknown.

    Attributes:
        index: its place among the images. label: its class, as people read it.
        teacher_prob: what the teacher gives the label. student_prob: what the student gives it.
        answer: what the student says instead, with this confidence.
    """

    index: int
    id: str
    label: str
    teacher_prob: float | None
    student_prob: float | None
    answer: str
    confidence: float | None


def samples(found: Comparison, teacher: int, student: int, count: int) -> list[Sample]:
    """Up to `count` images that the teacher has right and the student wrong.

    First those to whose label the teacher gives the most probability beyond the student's; where
    that is not known, in the order of the images.
    """
    knows, lacks = found.predictions[teacher], found.predictions[student]
    known = np.flatnonzero(found.right[teacher] & ~found.right[student])
    more = knows.label_prob[known].astype(np.float64) - lacks.label_prob[known]
    order = np.argsort(-np.nan_to_num(more, nan=-np.inf), kind="stable")[:count]
    return [
        Sample(
            index=i,
            id=found.images.ids[i],
            label=found.classes[found.images.labels[i]],
            teacher_prob=_known(knows.label_prob[i]),
            student_prob=_known(lacks.label_prob[i]),
            answer=found.answer(student, i),
            confidence=_known(lacks.confidence[i]),
        )
        for i in known[order].tolist()
    ]


def _known(probability: np.float32) -> float | None:
    return None if np.isnan(probability) else float(f"{float(probability):.6g}")
