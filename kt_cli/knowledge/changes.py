"""What changed from one model to another: gained and lost images, classes, confusions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kt_cli.errors import UsageError, signed
from kt_cli.knowledge.comparison import Comparison
from kt_cli.knowledge.significance import verdict

BEFORE, AFTER, TEACHER = 0, 1, 2  # places in the comparison; a teacher need not be there


class ClassChange(NamedTuple):
    """A class, and how many of its `images` were gained and lost."""

    name: str
    images: int
    gained: int
    lost: int


class Confusion(NamedTuple):
    """Images of the class `label` that were taken for `answer`, before and after."""

    label: str
    answer: str
    before: int
    after: int


@dataclass(frozen=True)
class Changes:
    """found: the model before, the model after and, if there is one, a teacher."""

    found: Comparison

    def __repr__(self) -> str:
        before, after = (self.found.names[i] for i in (BEFORE, AFTER))
        parts = f"gain {self.gain:.2f} − loss {self.loss:.2f}"
        return f"{before} → {after}: Δ {signed(self.delta)} = {parts}. {self.verdict}"

    @property
    def taught(self) -> bool:
        return len(self.found.names) > TEACHER

    @cached_property
    def gained(self) -> NDArray[np.bool_]:
        """(n,) wrong before, right after."""
        return np.asarray(self.found.right[AFTER] & ~self.found.right[BEFORE])

    @cached_property
    def lost(self) -> NDArray[np.bool_]:
        """(n,) right before, wrong after."""
        return np.asarray(self.found.right[BEFORE] & ~self.found.right[AFTER])

    @property
    def delta(self) -> float:
        """Δ in percentage points: gain − loss."""
        return self._of_pair("acc_diff")

    @property
    def gain(self) -> float:
        return self._of_pair("pos_flips")

    @property
    def loss(self) -> float:
        return self._of_pair("neg_flips")

    @property
    def p(self) -> float:
        """McNemar's, of gained against lost."""
        return self._of_pair("mcnemar_p")

    @property
    def learned(self) -> float | None:
        """Share in percent of gained images that the teacher had right; None if unknown."""
        if not self.taught or not self.gained.any():
            return None
        return float(100 * self.found.right[TEACHER][self.gained].mean())

    @property
    def verdict(self) -> str:
        """What came of it, in words."""
        said = verdict(int(self.gained.sum()), int(self.lost.sum()), self.found.n)
        return f"{said[0].upper()}{said[1:]}."

    def classes(self, count: int) -> list[ClassChange]:
        """Up to `count` classes that gained the most on balance, then as many that lost the most.

        By images; of equals the one where more changed.

        Raises:
            UsageError: a negative count.
        """
        if count < 0:
            raise UsageError(f"classes must be zero or more, not {count}")
        gained, lost = self.found.flips(AFTER, BEFORE), self.found.flips(BEFORE, AFTER)
        net, sizes = gained - lost, self.found.images.class_sizes
        ahead, behind = (
            [c for c in np.lexsort((-(gained + lost), -surplus)) if surplus[c] > 0][:count]
            for surplus in (net, -net)
        )
        return [
            ClassChange(self.found.classes[c], int(sizes[c]), int(gained[c]), int(lost[c]))
            for c in (*ahead, *behind)
        ]

    def confusions(self, count: int) -> list[Confusion]:
        """Up to `count` wrong answers that became rarer or more frequent, the largest change first.

        Of images with several valid labels, by the class that they count for.
        """
        wrong = [self._confused(i) for i in (BEFORE, AFTER)]
        # Of many classes few are ever confused: C² counts would not fit into memory.
        cells, places = np.unique(np.concatenate(wrong), return_inverse=True)
        sides = np.split(places, [len(wrong[0])])
        before, after = (np.bincount(side, minlength=len(cells)) for side in sides)
        moved = np.abs(after - before)
        order = [i for i in np.argsort(-moved, kind="stable")[:count] if moved[i]]
        names = self.found.classes
        return [
            Confusion(names[label], names[answer], int(before[i]), int(after[i]))
            for i in order for label, answer in [divmod(int(cells[i]), len(names))]
        ]  # fmt: skip

    def to_dict(self, count: int = 10) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {
            "names": list(self.found.names), "n": self.found.n, "verdict": self.verdict,
            "accuracies": self.found.accuracies, "delta": self.delta, "gain": self.gain,
            "loss": self.loss, "p": self.p, "learned": self.learned,
            "classes": [c._asdict() for c in self.classes(count)],
            "confusions": [c._asdict() for c in self.confusions(count)],
        }  # fmt: skip

    def _confused(self, model: int) -> NDArray[np.int64]:
        """Of each wrong answer its cell of C², label by label."""
        wrong, classes = ~self.found.right[model], len(self.found.classes)
        labels = self.found.images.labels[wrong].astype(np.int64)
        answers = self.found.predictions[model].pred[wrong].astype(np.int64)
        return np.asarray(labels * classes + answers)

    def _of_pair(self, name: str) -> float:
        return float(self.found.pairs[name][AFTER, BEFORE])
