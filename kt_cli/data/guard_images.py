"""Images for the guard: what `kt pretrain` set aside and no later training touches, or others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kt_cli.data.images import ImageSet
from kt_cli.data.sources import guard_slice, open_data
from kt_cli.errors import UsageError
from kt_cli.settings import DataSpec
from kt_cli.spec import Model
from kt_cli.zoo.local_models import card_extra


def leave_out_guards(spec: DataSpec, models: Sequence[Model]) -> DataSpec:
    """`spec` without the guard slices that training `models` on the same images left out."""
    cards = [card for m in models if (card := _card_on_same_images(m, spec))]
    return replace(spec, guard=max([spec.guard, *(float(c.get("guard", 0)) for c in cards)]))


def unseen_share(model: Model, spec: DataSpec) -> float:
    """Share of the training images of `spec` that no training of `model` saw, by its card."""
    card = _card_on_same_images(model, spec)
    return float(card.get("unseen", 0)) if card else 0.0


def unseen_after(spec: DataSpec, start: Sequence[Model]) -> float:
    """The same once a model is trained on `spec`, from scratch or from one of `start`.

    A start that kt did not train on these images is taken for one that never saw them.
    """
    known = [unseen_share(m, spec) for m in start if _card_on_same_images(m, spec)]
    return common([spec.guard, *known], spec)


def common(shares: Sequence[float], spec: DataSpec) -> float:
    """The least of these shares, if its slice of the training images lies in those of all; else 0.

    Of classes with few images a smaller slice may have others than a larger one.
    """
    least, *larger = sorted(set(shares))
    if least <= 0 or not larger:
        return max(0.0, least)
    everything = open_data(replace(spec, guard=0.0, fraction=1.0), training=True).training()
    slices = [guard_slice(everything.labels, share) for share in (least, *larger)]
    return least if all(np.isin(slices[0], one).all() for one in slices) else 0.0


def _card_on_same_images(model: Model, spec: DataSpec) -> dict[str, Any] | None:
    card = card_extra(model)
    if not card:
        return None
    origin = open_data(spec, training=True).training().origin
    return card if str(card.get("train_data", "")).split("/")[0] == origin else None


def require_guard(spec: DataSpec, guard: ImageSet | None, student: Model, force: bool) -> None:
    """Refuse a guard on images that the student may have seen, but with `force` (UsageError).

    They flatter the student before transfer so much that the guard could never accept.
    """
    if spec.guard_data:
        return
    require_images(guard)
    shares = spec.guard, unseen_share(student, spec)
    if not force and common(shares, spec) < spec.guard:
        raise UsageError(
            f"{student.name} may have been trained on the guard slice ({spec.guard:.0%} of the "
            "training images)",
            "Name other images with --guard-data, or say --force-guard.",
        )


def require_images(guard: ImageSet | None) -> None:
    if guard is None or not len(guard):
        raise UsageError(
            "the guard needs images that the student never trained on",
            "Name them with --guard-data; or train the student with kt pretrain --guard-share 0.1.",
        )
