"""Checkpoint files as trainers write them, and the weights of a timm architecture in them.

Read with `weights_only` throughout: no file is ever unpickled.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from kt_cli.errors import DataError, first_line, some_of
from kt_cli.zoo import timm_package

LISTED = 3
# What compiling and sharding put between a module's name and those of its parts.
WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
AVERAGED = re.compile(r"(^|[._])ema($|[._])")
NUMBERS = [np.dtype, *{type(np.dtype(code)) for code in "?bBhHiIlLqQefdg"}]
SCALAR = np.float64(0).__reduce__()[0]  # makes NumPy's numbers again, whichever its name
SAFE: list[Any] = [
    argparse.Namespace, *NUMBERS, *((SCALAR, f"numpy.{core}.multiarray.scalar")
    for core in ("core", "_core")),
]  # fmt: skip
Weights = dict[str, Tensor]


def opened(arch: str, file: Path) -> nn.Module:
    """A timm architecture with the weights of a file; DataError where they do not fit.

    They may lie in a mapping of another, and their names may have a prefix. Names that are not
    timm's are tried as those of the original authors, where timm knows these.
    """
    tables = _tables_of(file)
    what = f"{file} does not fit {arch}"
    try:
        return _built(arch, _of_classifier(arch, _classifier(arch), tables, file), what)
    except DataError:
        original = _by_original_names(arch, tables)
        if original is None:
            raise
        return _built(arch, original, what)


def of_classifier(arch: str, head: str, file: Path) -> Weights:
    """The weights in a file whose classifier has this name, as `opened` finds them (DataError)."""
    return _of_classifier(arch, head, _tables_of(file), file)


def require_weights(file: Path) -> None:
    """Refuse what was saved in place of weights (DataError)."""
    with file.open("rb") as opened:
        start = opened.read(256).lstrip()
    if not start:
        raise DataError(f"{file} is empty", "Save or fetch it again.")
    if start.startswith(b"version https://git-lfs"):
        raise DataError(f"{file} is a Git LFS pointer", "Fetch it with git lfs pull.")
    if re.match(rb"<(!doctype|html|\?xml)", start, re.IGNORECASE):
        raise DataError(
            f"{file} is a web page", "Fetch the file itself: its address may ask for a login."
        )


def _read(file: Path) -> Any:
    require_weights(file)
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    try:
        with torch.serialization.safe_globals(SAFE):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError):
        raise
    except (EOFError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        if (explained := _explained(file, error)) is None:
            raise
        raise explained from error


def _explained(file: Path, error: Exception) -> DataError | None:
    """What is wrong with a file that torch does not read; None where it is none of its faults."""
    said = str(error)
    if "TorchScript" in said:
        tip = "Save its state_dict: torch.save(torch.jit.load(FILE).state_dict(), NEW)."
        return DataError(f"{file} is a TorchScript archive", tip)
    if isinstance(error, (EOFError, OSError)) or "PytorchStreamReader" in said:
        return DataError(f"{file} is cut off or damaged", "Fetch it again.")
    if not isinstance(error, pickle.UnpicklingError):
        return None
    if "Unsupported" not in said:
        return DataError(f"{file} is no checkpoint, or damaged: {first_line(error)}")
    kinds = re.findall(r"Unsupported \w+: GLOBAL (\S+)", said) or ["unknown"]
    return DataError(
        f"{file} holds an object ({kinds[0]}) beside weights, and is read with weights_only",
        "Where you trust it, save the weights alone: "
        "torch.save(torch.load(FILE, weights_only=False)[NAME], NEW).",
    )


def _tables_of(file: Path) -> list[tuple[str, Weights]]:
    content = _read(file)
    tables = list(_tables(content)) if isinstance(content, Mapping) else []
    if not tables:
        raise DataError(f"{file} holds no weights by name", "Save a state_dict: torch.save.")
    return tables


def _tables(content: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Weights]]:
    """Each mapping that holds tensors, with its place in the file."""
    tensors = {WRAPPERS.sub("", str(k)): v for k, v in content.items() if isinstance(v, Tensor)}
    if tensors:
        yield path, tensors
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _tables(value, f"{path}{key}.")


def _of_classifier(arch: str, head: str, tables: list[tuple[str, Weights]], file: Path) -> Weights:
    """The largest part, less its prefix, with a classifier of this name."""
    found = [
        (path + prefix, {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
        for path, tensors in tables
        for key in tensors
        if f".{key}".endswith(f".{head}")
        for prefix in [key.removesuffix(head)]
    ]
    if not found:
        raise DataError(
            f"{file} does not fit {arch}: it has no classifier {head} but "
            f"{some_of([*_largest(tables)[0][1]], LISTED)}",
            "Is it a checkpoint of another architecture, or one without a head?",
        )
    best = _largest(found)
    (_, weights), *others = best
    if any(not _equal(weights, other) for _, other in others):
        names = some_of([name.rstrip(".") or "its top" for name, _ in best], LISTED)
        raise DataError(f"{file} holds several models: {names}", "Save the one that is meant.")
    return weights


def _equal(weights: Weights, others: Weights) -> bool:
    names = weights.keys()
    return names == others.keys() and all(torch.equal(weights[k], others[k]) for k in names)


def _classifier(arch: str) -> str:
    return f"{timm_package.config(arch).classifier}.weight"


def _largest(tables: list[tuple[str, Weights]]) -> list[tuple[str, Weights]]:
    """The largest parts; only EMAs where some of them are."""
    most = max(len(weights) for _, weights in tables)
    whole = [table for table in tables if len(table[1]) == most]
    return [table for table in whole if AVERAGED.search(table[0])] or whole


def _by_original_names(arch: str, tables: list[tuple[str, Weights]]) -> Weights | None:
    """The largest mapping with timm's names, where timm's own map of the architecture makes them.

    None where it does not, or would stretch positions for another size of images.
    """
    import timm
    from timm.models import _builder

    weights = _largest(tables)[0][1]
    prefix = next(iter(weights)).partition(".")[0] + "."
    if all(name.startswith(prefix) for name in weights):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    # The map is an argument of each architecture's own that timm passes on, and keeps nowhere.
    with mock.patch.object(_builder, "load_pretrained") as asked:
        overlay = {"state_dict": weights}
        module = timm.create_model(arch, pretrained=True, pretrained_cfg_overlay=overlay)
    rename: Any = asked.call_args.kwargs["filter_fn"] if asked.call_args else None
    try:
        found: Weights = rename(dict(weights), module)
        sizes = {value.numel() for value in weights.values()}
        same = all(v.numel() in sizes for k, v in found.items() if "pos" in k)
    except Exception:  # names that it does not know
        return None
    return found if same and _classifier(arch) in found else None


def _built(arch: str, weights: Weights, what: str) -> nn.Module:
    import timm

    module = timm.create_model(arch, num_classes=len(weights[_classifier(arch)]))
    fit(module, weights, what)
    return module


def fit(module: nn.Module, weights: Weights, what: str) -> None:
    """Load weights of the very same names and shapes; DataError of `what` where they are not."""
    state = module.state_dict()
    shapes = [
        f"{k} {tuple(v.shape)} instead of {tuple(state[k].shape)}"
        for k, v in weights.items()
        if k in state and v.shape != state[k].shape
    ]
    if shapes:
        raise DataError(
            f"{what}: {some_of(shapes, LISTED)}",
            "Is it of another input size? A model folder (timm's save_for_hf) can say so.",
        )
    layers = {name.rpartition(".")[2] for name in state}
    weights = {k: v for k, v in weights.items() if k.rpartition(".")[2] in layers or not _counts(v)}
    missing, unexpected = module.load_state_dict(weights, strict=False)
    keys = {"missing": missing, "unknown": unexpected}
    if problems := [f"{kind} {some_of(found, LISTED)}" for kind, found in keys.items() if found]:
        raise DataError(f"{what}: {'; '.join(problems)}", "Is it of another architecture?")


def _counts(value: Tensor) -> bool:
    """Whether a tensor that no layer has is a counter (of operations, of updates)."""
    return value.numel() == 1 and float(value) == round(float(value))
