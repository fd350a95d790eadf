"""How models are named on the command line and in sweep files.

reference                   meaning
--------------------------  ---------------------------------------------------------------------
resnet50.a1_in1k, resnet50  a pretrained timm model; without a tag, timm's default weights
deit_s                      a short name of the table ALIASES
hf-hub:org/name[@revision]  a timm model of the model hub
local-dir:FOLDER            a folder with config.json and weights, as timm and kt save them
FOLDER                      the same; or a folder of such folders: all of them (./NAME where timm
                            has a model of that name)
ARCH@FILE                   a timm architecture with a checkpoint of the user's own
py:module:function          a function that returns a torch.nn.Module
timm-topN, timm-all         the N most accurate, or all, of the published ImageNet results
vit_*                       a glob over the names of timm's pretrained models
A,B                         several references
@FILE                       a file with references, one a line; # starts a comment

`timm-topN`, `timm-all` and full names of published models are resolved without importing timm.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from kt_cli.errors import DataError, UsageError
from kt_cli.spec import Model
from kt_cli.zoo import facts, own, published
from kt_cli.zoo.published import ALIASES, architecture

__all__ = ["ALIASES", "architecture", "require_architecture", "resolve", "single"]


@dataclass(frozen=True)
class _Candidate:
    """A model before it has a name: `names` from the shortest to one that no other model has."""

    key: str
    ref: str
    names: tuple[str, ...]


def resolve(references: Sequence[str]) -> list[Model]:
    """The models that `references` name, each once, in order.

    Raises:
        UnknownName: no such model; the tip names the nearest.
        DataError: a folder or file is missing or unreadable.
        UsageError: nothing is named, or a reference is malformed.
    """
    found: dict[str, _Candidate] = {}
    for reference in references:
        for candidate in _expand(reference):
            found.setdefault(candidate.key, candidate)
    if not found:
        raise UsageError("no model is named", "Name models of timm or your own; see kt models.")
    return _named(list(found.values()))


def single(reference: str) -> Model:
    """The one model that `reference` names; UsageError where it names several."""
    found = resolve([reference])
    if len(found) != 1:
        raise UsageError(f"{reference} names {len(found)} models", "Name one model to start from.")
    return found[0]


def require_architecture(arch: str, pretrained: bool = False) -> None:
    """Refuse what cannot be built, or with `pretrained` what is no one model to fine-tune.

    Raises:
        UsageError: as `resolve` where `pretrained`; else UnknownName.
    """
    if pretrained:
        single(arch)
    else:
        published.require_architecture(architecture(arch))


def _named(candidates: Sequence[_Candidate]) -> list[Model]:
    """Each by its shortest name; where two would be called the same, both get longer ones."""
    level = [0] * len(candidates)
    while True:
        names = [c.names[depth] for c, depth in zip(candidates, level, strict=True)]
        counts = Counter(names)
        clashing = [
            i
            for i, c in enumerate(candidates)
            if counts[names[i]] > 1 and level[i] + 1 < len(c.names)
        ]
        if not clashing:
            return [Model(c.key, c.ref, name) for c, name in zip(candidates, names, strict=True)]
        for i in clashing:
            level[i] += 1


# --- one reference ------------------------------------------------------------------------------


def _expand(reference: str, nested: bool = False) -> Iterator[_Candidate]:
    reference = reference.strip()
    parts = [reference] if own.exists(reference) else reference.split(",")
    for part in filter(None, map(str.strip, parts)):
        if part.startswith("@"):
            if nested:
                raise UsageError(f"{part}: a list of models cannot name another list")
            yield from _listed(Path(part[1:]).expanduser())
        else:
            yield from _one(part)


def _listed(path: Path) -> Iterator[_Candidate]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the list of models {path}: {getattr(error, 'strerror', None) or error}",
            "@FILE names a text file with one reference a line.",
        ) from error
    for line in lines:
        yield from _expand(re.sub(r"(^|\s)#.*", "", line), nested=True)


def _one(ref: str) -> Iterator[_Candidate]:
    prefix = next((prefix for prefix in PREFIXES if ref.startswith(prefix)), None)
    if prefix is not None:
        yield from PREFIXES[prefix](ref.removeprefix(prefix))
    elif ref == "timm-all":
        yield from map(_timm, (fact.model for fact in facts.facts()))
    elif match := re.fullmatch(r"timm-top(\d+)", ref):
        yield from map(_timm, facts.top(int(match[1])))
    elif os.sep in ref and own.exists(ref):
        yield from _path(ref)
    elif "@" in ref:
        yield _checkpoint(*ref.split("@", 1))
    elif os.sep in ref or ref.startswith(("~", ".")):
        yield from _path(ref)
    elif re.search(r"[*?\[]", ref):
        yield from map(_timm, _matching(ref))
    elif _is_folder(ref):
        yield from _path(ref)
    else:
        yield _timm(published.canonical(architecture(ref)))


def _is_folder(ref: str) -> bool:
    """Whether a bare word names a folder; a timm model of that name goes first."""
    if not own.exists(ref) or facts.fact(ref) is not None or ref in ALIASES:
        return False
    return ref.partition(".")[0] not in published.architectures()


def _timm(name: str) -> _Candidate:
    return _Candidate(name, name, (name,))


def _matching(pattern: str) -> list[str]:
    names = [
        name
        for name in published.pretrained_names()
        if fnmatchcase(name, pattern) or fnmatchcase(name.partition(".")[0], pattern)
    ]
    if not names:
        raise UsageError(f"no pretrained timm model matches {pattern!r}", "List them: kt models.")
    return names


def _hub(name: str) -> Iterator[_Candidate]:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name):
        raise UsageError(f"hf-hub:{name} is not of the form hf-hub:org/name[@revision]")
    ref = f"hf-hub:{name}"
    yield _Candidate(ref, ref, (name.partition("@")[0].rpartition("/")[2], name, ref))


def _local(path: str) -> Iterator[_Candidate]:
    yield _folder(Path(path).expanduser().absolute())


def _path(path: str) -> Iterator[_Candidate]:
    """A model folder, or a folder of model folders."""
    root = Path(path).expanduser().absolute()
    if root.is_dir() and not own.is_model(root):
        folders = own.models_in(root)
        if not folders:
            raise DataError(
                f"no models in {root}", f"A model is a folder with {own.CONFIG} and weights."
            )
        yield from map(_folder, folders)
    else:
        yield _folder(root, path)


def _folder(folder: Path, written: str = "") -> _Candidate:
    if folder.is_file():
        raise DataError(f"{folder} is a file", "Say which architecture it is for: ARCH@FILE.")
    if not folder.is_dir():
        of_hub = re.fullmatch(r"\w[\w.-]*/[\w.-]+", written)
        raise DataError(
            f"no folder {folder}", f"A model of the hub is written hf-hub:{written}." * bool(of_hub)
        )
    if not own.is_model(folder):
        raise DataError(
            f"{folder} holds no {own.CONFIG}",
            "A model folder is what kt and timm's save_for_hf write.",
        )
    ref = f"local-dir:{folder}"
    return _Candidate(own.folder_key(folder), ref, (*_tails(folder, folder.name), ref))


def _checkpoint(arch: str, path: str) -> _Candidate:
    file = Path(path).expanduser().absolute()
    arch = architecture(arch)
    published.require_architecture(arch)
    ending = next((e for e in own.CHECKPOINT_EXTENSIONS if file.name.endswith(e)), None)
    if ending is None:
        raise DataError(
            f"{file.name} is no checkpoint", f"Known: {', '.join(own.CHECKPOINT_EXTENSIONS)}."
        )
    if not file.is_file():
        raise DataError(f"no file {file}", "A checkpoint of your own is written ARCH@FILE.")
    ref = f"{arch}@{file}"
    names = _tails(file, file.name.removesuffix(ending))
    return _Candidate(own.checkpoint_key(arch, file), ref, (*names, ref))


def _tails(path: Path, name: str) -> tuple[str, ...]:
    """`name`, and with one and two parent folders before it."""
    parents = path.parent.parts[-2:]
    return name, "/".join((*parents[1:], name)), "/".join((*parents, name))


def _python(text: str) -> Iterator[_Candidate]:
    module, function = own.parse_function(text)
    ref = f"py:{module}:{function}"
    yield _Candidate(own.function_key(module, function), ref, (function, ref))


def _predictions(path: str) -> Iterator[_Candidate]:
    raise UsageError(
        f"predictions:{path} is not supported in this version",
        "Name a model; its predictions are computed once and kept.",
    )


PREFIXES: dict[str, Callable[[str], Iterator[_Candidate]]] = {
    "hf-hub:": _hub,
    "local-dir:": _local,
    "py:": _python,
    "predictions:": _predictions,
}
