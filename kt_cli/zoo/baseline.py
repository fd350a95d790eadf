"""Randomly initialised twins of models: what a teacher that knows nothing "knows" (the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kt_cli.spec import Model
from kt_cli.zoo import local_models, names, scheme, target

AT_MOST = 10


def random_twins(models: Sequence[Model], at_most: int = AT_MOST) -> list[Model]:
    """Untrained models of the architectures of `models`, each once; evenly drawn where many."""
    known = list(dict.fromkeys(arch for model in models if (arch := _architecture(model))))
    step = max(1, -(-len(known) // at_most))
    chosen = [f"random:{arch}" for arch in known[::step]]
    return names.resolve(chosen) if chosen else []


def _architecture(model: Model) -> str | None:
    kind = scheme(model.ref)
    if kind == "timm":
        return model.ref.partition(".")[0]
    if kind == "checkpoint":
        return model.ref.partition("@")[0].partition(".")[0]
    if kind == "local-dir":
        found = local_models.read_config(Path(target(model.ref))).get("architecture")
        return str(found) if found else None
    return None
