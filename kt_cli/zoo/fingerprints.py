"""Hashes of models in memory: of their state, and of what functions keep beside it."""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from kt_cli.settings.declared import digest
from kt_cli.zoo import local_models

LIBRARIES = ("torch", "timm")
OF_THE_PROCESS = (logging.Logger, RemovableHandle)  # which count, and know each other
OF_TORCH = frozenset(vars(nn.Module()))  # parameters, buffers, modules, hooks


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
    for name, value in sorted(tensors, key=itemgetter(0)):
        if not isinstance(value, torch.Tensor):  # of a module's own get_extra_state
            state.update(f"{name}{digest(_told(value))}".encode())
            continue
        state.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        # Bytes of any type, of bfloat16 too, which numpy does not know.
        flat: Any = value.detach().cpu().contiguous().reshape(-1)
        state.update(flat.view(torch.uint8).numpy())
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
    if isinstance(value, OF_THE_PROCESS):
        return type(value).__qualname__
    if isinstance(value, (nn.Module, type)) or callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    if id(value) in inside:  # of the objects that it is a part of
        return "…"
    inside |= {id(value)}
    if isinstance(value, Mapping):
        pairs = [[_told(key, inside), _told(held, inside)] for key, held in value.items()]
        return sorted(pairs, key=repr)
    if isinstance(value, (set, frozenset)):
        return sorted((_told(held, inside) for held in value), key=repr)
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
