"""What a model was when it said something: its traits, which need it in memory, and its source.

While the source is the same, so are the traits. docs/architecture.md (Identity) says what they are.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kt_cli.files import status_of
from kt_cli.settings.declared import digest
from kt_cli.spec import Model
from kt_cli.zoo import local_models, published, scheme, target, timm_package, timm_registry

Traits = dict[str, str]
TRAITS = ("weights", "preprocessing", "outputs")
LIBRARIES = ("torch", "timm")
PACKAGES = {"tv": "torchvision", "hf": "transformers", "clip": "open_clip_torch"}
OF_TORCH = frozenset(vars(nn.Module()))  # parameters, buffers, modules, hooks


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


# --- the weights as loaded ----------------------------------------------------------------------


def fingerprint(module: nn.Module) -> str:
    """Hash of the names, shapes, types and values of a module's state."""
    return _hashed(module.state_dict().items())


def fingerprint_of_function(module: nn.Module) -> str:
    """As `fingerprint`, with what a module of the user's own may keep beside its state.

    Buffers that are not saved, attributes of whatever kind, and the files that its classes are
    written in; not what functions hold and call (hooks, closures).
    """
    buffers = {**module.state_dict(), **dict(module.named_buffers())}
    parts = []
    for name, part in module.named_modules():
        held = {key: value for key, value in vars(part).items() if key not in OF_TORCH}
        parts.append([name, type(part).__qualname__, _told(held)])
    files = sorted({path for part in module.modules() if (path := _file(type(part)))})
    code = [local_models.content(Path(path)).hex() for path in files]
    return digest([_hashed(buffers.items()), parts, code])[:16]


def _hashed(tensors: Iterable[tuple[str, Any]]) -> str:
    state = hashlib.blake2b()
    for name, value in sorted(tensors):
        state.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        # Bytes of any type, of bfloat16 too, which numpy does not know.
        state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()[:16]


def _told(value: Any, inside: frozenset[int] = frozenset()) -> Any:
    """As JSON-able text: arrays by content, objects by what they hold, functions by name."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.Tensor):
        return _hashed([("", value)])
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        content = repr(array.tolist()) if array.dtype.hasobject else array.tobytes()
        return [str(array.dtype), array.shape, digest(str(content))]
    if isinstance(value, (nn.Module, type)) or callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    if id(value) in inside:  # of the objects that it is a part of
        return "…"
    inside |= {id(value)}
    if isinstance(value, Mapping):
        return sorted([repr(key), _told(held, inside)] for key, held in value.items())
    if isinstance(value, (set, frozenset)):
        return sorted(repr(held) for held in value)
    if isinstance(value, (list, tuple)):
        return [_told(held, inside) for held in value]
    if hasattr(value, "__dict__"):
        held = {name: _told(inner, inside) for name, inner in vars(value).items()}
        return [type(value).__qualname__, sorted(held.items())]
    text = repr(value)
    # The place of an object in memory says nothing of it.
    return type(value).__qualname__ if " at 0x" in text else text


def _file(kind: type) -> str | None:
    if kind.__module__.partition(".")[0] in LIBRARIES:
        return None
    try:
        return inspect.getsourcefile(kind)
    except (TypeError, OSError):  # made at run time
        return None
