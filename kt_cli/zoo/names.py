"""How models are named on the command line and in sweep files: see docs/guide.md (Models).

Those of a scheme have a function each in `references`. Of what has none, a name that timm knows
is timm's before it is a folder's or file's: ./NAME is always these.
`timm-topN`, `timm-all` and full names of published models are resolved without importing timm.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import translate
from pathlib import Path

from kt_cli.errors import DataError, UsageError, counted, near, warn
from kt_cli.files import escaped
from kt_cli.progress import silent
from kt_cli.spec import Model
from kt_cli.zoo import imagenet_facts, local_models, scheme, target, timm_package, timm_registry
from kt_cli.zoo.references import BY_SCHEME, UNREADABLE, Candidate, at_path, checkpoints
from kt_cli.zoo.timm_registry import ALIASES, architecture

TWINS = 10  # at most


def resolve(
    references: Sequence[str], arch: str | None = None, needed: int | None = None
) -> list[Model]:
    """The models that `references` name, each once, in order.

    Args:
        arch: the timm architecture of references that are bare checkpoint files or folders.
        needed: models whose files can be read, others fail when they are loaded; None for all.

    Raises:
        UnknownName: no such model or architecture; the tip names the nearest.
        DataError: a folder or file is missing or unreadable.
        UsageError: nothing is named, or a reference is malformed.
    """
    if arch is not None:
        require_architecture(arch)
    found: dict[str, Candidate] = {}
    _require_known(references)
    for reference in references:
        for candidate in _expand(reference, arch):
            found.setdefault(candidate.key, candidate)
    if arch is not None and not any(c.ref.partition("@")[1] for c in found.values()):
        raise idle_arch()
    if not found:
        raise UsageError("no model is named", "Name models of timm or your own; see kt models.")
    models = _named(list(found.values()))
    unreadable = [model for model in models if model.key.startswith(UNREADABLE)]
    if unreadable and (needed is None or len(models) - len(unreadable) < needed):
        local_models.require_unchanged(unreadable[0])
    return models


def idle_arch() -> UsageError:
    return UsageError("--arch changes nothing without checkpoints", "Name their file or folder.")


def _require_known(references: Sequence[str]) -> None:
    """Tell a slip in a name at once: the tags of other names need timm, seconds to import."""
    for reference in references:
        for name in _parts(reference):
            bare = re.fullmatch(r"[\w.]+", name) and not local_models.exists(name)
            if bare and local_models.ending(Path(name)) is None:
                timm_registry.require_known(architecture(name, say=silent))


def single(reference: str) -> Model:
    """The one model that `reference` names; UsageError where it names several."""
    found = resolve([reference])
    if len(found) != 1:
        raise UsageError(f"{reference} names {len(found)} models", "Name one model to start from.")
    return found[0]


def require_architecture(arch: str, pretrained: bool = False) -> None:
    """Refuse what cannot be built (UnknownName), or with `pretrained` what is no one model."""
    if pretrained:
        single(arch)
    else:
        timm_registry.require_architecture(architecture(arch))


def _named(candidates: Sequence[Candidate]) -> list[Model]:
    """Each by its shortest name; where two would be called the same, both get longer ones."""
    left = [[*candidate.names] for candidate in candidates]
    while True:
        counts = Counter(names[0] for names in left)
        clashing = [names for names in left if counts[names[0]] > 1 and len(names) > 1]
        if not clashing:
            named = zip(candidates, left, strict=True)
            return [Model(c.key, c.ref, escaped(names[0])) for c, names in named]
        for names in clashing:
            del names[0]


def _expand(reference: str, arch: str | None = None, nested: bool = False) -> Iterator[Candidate]:
    for part in _parts(reference):
        if part.startswith("@"):
            if nested:
                raise UsageError(f"{part}: a list of models cannot name another list")
            yield from _listed(Path(part[1:]).expanduser(), arch)
        elif arch is not None and _is_checkpoints(part):
            yield from checkpoints(arch, part)
        else:
            yield from _one(part)


def _parts(reference: str) -> list[str]:
    """What commas separate; they may also be in the name of a file or folder that is there."""
    reference = reference.strip()
    before, _, file = reference.rpartition("@")
    paths = [reference, target(reference), *([file] if "," not in before else [])]
    if reference and any(path and local_models.exists(path) for path in paths):
        return [reference]
    return [part for part in map(str.strip, reference.split(",")) if part]


def _is_checkpoints(part: str) -> bool:
    """Whether `part` is a checkpoint file, or a folder with some and without models."""
    if scheme(part) in BY_SCHEME:
        return False
    path, there = Path(part).expanduser(), local_models.exists(part)
    if not there or path.is_file():
        return local_models.ending(path) is not None and (there or "@" not in part)
    if (os.sep not in part and not _is_own(part)) or local_models.is_model(path):
        return False
    return bool(local_models.checkpoints_in(path)) and not local_models.models_in(path)


def _listed(path: Path, arch: str | None) -> Iterator[Candidate]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the list of models {path}: {getattr(error, 'strerror', None) or error}",
            near(path, "@FILE names a text file with one reference a line."),
        ) from error
    for line in lines:
        yield from _expand(re.sub(r"(^|\s)#.*", "", line), arch, nested=True)


def _one(ref: str) -> Iterator[Candidate]:
    if scheme(ref) in BY_SCHEME:
        yield from BY_SCHEME[scheme(ref)](target(ref))
    elif ref == "timm-all":
        yield from map(_timm, (fact.model for fact in imagenet_facts.facts()))
    elif match := re.fullmatch(r"timm-top(\d+)", ref):
        yield from map(_timm, imagenet_facts.top(int(match[1])))
    elif os.sep in ref and local_models.exists(ref):
        yield from at_path(ref)
    elif "@" in ref:
        yield from checkpoints(*ref.split("@", 1))
    elif os.sep in ref or ref.startswith(("~", ".")):
        yield from at_path(ref)
    elif re.search(r"[*?\[]", ref):
        yield from map(_timm, _matching(ref))
    elif _is_own(ref):
        yield from at_path(ref)
    else:
        yield _timm(timm_registry.canonical(architecture(ref)))


def _is_own(ref: str) -> bool:
    """Whether a bare word names a folder or checkpoint; a timm model of that name goes first."""
    if not local_models.exists(ref) or imagenet_facts.fact(ref) is not None or ref in ALIASES:
        return False
    if Path(ref).is_file() and local_models.ending(Path(ref)):
        return True
    return ref.partition(".")[0] not in timm_package.architectures()


def _timm(name: str) -> Candidate:
    return Candidate(name, name, (name,))


def _matching(pattern: str) -> list[str]:
    matches = re.compile(translate(pattern)).match
    every = timm_package.pretrained_names()
    names = [name for name in every if matches(name) or matches(name.partition(".")[0])]
    if not names:
        raise UsageError(f"no pretrained timm model matches {pattern!r}", "List them: kt models.")
    whole = [name for name in names if timm_package.config(name).num_classes]
    headless = len(names) - len(whole)
    if headless and whole:
        many = counted(headless, "model") + (" that match" if headless > 1 else " that matches")
        warn(f"{many} {pattern!r} left out: without a classifier.")
    return whole or names


def refuse_predictions(models: Sequence[Model], command: str) -> None:
    for model in models:
        if scheme(model.ref) == "predictions":
            raise UsageError(
                f"{command} needs a model's weights, and {model.ref} has only what one said",
                "Name the model itself; predictions are for kt complementarity.",
            )


def random_twins(models: Sequence[Model]) -> list[Model]:
    """Untrained models of the architectures of `models`, evenly drawn: the paper's baseline."""
    known = [*dict.fromkeys(filter(None, map(local_models.architecture, models)))]
    step = max(1, -(-len(known) // TWINS))
    return resolve([f"random:{arch}" for arch in known[::step]]) if known else []
