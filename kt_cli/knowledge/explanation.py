"""What a comparison means: one ordered pair in a sentence, and the images behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from kt_cli.errors import counted
from kt_cli.knowledge.comparison import Comparison
from kt_cli.knowledge.significance import SIGNIFICANT

ALIKE = 95.0  # percentile from which classes are called alike
FEW = 10  # images, below which nothing is said about their classes
EVEN = 0.8  # of the classes that chance would reach, below which flips are concentrated
DRAWS = 200
SEED = 0


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


def sentence(found: Comparison, teacher: int, student: int) -> str:
    """What the numbers of an ordered pair mean."""
    knows, lacks = found.names[teacher], found.names[student]
    share, back = (float(found.pairs[k][teacher, student]) for k in ("pos_flips", "neg_flips"))
    if not share and not back:
        same = f"{knows} and {lacks} have the same images right"
        return f"{same}: neither has anything to learn from the other."
    if not share:
        nothing = f"{knows} knows nothing that {lacks} does not"
        return f"{nothing}: on these images {lacks} has nothing to learn from it."
    flips = found.flips(teacher, student)
    before, digits = found.accuracies[student], 2 if share >= 0.01 else 4
    shown = f"{share:.2f}" if share >= 0.01 else f"{share:.2g}"
    return (
        f"{_standing(found, teacher, student)} knows {shown}% "
        f"({counted(int(flips.sum()), 'image')}) that {lacks} does not: a perfect transfer would "
        f"lift {lacks} from {before:.{digits}f}% to {before + share:.{digits}f}%"
        f"{_where(found, teacher, student, flips)}."
    )


def _standing(found: Comparison, teacher: int, student: int) -> str:
    """Who is ahead, up to the verb."""
    name, ahead = found.names[teacher], float(found.pairs["acc_diff"][teacher, student])
    if not ahead:
        return f"{name} and {found.names[student]} are equally accurate, yet {name}"
    points = f"{abs(ahead):.1f}" if abs(ahead) >= 1 else f"{abs(ahead):.2g}"
    text = f"{name} is {points} points {'stronger' if ahead > 0 else 'weaker'}"
    if found.pairs["mcnemar_p"][teacher, student] >= SIGNIFICANT:
        return f"{text}, which may be chance, and"
    return f"{text} and" if ahead > 0 else f"{text}, yet"


def _where(found: Comparison, teacher: int, student: int, flips: NDArray[np.int64]) -> str:
    few = concentrated(flips, found.images.class_sizes)
    if few is None:
        return ""
    alike = bool(found.pairs["top50_similarity_pct"][teacher, student] >= ALIKE)  # not of NaN
    if few:
        return "; this knowledge is concentrated in few classes" + ", which are alike" * alike
    return "; this knowledge is spread over the classes" + ", foremost over similar ones" * alike


# --- the images behind it ------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """An image that a teacher has right and a student wrong; probabilities are None if unknown."""

    index: int  # its place among the images
    id: str
    label: str  # its class, as people read it
    teacher_prob: float | None  # what the teacher gives the label
    student_prob: float | None  # what the student gives it
    answer: str  # what the student says instead, with this confidence
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
