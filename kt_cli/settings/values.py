"""Values as a notebook has them, as values that a file could have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from kt_cli.errors import UsageError


def plain(value: Any) -> Any:
    """A value as a file would have it: not of NumPy, pandas or pathlib, and lists for tuples."""
    if isinstance(value, PathLike):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def texts(value: Any) -> list[str]:
    """One name, or several in whatever holds them, as a list (UsageError); files by their paths."""
    if value is None:
        return []
    several = isinstance(value, Iterable) and not isinstance(value, str)
    given = [*value] if several and not hasattr(value, "state_dict") else [value]
    names = list(map(plain, given))
    for one, name in zip(given, names, strict=True):
        if not isinstance(name, str):
            kind = one.__class__.__name__
            raise UsageError(f"a name or a path is needed, not {kind}", _named_how(one))
    return names


def _named_how(value: Any) -> str:
    if hasattr(value, "state_dict"):
        return "Save it as timm does (local-dir:FOLDER), or name what builds it (py:MODULE:NAME)."
    return 'Arrays have names: {"a": array, …}.' if hasattr(value, "shape") else ""


def absolute(path: str) -> str:
    """A file by its absolute path, since jobs may run elsewhere; "timm" is none."""
    return path if path == "timm" else str(Path(path).expanduser().absolute())
