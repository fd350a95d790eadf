"""Randomly initialised twins of models: what a teacher that knows nothing "knows" (the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kt_cli.spec import Model
from kt_cli.zoo import local_models, names, scheme, target

AT_MOST = 10


def random_twins(models: Sequence[Model]) -> list[Model]:
    """Untrained models of the architectures of `models`, each once; evenly drawn where many."""
    known = list(dict.fromkeys(arch for model in models if (arch := _architecture(model))))
    step = max(1, -(-len(known) // AT_MOST))
    return names.resolve([f"random:{arch}" for arch in known[::step]]) if known else []


def _architecture(model: Model) -> str | None:
    kind = scheme(model.ref)
    if kind == "local-dir":
        found: str | None = local_models.read_config(Path(target(model.ref))).get("architecture")
        return found
    known = kind in ("timm", "checkpoint")
    return model.ref.partition("@")[0].partition(".")[0] if known else None
