"""Which outputs of a model are the classes of the data, and models that cannot be compared."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from kt_cli.errors import ClassMismatch, UsageError, warn
from kt_cli.spec import Model
from kt_cli.zoo import local_models, scheme, target, timm_registry
from kt_cli.zoo.imagenet_facts import NUM_CLASSES, fact

Columns = tuple[int, ...]
# What the user says about outputs: which of them the classes are (--valid-labels), or that they
# are in the classes' order (--by-position).
Select = Columns | Literal["by-position"] | None
BY_POSITION: Literal["by-position"] = "by-position"
SYNSET = re.compile(r"n\d{8}")
ABSENT = -1
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
        """With the names that timm's configurations have: a list, or by output where some lack one.

        As many as outputs, else they are of what a model was before it got another classifier.
        """
        if isinstance(names, dict):
            names = [names.get(str(i), names.get(i, "")) for i in range(count)]
        known = isinstance(names, (list, tuple)) and len(names) == count and any(names)
        return cls(count, tuple(map(str, names)) if known else None)


@dataclass(frozen=True)
class Matching:
    """How a model's outputs are matched to the data's classes.

    Attributes:
        how: "names" that the model carries, "valid-labels" or "by-position" as the user says,
            ImageNet's "synsets", or "position" where nothing is known but equal numbers.
        columns: for each class its index among the outputs; None where they are the same. ABSENT
            stands for the few classes that an ImageNet lacks (ImageNet-22k has all but one of
            ImageNet-1k's): a model never gives them.
    """

    how: str
    columns: Columns | None

    def named(self, outputs: Outputs, classes: Sequence[str]) -> Outputs:
        """The outputs with the names of the data, where all of them or the model's are known."""
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
    """Find the data's classes among a model's outputs.

    Names that the model carries decide where they have all classes, apart from case, spaces,
    underscores and hyphens. Else `select` does, where the outputs can be so. Else WordNet ids, of
    which a larger ImageNet may lack a few. Outputs without names are taken as they are where there
    are as many as classes, as timm does.

    Raises:
        LookupError: the data's classes are not among the model's.
    """
    named = _by_names(outputs.names or (), classes)
    if named is not None:
        return _matched("names", named, outputs.count)
    said = _as_said(outputs.count, len(classes), select)
    if said is not None:
        how = BY_POSITION if select == BY_POSITION else "valid-labels"
        return _matched(how, said, outputs.count)
    if outputs.names is None and outputs.count == len(classes):
        return Matching("position", None)
    places = {name: i for i, name in enumerate(outputs.names or synsets(outputs.count))}
    known = sum(name in places for name in classes)
    larger = outputs.count > len(classes)
    if larger and known > MOST * len(classes) and all(map(SYNSET.fullmatch, classes)):
        return Matching("synsets", tuple(places.get(name, ABSENT) for name in classes))
    raise LookupError


def _matched(how: str, found: Columns, count: int) -> Matching:
    return Matching(how, None if found == tuple(range(count)) else found)


def _by_names(names: Sequence[str], classes: Sequence[str]) -> Columns | None:
    """The place of each class among the names, each of which must be there once."""
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


@lru_cache(maxsize=8)
def synsets(count: int) -> dict[str, int]:
    """WordNet ids of the ImageNet that has so many classes, with their place; {} for none."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": count})
    if subset is None:
        return {}
    info: Any = ImageNetInfo(subset)
    names: list[str] = info.label_names()
    return {name: i for i, name in enumerate(names)}


def outputs_of(model: Model) -> Outputs | None:
    """A model's outputs as far as they can be told without its weights."""
    kind = scheme(model.ref)
    if kind == "timm":
        known = NUM_CLASSES if fact(model.ref) else timm_registry.config(model.ref).num_classes
        return Outputs(int(known))
    if kind == "local-dir":
        return _stated(Path(target(model.ref)))
    weights = timm_registry.cached(model.ref) if kind == "hf-hub" else None
    return _stated(weights.parent) if weights else None


def _stated(folder: Path) -> Outputs | None:
    count = local_models.num_classes(folder)
    return None if count is None else Outputs.of(count, local_models.label_names(folder))


def require_classes(
    models: Sequence[Model], classes: Sequence[str], data: str = "the data", select: Select = None
) -> None:
    """Refuse models that are known not to have the data's classes, and a `select` without effect.

    Raises:
        ClassMismatch: names the first of them.
        UsageError: what the user says about outputs is about none of the models.
    """
    known = [(model, outputs_of(model)) for model in models]
    about = [_require(model, outputs, classes, data, select) for model, outputs in known if outputs]
    if select is not None and models and len(about) == len(models) and not any(about):
        option = "--by-position" if select == BY_POSITION else "--valid-labels"
        most = max(outputs.count for _, outputs in known if outputs)
        if select != BY_POSITION and max(select) >= most:
            raise UsageError(
                f"--valid-labels names output {max(select)}, and no model has more than {most}",
                "Outputs are counted from 0.",
            )
        raise UsageError(
            f"{option} changes nothing: names decide of models that carry those of all of {data}'s "
            "classes, and others have too few or too many outputs for it",
            "Leave it out; or, where the names that a model carries are wrong, take label_names "
            "out of its config.json.",
        )


def _require(
    model: Model, outputs: Outputs, classes: Sequence[str], data: str, select: Select
) -> bool:
    """Whether a model is matched as `select` says, or would be the same by it."""
    found = matched(model, outputs, classes, select, data)
    if found.how in (BY_POSITION, "valid-labels"):
        return True
    said = _as_said(outputs.count, len(classes), select)
    return said is not None and _matched(found.how, said, outputs.count) == found


def matched(
    model: Model,
    outputs: Outputs,
    classes: Sequence[str],
    select: Select = None,
    data: str = "the data",
) -> Matching:
    """`match` for the outputs of `model`.

    Raises:
        ClassMismatch: the data's classes are not among them; says which.
    """
    try:
        return match(outputs, classes, select)
    except LookupError:
        raise _mismatch(model, outputs, classes, data) from None


def overruled(models: Sequence[Model], classes: Sequence[str], select: Select) -> list[str]:
    """The models whose own names of classes decide although `select` says otherwise."""
    return [
        model.name
        for model in models
        if (outputs := outputs_of(model))
        and (said := _as_said(outputs.count, len(classes), select)) is not None
        and (found := match(outputs, classes, select)).how == "names"
        and found != _matched("names", said, outputs.count)
    ]


def lacking(model: Model, classes: Sequence[str], select: Select = None) -> list[str]:
    """The data's classes that a model never gives, as far as that can be told without weights."""
    known = outputs_of(model)
    chosen = match(known, classes, select).columns if known else None
    return [name for name, i in zip(classes, chosen or (), strict=False) if i == ABSENT]


def warn_of_classes(models: Sequence[Model], classes: Sequence[str], select: Select = None) -> None:
    """Say where a model's names decide against what was asked, and what one does not know."""
    for name in overruled(models, classes, select):
        warn(f"{name} carries the names of these classes, and they decide.")
    for model in models if select == BY_POSITION else ():
        outputs = outputs_of(model)
        if outputs and match(outputs, classes, select).how == BY_POSITION:
            for name, there in _misplaced(outputs, classes)[:1]:
                warn(f"{model.name} has {name} where {there} is: its outputs are in another order.")
    for model in models:
        if lacks := lacking(model, classes, select):
            warn(f"{model.name} does not know {', '.join(lacks)}: there it is never right.")


def require_common(models: Sequence[Model]) -> None:
    """Refuse models that no data can have in common, where no data is named yet.

    Different numbers of classes go together only where some of their names are the same.

    Raises:
        ClassMismatch: names two of them.
    """
    known = [(model.name, found) for model in models if (found := outputs_of(model))]
    for (first, one), (name, other) in ((known[0], each) for each in known[1:]):
        shared = set(one.names or synsets(one.count)) & set(other.names or synsets(other.count))
        if one.count != other.count and not shared:
            raise ClassMismatch(
                f"{first} has {one.count} classes, {name} has {other.count}",
                "Models are compared on one set of classes. Name models that share it (of timm's, "
                "for instance '*_in1k'), or fine-tune them on your images: "
                "kt pretrain --pretrained.",
            )


def _mismatch(model: Model, outputs: Outputs, classes: Sequence[str], data: str) -> ClassMismatch:
    message = f"{model.name} has {outputs.count} classes, {data} has {len(classes)}"
    perhaps = ""
    if outputs.names:
        unknown, others = _unmatched(outputs.names, classes)
        message += f"; by name it lacks {_some(unknown)}"
        message += f", and the data lacks its {_some(others)}" if others else ""
        perhaps = _perhaps(unknown, others)
    in_order = ", or --by-position takes them in order" * (
        outputs.count == len(classes) and not _misplaced(outputs, classes)
    )
    return ClassMismatch(
        message,
        f"{perhaps}--valid-labels FILE says which of its outputs are these classes{in_order}; or "
        f"fine-tune it on these images: kt pretrain --pretrained {model.ref}.",
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
        unknown = [name for name in classes if times[key(name)] != 1]
        if unknown:
            break
    return unknown, [name for name in names if name and key(name) not in wanted]


def _some(names: Sequence[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


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
    pairs = ", ".join(f"its {theirs} is {name}" for name, theirs in near.items())
    return f"Perhaps {pairs}. " if pairs else ""
