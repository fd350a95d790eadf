"""What can be listed without loading anything: published models, and models of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from kt_cli.errors import DataError, near, unknown
from kt_cli.spec import Model
from kt_cli.zoo import SCHEMES, local_models, names, published, scheme, target, timm_package
from kt_cli.zoo.imagenet_facts import NUM_CLASSES, Fact, facts
from kt_cli.zoo.timm_registry import ALIASES, architecture


class Own(NamedTuple):
    """What is known of a model of the user's own without its weights.

    num_classes: None where only weights or data tell. path: or the reference of one that is none.
    """

    name: str
    arch: str | None
    num_classes: int | None
    input_size: int | None
    path: str


def known(words: Sequence[str], others: Sequence[str] = ()) -> list[Fact]:
    """The published models that match any of `words`; all where there are none.

    Raises:
        UnknownName: nothing matches; the tip names models, and `others`, of nearly that name.
        DataError: it looks like a path, of nothing.
    """
    if not words:
        return list(facts())
    found: dict[str, Fact] = {}
    for word in words:
        matches = [fact for fact in facts() if _matches(fact.model, word)]
        if not matches and "/" in word:
            tip = near(Path(word), "Models of the hub are hf-hub:ORG/NAME.")
            raise DataError(f"no folder or file {word}", tip)
        if not matches:
            arch_names = {fact.model.partition(".")[0] for fact in facts()}
            raise unknown("model", word, [*others, *ALIASES, *sorted(arch_names)])
        found |= {fact.model: fact for fact in matches}
    return list(found.values())


def _matches(name: str, word: str) -> bool:
    arch = name.partition(".")[0]
    if word in ALIASES:
        return arch == ALIASES[word]
    if any(sign in word for sign in "*?["):
        return fnmatchcase(name, word) or fnmatchcase(arch, word)
    return word.lower() in name


def is_own(pattern: str) -> bool:
    """Whether it names a model of the user's own, or several, and is no word to look for."""
    return local_models.exists(pattern) or "@" in pattern or scheme(pattern) in SCHEMES


def own(reference: str, arch: str | None) -> list[Own]:
    """The models that a reference names; arch: of checkpoints.

    Raises:
        DataError: there is none. UnknownName: no such architecture.
    """
    folder = Path(reference).expanduser()
    if not local_models.exists(reference) or folder.is_file():
        of = arch if local_models.ending(folder) else None  # other references tell it themselves
        return [_described(model) for model in names.resolve([reference], of)]
    # Nothing is read of the weights, as `resolve` does for the models' identity.
    found = [folder] if local_models.is_model(folder) else local_models.models_in(folder)
    if found:
        return [_of_folder(str(model)) for model in found]
    files = local_models.checkpoints_in(folder)
    if files and arch is not None:
        names.require_architecture(arch)
        return [_of_arch(file.name, architecture(arch), str(file)) for file in files]
    tip = f"A model is a folder with {local_models.CONFIG} and weights."
    raise DataError(
        f"no models in {folder}", "For its checkpoints name --arch ARCH." if files else tip
    )


def _described(model: Model) -> Own:
    kind, where = scheme(model.ref), target(model.ref)
    if kind == "local-dir":
        return _of_folder(where)
    if kind == "checkpoint":
        arch, _, path = model.ref.partition("@")
        return _of_arch(model.name, arch, path)
    if kind == "tv":
        classes = NUM_CLASSES if published(model.ref) else None
        return Own(model.name, where.partition("@")[0], classes, None, model.ref)
    if kind in ("random", "timm"):
        return _of_arch(model.name, where.partition("#")[0].partition(".")[0], model.ref)
    return Own(model.name, None, None, None, where if kind == "predictions" else model.ref)


def _of_folder(path: str) -> Own:
    folder = Path(path)
    config = local_models.read_config(folder)
    size = config.get("pretrained_cfg", config).get("input_size")
    return Own(
        folder.absolute().name, config.get("architecture"), local_models.num_classes(folder),
        size[-1] if size else None, path,
    )  # fmt: skip


def _of_arch(name: str, arch: str, path: str) -> Own:
    return Own(name, arch, None, timm_package.config(arch).size, path)
