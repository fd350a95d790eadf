"""Models of the user's own and of the hub, before they have names: one function per kind."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from importlib.metadata import version
from pathlib import Path

from kt_cli.errors import DataError, UsageError, near
from kt_cli.zoo import libraries, local_models, timm_registry
from kt_cli.zoo.timm_registry import architecture

KNOWN_CHECKPOINTS = f"Known: {', '.join(local_models.CHECKPOINT_EXTENSIONS)}."
UNREADABLE = "unreadable:"  # before the reference, in place of a key: loading it tells why


@dataclass(frozen=True)
class Candidate:
    """A model before it has a name: `names` from the shortest to one that no other model has."""

    key: str
    ref: str
    names: tuple[str, ...]


def _of_hub(kind: str, name: str) -> Iterator[Candidate]:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name):
        raise UsageError(f"{kind}:{name} is not of the form {kind}:org/name[@revision]")
    ref = f"{kind}:{name}"
    yield Candidate(ref, ref, (name.partition("@")[0].rpartition("/")[2], name, ref))


def _transformers(name: str) -> Iterator[Candidate]:
    libraries.require_extra("hf")
    if local_models.exists(name):
        yield from at_path(name)
        return
    yield from _of_hub("hf", name)


def _torchvision(text: str) -> Iterator[Candidate]:
    name, at, tag = text.partition("@")
    if re.search(r"[*?]", name):
        found = [each for each in libraries.torchvision_names() if fnmatchcase(each, name)]
        if not found:
            raise UsageError(f"no model of torchvision matches {name!r}", "See kt models 'tv:*'.")
        for each in found:
            yield from _torchvision(f"{each}{at}{tag}")
        return
    file = _absolute(tag)
    if tag and local_models.ending(file):
        libraries.torchvision_weights(name)
        yield _checkpoint(f"tv:{name}", file)
        return
    default = libraries.torchvision_weights(name)
    ref = f"tv:{name}@{libraries.torchvision_weights(name, tag)}"
    yield Candidate(ref, ref, (f"tv:{name}", ref) if ref.endswith(f"@{default}") else (ref,))


def _clip(text: str) -> Iterator[Candidate]:
    libraries.require_extra("clip")
    folder = _absolute(text)
    if (folder / local_models.OPEN_CLIP).is_file():
        yield _of_files(f"clip:{folder}", folder, folder.name)
        return
    model, slash, tag = text.partition("/")
    if not slash or not tag or folder.exists():
        raise UsageError(
            f"clip:{text} is not of the form clip:MODEL/PRETRAINED",
            f"For example clip:ViT-B-32/openai; or a folder with {local_models.OPEN_CLIP}.",
        )
    libraries.require_clip(model, tag)
    ref = f"clip:{text}"
    yield Candidate(ref, ref, (ref,))


def _python(text: str) -> Iterator[Candidate]:
    module, function = local_models.parse_function(text)
    ref = f"py:{module}:{function}"
    yield Candidate(local_models.function_key(module, function), ref, (function, ref))


def _random(text: str) -> Iterator[Candidate]:
    match = re.fullmatch(r"([^#]+?)(?:#([0-9]{1,18}))?", text)
    if match is None:
        raise UsageError(
            f"random:{text} is not of the form random:ARCH or random:ARCH#SEED",
            "SEED is a whole number; without it, 0.",
        )
    arch, seed = architecture(match[1]), int(match[2] or 0)
    timm_registry.require_architecture(arch)
    ref = f"random:{arch}#{seed}"
    key = f"{ref}@timm-{version('timm')}"  # versions differ in how they initialise
    yield Candidate(key, ref, (ref if seed else f"random:{arch}",))


def _predictions(path: str) -> Iterator[Candidate]:
    file = _absolute(path)
    if not file.is_file():
        tip = "predictions:FILE names a Parquet, CSV, JSON or NPZ file."
        raise DataError(f"no file {file}", near(file, tip))
    name = Path(file.name.removesuffix(".gz")).stem
    yield _of_files(f"predictions:{file}", file, name, file.name)


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _of_files(ref: str, path: Path, name: str, *more: str) -> Candidate:
    """Called `name`, that with one and two parent folders before it, or as in `more`."""
    parents = path.parent.parts[-2:]
    names = (name, "/".join((*parents[1:], name)), "/".join((*parents, name)), *more, ref)
    try:
        return Candidate(local_models.key_of_files(ref) or ref, ref, names)
    except DataError:
        return Candidate(UNREADABLE + ref, ref, names)


def at_path(path: str) -> Iterator[Candidate]:
    """A model folder, or a folder of model folders; DataError where there is none."""
    root = _absolute(path)
    if not root.is_dir() or local_models.is_model(root):
        yield _folder(root, path)
        return
    folders = local_models.models_in(root)
    if not folders:
        tip = f"A model is a folder with {local_models.CONFIG} and weights."
        if (root / local_models.OPEN_CLIP).is_file():
            tip = f"open_clip saved it: {shlex.quote(f'clip:{path}')}."
        elif local_models.checkpoints_in(root):
            named = shlex.quote(f"ARCH@{path}")
            tip = f"For its checkpoints name their architecture: {named}, or --arch ARCH."
        raise DataError(f"no models in {root}", tip)
    yield from map(_folder, folders)


def _folder(folder: Path, written: str = "") -> Candidate:
    if folder.is_file():
        tip = "Say which architecture it is for: ARCH@FILE, or --arch ARCH."
        if not local_models.ending(folder):
            said = shlex.quote(f"predictions:{written or folder}")
            tip = f"What a model said is written {said}; a checkpoint ARCH@FILE."
        raise DataError(f"{folder} is a file", tip)
    if not folder.is_dir():
        of_hub = re.fullmatch(r"\w[\w.-]*/[\w.-]+", written)
        tip = f"A model of the hub is written hf-hub:{written}." if of_hub else ""
        raise DataError(f"no folder {folder}", near(folder, tip))
    if not local_models.is_model(folder):
        tip = "A model folder is what kt and timm's save_for_hf write."
        raise DataError(f"{folder} holds no {local_models.CONFIG}", tip)
    return _of_files(f"local-dir:{folder}", folder, folder.name)


def checkpoints(arch: str, path: str) -> Iterator[Candidate]:
    """A checkpoint file, or all that lie directly in a folder, of one timm architecture.

    UnknownName where timm has no such architecture, DataError where there is no checkpoint.
    """
    arch = architecture(arch)
    timm_registry.require_architecture(arch)
    root = _absolute(path)
    files = local_models.checkpoints_in(root) if root.is_dir() else [root]
    if not files:
        raise DataError(f"no checkpoints in {root}", KNOWN_CHECKPOINTS)
    for file in files:
        yield _checkpoint(arch, file)


def _checkpoint(arch: str, file: Path) -> Candidate:
    ending = local_models.ending(file)
    if ending is None:
        raise DataError(f"{file.name} is no checkpoint", KNOWN_CHECKPOINTS)
    if not file.is_file():
        tip = near(file, "A checkpoint of your own is written ARCH@FILE.")
        raise DataError(f"no file {file}", tip)
    return _of_files(f"{arch}@{file}", file, file.name.removesuffix(ending))


BY_SCHEME: dict[str, Callable[[str], Iterator[Candidate]]] = {
    "hf-hub": partial(_of_hub, "hf-hub"),
    "hf": _transformers,
    "tv": _torchvision,
    "clip": _clip,
    "local-dir": lambda path: iter([_folder(_absolute(path))]),
    "py": _python,
    "random": _random,
    "predictions": _predictions,
}
