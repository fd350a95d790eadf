"""Which outputs of a model are the classes of the data, and models that cannot be compared."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kt_cli.errors import ClassMismatch, UsageError, command, readable, some_of, warn
from kt_cli.spec import Model
from kt_cli.zoo import local_models, published, scheme, target, timm_package, timm_registry
from kt_cli.zoo.imagenet_facts import NUM_CLASSES, fact
from kt_cli.zoo.imagenet_names import SYNSET, synsets, words

Columns = tuple[int, ...]
# What the user says: which outputs the classes are (--valid-labels), or that order is the same.
Select = Columns | Literal["by-position"] | None
BY_POSITION: Literal["by-position"] = "by-position"
ABSENT = -1  # in place of an index: a class that an ImageNet lacks and a model never gives
MOST = 0.95
LISTED = 10
ALIKE = 0.6


@dataclass(frozen=True)
class Outputs:
    """What a model's C outputs stand for: their number, and their names where it carries them."""

    count: int
    names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, count: int, names: Any) -> Outputs:
        """With names as timm's configurations have them: a list, or by output where some lack one.

        Where there are not as many as outputs, they are of an earlier classifier.
        """
        if isinstance(names, dict):
            names = [names.get(str(i), names.get(i, "")) for i in range(count)]
        known = isinstance(names, (list, tuple)) and len(names) == count and any(names)
        return cls(count, tuple(map(str, names)) if known else None)


@dataclass(frozen=True)
class Matching:
    how: str  # "names", "valid-labels", "by-position", "synsets", or "position" as nothing tells
    columns: Columns | None  # each class's index among the outputs; None where they are the same

    def named(self, outputs: Outputs, classes: Sequence[str]) -> Outputs:
        """The outputs, called as the data where all of their names are known then."""
        columns = self.columns or tuple(range(len(classes)))
        if self.how == "names" or ABSENT in columns:
            return outputs
        if outputs.names is None and len(columns) < outputs.count:
            return outputs
        names = list(outputs.names or classes)
        for place, name in zip(columns, classes, strict=True):
            names[place] = name
        return Outputs(outputs.count, tuple(names))


def match(outputs: Outputs, classes: Sequence[str], select: Select = None) -> Matching:
    """Find the data's classes among a model's outputs; LookupError where they are not there.

    Names that the model carries decide where they have all classes, apart from case, spaces,
    underscores and hyphens. Else `select` does, where the outputs can be so. Else WordNet ids, of
    which a larger ImageNet may lack a few. Outputs without names are taken as they are where there
    are as many as classes, as timm does.
    """
    named = _by_names(outputs.names or (), classes)
    if named is not None:
        return _matching("names", named, outputs.count)
    said = _as_said(outputs.count, len(classes), select)
    if said is not None:
        how = BY_POSITION if select == BY_POSITION else "valid-labels"
        return _matching(how, said, outputs.count)
    if outputs.names is None and outputs.count == len(classes):
        return Matching("position", None)
    described = _by_names(words(outputs.count), classes) if outputs.names is None else None
    if described is not None:
        return _matching("names", described, outputs.count)
    places = {name: i for i, name in enumerate(outputs.names or synsets(outputs.count))}
    known = sum(name in places for name in classes)
    larger = outputs.count > len(classes)
    if larger and known > MOST * len(classes) and all(map(SYNSET.fullmatch, classes)):
        return Matching("synsets", tuple(places.get(name, ABSENT) for name in classes))
    raise LookupError


def _matching(how: str, found: Columns, count: int) -> Matching:
    return Matching(how, None if found == tuple(range(count)) else found)


def _by_names(names: Sequence[str], classes: Sequence[str]) -> Columns | None:
    """The place of each class among the names, each of which must be there once."""
    if len(names) < len(classes):
        return None
    for key in SPELLINGS:
        there, wanted = list(map(key, names)), list(map(key, classes))
        times, place = Counter(there), {name: i for i, name in enumerate(there)}
        if len(set(wanted)) == len(wanted) and all(times[name] == 1 for name in wanted):
            return tuple(place[name] for name in wanted)
    return None


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


SPELLINGS: tuple[Callable[[str], str], ...] = (str, _folded)


def _as_said(count: int, classes: int, select: Select) -> Columns | None:
    """What `select` says about a model with `count` outputs; None where it cannot be about it."""
    if select == BY_POSITION:
        return tuple(range(count)) if count == classes else None
    return select if select is not None and max(select) < count else None


def _obeyed(
    found: Matching, outputs: Outputs, classes: Sequence[str], select: Select
) -> bool | None:
    """Whether outputs are matched as `select` says; None where it cannot be about them."""
    said = _as_said(outputs.count, len(classes), select)
    return None if said is None else _matching(found.how, said, outputs.count) == found


def outputs_of(model: Model) -> Outputs | None:
    """A model's outputs as far as they can be told without its weights."""
    kind = scheme(model.ref)
    if kind == "tv" and published(model.ref):
        return Outputs(NUM_CLASSES)
    if kind == "timm":
        known = NUM_CLASSES if fact(model.ref) else timm_package.config(model.ref).num_classes
        return Outputs(int(known))
    if kind == "local-dir":
        return _stated(Path(target(model.ref)))
    weights = timm_registry.cached(model.ref) if kind in ("hf-hub", "hf") else None
    return _stated(weights.parent) if weights else None


def _stated(folder: Path) -> Outputs | None:
    count = local_models.num_classes(folder)
    return None if count is None else Outputs.of(count, local_models.label_names(folder))


def told(models: Sequence[Model]) -> list[tuple[Model, Outputs]]:
    """Models with their outputs, where these are told; a damaged one fails when it is loaded."""
    found = readable(models, lambda model: (model, outputs_of(model)))
    return [(model, outputs) for model, outputs in found if outputs]


