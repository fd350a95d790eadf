"""The guard of a transfer: its rule, what it may know of other transfers, and its columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kt_cli.data.images import ImageSet
from kt_cli.distillation import methods
from kt_cli.distillation.guard import Choice, Right
from kt_cli.distillation.guard_rules import RULES, Flips, Prior, Verdict
from kt_cli.knowledge.significance import percent
from kt_cli.rows import store
from kt_cli.runs.columns import Row
from kt_cli.settings import TransferSpec
from kt_cli.settings.transfer import guard_of
from kt_cli.spec import TOGETHER, Model, RunOf

FLIPS = ["guard_gains", "guard_losses", "guard_n"]
SAME = ["student_key", "guard_data", "train_data", "settings", "together", "method"]


def judged_without_labels(spec: TransferSpec) -> bool:
    """Whether the guard judges by the surest answer: like the partition, it knows no labels."""
    method = methods.find(spec.method)
    return method.many and not method.labels


def rule_of(
    run: RunOf[TransferSpec], spec: TransferSpec, folder: Path, images: ImageSet, trained: ImageSet
) -> tuple[Callable[[Flips], Verdict], Row]:
    """What decides by flips of these images, and what the row says of how.

    spec: the settings that were possible in the end. trained: the images of the transfer.
    """
    found = guard_of(spec.method)
    assert found is not None
    rule, points = found
    pools = rule == "shrink"
    prior = Prior.of(_others(run.models, spec, folder, images, trained) if pools else [])
    said = {"guard_pooled": prior.transfers} if pools else {}
    return lambda flips: RULES[rule](flips, points / 100, prior), said


def _others(
    models: Sequence[Model], spec: TransferSpec, folder: Path, images: ImageSet, trained: ImageSet
) -> list[Flips]:
    """What other transfers of the student, by the same method and settings, did to these images.

    They have other teachers or seeds; whichever guard judged them.
    """
    columns = ["teacher_key", "seed", *SAME, *FLIPS, "status"]
    rows = store.read([folder], "transfer", columns)
    *teachers, student = models
    own = [student.key, images.fingerprint, trained.fingerprint, spec.settings, spec.together,
           spec.base_method]  # fmt: skip
    rows["method"] = rows["method"].str.replace(r"\+.*", "", regex=True)
    alike = (rows[SAME] == own).all(axis=1) & (rows["status"] == store.OK)
    taught = TOGETHER.join(model.key for model in teachers)
    alike &= (rows["teacher_key"] != taught) | (rows["seed"] != spec.seed)
    kept = rows[alike & rows["guard_gains"].notna()].drop_duplicates(["teacher_key", "seed"])
    return [
        Flips(np.array(gained), np.array(lost), int(n))
        for gained, lost, n in kept[FLIPS].itertuples(index=False)
    ]


def guard_columns(choice: Choice, before: Right, full: Right) -> Row:
    """What the guard chose, and what the student would have been without it.

    Args:
        before, full: (n,) whether the student before, and the one as trained, has each image right.
    """
    verdict, place, least = choice.verdict, int(choice.verdict.place), choice.verdict.least
    n = len(before)
    gain, loss = int((full & ~before).sum()), int((before & ~full).sum())
    return {
        "guard_alpha": choice.alpha,
        "guard_score": 100 * float(verdict.score[place - 1]) if place else 0.0,
        "guard_p": float(verdict.p[place - 1]) if place else None,
        "guard_least": None if least is None or np.isnan(least) else 100 * float(least),
        "guard_gains": choice.flips.gained.tolist(),
        "guard_losses": choice.flips.lost.tolist(),
        "guard_n": choice.flips.n,
        "guard_data": choice.images,
        "delta_unguarded": percent(gain - loss, n),
        "gain_unguarded": percent(gain, n),
        "loss_unguarded": percent(loss, n),
    }
