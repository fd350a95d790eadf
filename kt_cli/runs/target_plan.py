"""What the transfers of a sweep share: what models say about training views, kept where it pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kt_cli.data.views import is_random
from kt_cli.distillation import methods, target_cache
from kt_cli.distillation.target_cache import Decision
from kt_cli.settings import TransferSpec
from kt_cli.spec import RunOf


def keep_targets(
    runs: Sequence[RunOf[TransferSpec]], images: int, classes: int, budget: float
) -> tuple[list[RunOf[TransferSpec]], str]:
    """The runs, each told where what models say about its views is kept; and why there.

    Decided from all runs of a sweep, done or not, so that it stays as it is.

    Args:
        images, classes: how many training images and classes there are.
        budget: GB of disk.
    """
    uses, distinct = 0, set()
    for run in runs:
        spec = run.settings
        method = methods.find(spec.method)
        asked = [*run.models[:-1]] * method.teacher + [run.models[-1]] * methods.needs_frozen(spec)
        views = range(spec.epochs if is_random(spec.augment) else 1)
        uses += len(asked) * spec.epochs
        distinct |= {(model.key, spec.seed, method.features, e) for model in asked for e in views}
    if not distinct or any(run.settings.keep_targets != "auto" for run in runs):
        return list(runs), ""
    decision = target_cache.decide(
        images=images, classes=classes, answers=len(distinct),
        uses=uses / len(distinct), memory=target_cache.MEMORY_BUDGET, disk=int(budget * 1e9),
    )  # fmt: skip
    return [replace(run, settings=_kept(run.settings, decision)) for run in runs], str(decision)


def _kept(settings: TransferSpec, decision: Decision) -> TransferSpec:
    """Settings as decided, where the method goes with it."""
    if decision.topk and not methods.takes_topk(settings, decision.topk):
        return replace(settings, keep_targets=target_cache.ONLINE)
    topk = decision.topk or settings.target_topk
    return replace(settings, keep_targets=decision.kind, target_topk=topk)
