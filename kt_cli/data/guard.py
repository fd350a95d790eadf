"""The guard slice: images that `kt pretrain` set aside and that no later training touches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kt_cli.data.sources import training_id
from kt_cli.spec import DataSpec, Model
from kt_cli.zoo.own import card_extra


def leave_out_guards(spec: DataSpec, models: Sequence[Model]) -> DataSpec:
    """`spec` without the guard slices that training `models` on the same images left out."""
    cards = [card for model in models if (card := card_extra(model)) and card.get("guard")]
    if not cards:
        return spec
    here = _base(training_id(spec))
    shares = [float(c["guard"]) for c in cards if _base(str(c.get("train_data", ""))) == here]
    return replace(spec, guard=max([spec.guard, *shares]))


def _base(fingerprint: str) -> str:
    """The data set of a subset's fingerprint."""
    return fingerprint.split("/")[0]