def require_classes(
    models: Sequence[Model], classes: Sequence[str], data: str = "the data", select: Select = None
) -> None:
    """Refuse a model without the data's classes (ClassMismatch), or a `select` without effect."""
    known = told(models)
    obeyed = [
        _obeyed(matched(model, outputs, classes, select, data), outputs, classes, select)
        for model, outputs in known
    ]
    if select is None or not models or len(known) < len(models) or any(obeyed):
        return
    most = max(outputs.count for _, outputs in known)
    if select != BY_POSITION and max(select) >= most:
        raise UsageError(
            f"--valid-labels names output {max(select)}, and no model has more than {most}",
            "Outputs are counted from 0.",
        )
    option = "--by-position" if select == BY_POSITION else "--valid-labels"
    raise UsageError(
        f"{option} changes nothing: names decide of models that carry those of all of {data}'s "
        "classes, and others have too few or too many outputs for it",
        "Leave it out; or, where the names that a model carries are wrong, take label_names "
        "out of its config.json.",
    )


def matched(
    model: Model,
    outputs: Outputs,
    classes: Sequence[str],
    select: Select = None,
    data: str = "the data",
) -> Matching:
    """`match` for the outputs of `model`; ClassMismatch says which classes are not among them."""
    try:
        return match(outputs, classes, select)
    except LookupError:
        raise _mismatch(model, outputs, classes, data, select) from None


def warn_of_classes(models: Sequence[Model], classes: Sequence[str], select: Select = None) -> None:
    """Say where a model's names decide against what was asked, and what one does not know."""
    known = [
        (model.name, outputs, match(outputs, classes, select)) for model, outputs in told(models)
    ]
    for name, outputs, found in known:
        if _obeyed(found, outputs, classes, select) is False:
            warn(f"{name} carries the names of these classes, and they decide.")
    for name, outputs, found in known:
        if found.how == BY_POSITION:
            for theirs, there in _misplaced(outputs, classes)[:1]:
                warn(f"{name} has {theirs} where {there} is: its outputs are in another order.")
    for name, _, found in known:
        lacks = [
            c for c, place in zip(classes, found.columns or (), strict=False) if place == ABSENT
        ]
        if lacks:
            warn(f"{name} does not know {', '.join(lacks)}: there it is never right.")


def require_common(models: Sequence[Model]) -> None:
    """Refuse models that no data can have in common, where no data is named yet (ClassMismatch).

    Different numbers of classes go together only where some of their names are the same.
    """
    known = [(model.name, found) for model, found in told(models)]
    for (first, one), (name, other) in ((known[0], each) for each in known[1:]):
        shared = set(one.names or synsets(one.count)) & set(other.names or synsets(other.count))
        if one.count != other.count and not shared:
            raise ClassMismatch(
                f"{first} has {one.count} classes, {name} has {other.count}",
                "Models are compared on one set of classes. Name models that share it (of timm's, "
                "for instance '*_in1k'), or fine-tune them on your images: "
                "kt pretrain --pretrained.",
            )


def _mismatch(
    model: Model, outputs: Outputs, classes: Sequence[str], data: str, select: Select
) -> ClassMismatch:
    tuned = f"fine-tune it on these images: {command('pretrain', '--pretrained', model.ref)}."
    if not outputs.count:
        tip = f"{tuned[0].upper()}{tuned[1:]}"
        return ClassMismatch(f"{model.name} has no classifier, {data} has {len(classes)}", tip)
    message = f"{model.name} has {outputs.count} classes, {data} has {len(classes)}"
    if select == BY_POSITION and outputs.count != len(classes):
        message += ", and --by-position takes as many"
    perhaps = in_order = ""
    if outputs.names:
        unknown, others = _unmatched(outputs.names, classes)
        message += f"; by name it lacks {some_of(unknown, LISTED)}"
        message += f", and the data lacks its {some_of(others, LISTED)}" if others else ""
        perhaps = _perhaps(unknown, others)
    if outputs.count == len(classes) and not _misplaced(outputs, classes):
        in_order = ", or --by-position takes them in order"
    return ClassMismatch(
        message,
        f"{perhaps}--valid-labels FILE says which of its outputs are these classes{in_order}; or "
        f"{tuned}",
    )


def _misplaced(outputs: Outputs, classes: Sequence[str]) -> list[tuple[str, str]]:
    """Names of outputs that the data has too, elsewhere, with the class in their place."""
    known = set(map(_folded, classes))
    return [
        (name, there)
        for name, there in zip(outputs.names or (), classes, strict=False)
        if name and _folded(name) in known and _folded(name) != _folded(there)
    ]


def _unmatched(names: Sequence[str], classes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Classes that are not once among a model's names, and names that the data lacks."""
    for key in reversed(SPELLINGS):
        times, wanted = Counter(map(key, names)), set(map(key, classes))
        if unknown := [name for name in classes if times[key(name)] != 1]:
            break
    return unknown, [name for name in names if name and key(name) not in wanted]


def _perhaps(unknown: Sequence[str], others: Sequence[str]) -> str:
    """What unmatched names may be among those of the model that are left over."""
    if len(unknown) == len(others) == 1:
        return f"Perhaps its {others[0]} is {unknown[0]}. "
    spelled = {_folded(name): name for name in others}
    near = {
        name: spelled[close[0]]
        for name in unknown[:LISTED]
        if (close := difflib.get_close_matches(_folded(name), spelled, n=1, cutoff=ALIKE))
    }
    times = Counter(near.values())  # what two look like is neither
    pairs = ", ".join(f"its {one} is {name}" for name, one in near.items() if times[one] == 1)
    return f"Perhaps {pairs}. " if pairs else ""
