"""What a model was when it said something: its traits, which need it in memory, and its source.

While the source is the same, so are the traits. docs/architecture.md (Identity) says what they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from kt_cli.files import status_of
from kt_cli.settings.declared import digest
from kt_cli.spec import Model
from kt_cli.zoo import local_models, published, scheme, target, timm_package, timm_registry

Traits = dict[str, str]
TRAITS = ("weights", "preprocessing", "outputs")
PACKAGES = {"tv": "torchvision", "hf": "transformers", "clip": "open_clip_torch"}


@cache
def timm_version() -> str:
    return version("timm")


def source(model: Model) -> str:
    """Hash of all that decides what would be loaded, without loading it; "" where that is unknown.

    As of functions, which may read any file, and of published weights that are not in the cache.
    """
    kind = scheme(model.ref)
    if kind in ("py", "predictions"):
        return ""
    known: list[Any] = [model.key, timm_version()]
    if published(model.ref):
        file = timm_registry.cached(model.ref)
        if file is None:
            return ""
        # The hub names files by their content; that it is still this content, the status tells.
        known += [file.resolve().name, *status_of(file.stat())]
        for name in timm_registry.BESIDE.get(kind, ()):
            known.append(local_models.content(file.parent / name).hex())
    if kind in PACKAGES:
        known.append(version(PACKAGES[kind]))
    architecture = {
        "timm": model.ref,
        "checkpoint": model.ref.partition("@")[0],
        "random": target(model.ref).partition("#")[0],
    }.get(kind)
    if architecture:
        known.append(timm_package.config(architecture).whole)
    return digest(known)[:24]


def preprocessing(evaluation: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    """Data configurations at both sizes as JSON; `train_…` where that of training differs."""
    tested, trained = (json.loads(json.dumps(c, default=str)) for c in (evaluation, training))
    differing = {f"train_{k}": v for k, v in trained.items() if v != tested.get(k)}
    return json.dumps({**tested, **differing, "timm": timm_version()}, sort_keys=True)


def outputs(columns: Sequence[int] | None) -> str:
    """Hash of the chosen outputs in the order of the classes; "" for all as they are."""
    return "" if columns is None else digest(list(columns))[:16]


def differences(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What changed between two traits, a phrase each; what is not known of both is no change."""
    found = []
    for name in (name for name in TRAITS if name in was and name in now):
        before, after = was[name], now[name]
        if before == after:
            continue
        if name == "preprocessing":
            old, new = json.loads(before), json.loads(after)
            keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
            found += [f"{key} {old.get(key)} → {new.get(key)}" for key in keys]
        else:
            found.append(f"{name} were {before or 'as they come'}, are {after or 'as they come'}")
    return found
