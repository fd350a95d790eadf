"""How a setting is declared, once: a dataclass field that carries its help, range and use.

From it come its option, its check, its key in sweep files, its column and its line in the docs.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any, get_args, get_origin, get_type_hints

from kt_cli.errors import UsageError, unknown
from kt_cli.settings.values import absolute, plain

POSITIVE, NOT_NEGATIVE, SHARE = "(0, inf)", "[0, inf)", "[0, 1]"
LARGEST = 2**63 - 1  # of whole numbers that rows hold
OF_PROCESS = {"device": ("KT_DEVICE", "cpu"), "tf32": ("KT_TF32", "0")}  # variables, examples
SAID = {POSITIVE: "positive", NOT_NEGATIVE: "zero or more"}


@dataclass(frozen=True)
class Setting:
    """What a field says of itself beside its type and default."""

    help: str  # one line: what it is, and what a value means
    choices: tuple[str, ...] = ()  # all values that it may have
    within: str = ""  # its range as an interval, such as "(0, 1]"
    panel: str = ""  # of a command's help
    flags: tuple[str, ...] = ()  # of its option; by default --name
    metavar: str | None = None  # what stands for the value in the help
    usual: str | None = None  # what the help says of the default, if not the value itself
    path: bool = False  # a file or folder, made absolute, since jobs may run elsewhere
    listed: bool = False  # its option takes several values separated by commas
    option: bool = True  # False where no command has an option for it
    identity: bool = True  # whether it can change a result, so that another value is another run
    later: bool = False  # it came when there were runs without it: those with its default
    column: str | None = ""  # its meaning in rows, if not `help`; None where rows do not have it
    envvar: str | None = None  # environment variable that gives it
    was: str = ""  # its earlier name, under which identities have it

    def check(self, name: str, value: Any) -> None:
        """Refuse what the setting cannot be; None is none.

        Raises:
            UnknownName: it is no choice. UsageError: it is out of range.
        """
        for one in value if isinstance(value, tuple) else (value,):
            if self.choices and one not in self.choices and one is not None:
                raise unknown(name, str(one), [c for c in self.choices if c])
            if self.within and isinstance(one, (int, float)) and not _inside(one, self.within):
                must = SAID.get(self.within, f"in {self.within}")
                raise UsageError(f"{name} must be {must}, not {one}")


def setting(default: Any = MISSING, help: str = "", **more: Any) -> Any:
    """A dataclass field with its declaration; `more` as `Setting`."""
    said = Setting(help, **more)
    kept = ("identity", "later", "was")  # what `signature` asks
    metadata = {"setting": said, **{name: getattr(said, name) for name in kept}}
    return field(default=default, metadata=metadata)


class Settings:
    """What the settings of every kind of run have."""

    @property
    def with_defaults(self) -> Any:
        """With the values that count where others are given, or none."""
        return self

    @cached_property
    def identity(self) -> Any:
        """What they add to the identity of a run; ten thousands of runs have the same."""
        return signature(self.with_defaults)


@dataclass(frozen=True)
class Declared:
    """A field with its declaration."""

    name: str
    said: Setting
    types: tuple[type, ...]  # that its value may have, without None
    items: type | None  # of what a tuple has, else None
    field: Field[Any]

    @property
    def keyword(self) -> str:
        """Its name among the settings of a call: that of its option."""
        flags = [flag for flag in self.said.flags if flag.startswith("--")]
        return flags[0].partition("/")[0][2:].replace("-", "_") if flags else self.name

    @property
    def required(self) -> bool:
        return self.field.default is MISSING

    def read(self, value: Any, called: str) -> Any:
        """A value of a file or of a call, as the field has it; integers pass as floats.

        Raises:
            UsageError: it is of another type; `called` is its name there.
        """
        parts, kinds = (value, (self.items,)) if self.items else ([value], self.types)
        if not isinstance(parts, list) or not all(_is(part, kinds) for part in parts):
            raise UsageError(f"{called} must be {self.kinds}, not {reprlib.repr(value)}")
        if any(isinstance(part, int) and abs(part) > LARGEST for part in parts):
            raise UsageError(f"{called} must be at most {LARGEST:,}, not {value!r}")
        if self.items:
            return tuple(value)
        return float(value) if float in self.types else value

    @property
    def kinds(self) -> str:
        """Its types in words."""
        if self.items:
            return f"a list of {'numbers' if self.items is int else 'strings'}"
        return " or ".join(kind.__name__ for kind in self.types)


@cache
def declared(kind: Any) -> Mapping[str, Declared]:
    """The declared fields of a dataclass, by name."""
    hints = get_type_hints(kind)
    return MappingProxyType({
        f.name: Declared(f.name, f.metadata["setting"], *_types(hints[f.name]), f)
        for f in fields(kind)
        if "setting" in f.metadata
    })  # fmt: skip


def check(settings: Any) -> None:
    """Refuse values that a setting cannot have; UsageError names the first of them."""
    for name, known in declared(settings.__class__).items():
        option = "" if known.keyword == name else f" (--{known.keyword.replace('_', '-')})"
        known.said.check(f"{name}{option}", getattr(settings, name))


def build(kind: type, table: Mapping[str, Any], where: str) -> Any:
    """Settings of `kind` from a table of a sweep file, checked; `where` it stands, for messages.

    Raises:
        UnknownName, UsageError: a key that does not exist, or a value that cannot be.
    """
    known = declared(kind)
    given = values(kind, table, where, known)
    for name, one in known.items():
        if one.required and name not in given:
            raise UsageError(f"{where}: {name} is missing")
    settings = kind(**given)
    check(settings)
    return settings


def values(
    kind: type, table: Mapping[str, Any], where: str, names: Collection[str],
    also: Iterable[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """The values of a table for the fields `names`, as for `build`; `also` are keys for a tip."""
    for key in table:
        if key not in names:
            raise unknown(f"key of {where}", key, [*names, *also])
    known = declared(kind)
    return {key: known[key].read(value, f"{where}: {key}") for key, value in table.items()}


def by_keyword(given: Mapping[str, Any], *kinds: type) -> list[dict[str, Any]]:
    """The settings of a call, sorted out: for each class the values of its fields.

    Keywords are those of the options (`guard_share` for --guard-share); of one that several classes
    have, the first. None is left out.

    Raises:
        UnknownName, UsageError: a keyword that none of them has, or a value of the wrong type.
    """
    owners: dict[str, tuple[type, Declared]] = {}
    for kind in reversed(kinds):
        owners |= {one.keyword: (kind, one) for one in declared(kind).values()}
    found: dict[type, dict[str, Any]] = {kind: {} for kind in kinds}
    for key, value in given.items():
        if key in OF_PROCESS:
            raise UsageError(
                f"{key} is a setting of the process, not of a call",
                f'Before it: os.environ["{OF_PROCESS[key][0]}"] = "{OF_PROCESS[key][1]}".',
            )
        if key not in owners:
            raise unknown("setting", key, owners)
        if value is not None:
            kind, one = owners[key]
            read = one.read(plain(value), key)
            found[kind][one.name] = absolute(read) if one.said.path else read
    return [found[kind] for kind in kinds]


def unusual(settings: Any, names: Collection[str] = ()) -> dict[str, Any]:
    """The values that are not the defaults, by keyword; of the fields `names`, or of all."""
    found = {}
    for name, one in declared(settings.__class__).items():
        value = getattr(settings, name)
        if (not names or name in names) and value is not None and value != one.field.default:
            found[one.keyword] = value
    return found


def options(given: Mapping[str, Any]) -> list[str]:
    """The words of a command for values by keyword: `--guard-share 0.1`, `--no-by-position`."""
    words = []
    for keyword, value in given.items():
        name = keyword.replace("_", "-")
        flag = f"--no-{name}" if value is False else f"--{name}"
        words += [flag] if isinstance(value, bool) else [flag, str(value)]
    return words


def _types(hint: Any) -> tuple[tuple[type, ...], type | None]:
    """The types of an annotation such as `float | None`; of `tuple[str, ...]` also its items'."""
    if get_origin(hint) is tuple:
        return (tuple,), get_args(hint)[0]
    parts = get_args(hint) or (hint,)
    return tuple(part for part in parts if part is not type(None)), None


def _is(value: Any, types: tuple[type, ...]) -> bool:
    wanted = (*types, int) if float in types else types
    return isinstance(value, wanted) and (not isinstance(value, bool) or bool in wanted)


def _inside(value: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = low <= value if interval[0] == "[" else low < value
    return above and (value <= high if interval[-1] == "]" else value < high)


def signature(value: Any) -> Any:
    """`value` as JSON-able data, without the fields that are excluded from identity."""
    if isinstance(value, (str, int, float)):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {
            f.metadata.get("was") or f.name: signature(getattr(value, f.name))
            for f in fields(value)
            if f.metadata.get("identity", True)
            and not (f.metadata.get("later") and getattr(value, f.name) == f.default)
        }
    if isinstance(value, (list, tuple)):
        return [signature(item) for item in value]
    if isinstance(value, dict):
        return {key: signature(item) for key, item in value.items()}
    return value


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, in hexadecimal."""
    import hashlib  # OpenSSL, which a help does without

    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
