"""What models say about training views is kept where that pays, for all transfers of a sweep.

In memory where everything fits, else on disk in half precision, else on disk as the most probable
classes; nowhere where each answer is used once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kt_cli.data.augmentations import is_random
from kt_cli.distillation import methods
from kt_cli.distillation.target_cache import DISK, MEMORY, MEMORY_BUDGET, ONLINE
from kt_cli.errors import size_text
from kt_cli.settings import TransferSpec
from kt_cli.spec import RunOf

WHERE = {MEMORY: "in memory", DISK: "on disk", ONLINE: "computed as they are needed"}
LEAST_TOPK, MOST_TOPK = 10, 512
STATS_BYTES = 9  # of `SampleStats`: two floats and a flag
WIDTH = 2048  # of the features that are pooled, which only models in memory tell


def keep_targets(
    runs: Sequence[RunOf[TransferSpec]], images: int, classes: int, budget: float
) -> tuple[list[RunOf[TransferSpec]], str]:
    """The runs, each told where what models say about its views is kept; and why there.

    Decided from all runs of a sweep, done or not, so that it stays as it is.

    Args:
        images, classes: how many training images and classes there are.
        budget: GB of disk.
    """
    uses, width, distinct, heated = 0, 0, set(), set()
    for run in runs:
        spec = run.settings
        method = methods.find(spec.method)
        asked = [*run.models[:-1]] * method.teacher + [run.models[-1]] * methods.needs_frozen(spec)
        views = range(spec.epochs if is_random(spec.augment) else 1)
        uses += len(asked) * spec.epochs
        width = max(width, WIDTH * method.features)
        each = {(model.key, spec.seed, method.features, e) for model in asked for e in views}
        distinct |= each
        heated |= {(*one, spec.temperature) for one in each}  # as most probable classes are
    if not distinct or any(run.settings.keep_targets != "auto" for run in runs):
        return list(runs), ""
    decision = decide(
        images=images, classes=classes, answers=len(distinct), uses=uses / len(distinct),
        memory=MEMORY_BUDGET, disk=int(budget * 1e9), width=width, heated=len(heated),
    )  # fmt: skip
    return [replace(run, settings=_kept(run.settings, decision)) for run in runs], str(decision)


def _kept(settings: TransferSpec, decision: Decision) -> TransferSpec:
    if decision.topk and not methods.takes_topk(settings, decision.topk):
        return replace(settings, keep_targets=ONLINE)
    topk = decision.topk or settings.target_topk
    return replace(settings, keep_targets=decision.kind, target_topk=topk)


@dataclass(frozen=True)
class Decision:
    """Where answers are kept, and why."""

    kind: str  # a key of WHERE
    topk: int  # classes that are kept; 0 for all
    bytes: int  # what all of them take
    reason: str

    def __str__(self) -> str:
        """For a plan: `on disk, 12 classes each, 3 GB: …`."""
        classes = f", the {self.topk} most probable classes" if self.topk else ""
        size = f", {size_text(self.bytes)}" if self.bytes else ""
        return f"{WHERE[self.kind]}{classes}{size}: {self.reason}"


def decide(
    *,
    images: int,
    classes: int,
    answers: int,
    uses: float,
    memory: int,
    disk: int,
    width: int = 0,
    heated: int = 0,
) -> Decision:
    """Whether it pays to keep answers, and in which form they fit.

    Args:
        answers: how many (model, epoch) there are to be asked in all.
        uses: how often each is needed, in the mean.
        memory, disk: budgets in bytes. width: of the features that are kept too.
        heated: answers as most probable classes, which depend on the temperature; 0 for as many.
    """
    if uses < 2:
        return Decision(ONLINE, 0, 0, f"each answer is used {uses:.1f} times only")
    whole = images * answers * (4 * (classes + width) + STATS_BYTES)
    if whole <= memory:
        return Decision(MEMORY, 0, whole, f"used {uses:.1f} times each, and all fit in memory")
    half = images * answers * (2 * (classes + width) + STATS_BYTES)
    if half <= disk:
        return Decision(DISK, 0, half, f"used {uses:.1f} times each, in half precision")
    # Four bytes for a class and two for its probability.
    fixed = STATS_BYTES + 4 + 2 * width
    each = images * (heated or answers)
    fitting = min(MOST_TOPK, int((disk / max(1, each) - fixed) // 6))
    if fitting >= LEAST_TOPK:
        size = each * (6 * fitting + fixed)
        return Decision(DISK, fitting, size, f"{size_text(half)} of all classes exceed the budget")
    too_much = f"{size_text(half)} exceed the budget, so do the {LEAST_TOPK} most probable classes"
    return Decision(ONLINE, 0, 0, too_much)
