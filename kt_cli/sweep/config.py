"""A sweep as it is asked for: a TOML file and flags (flags win) become one frozen `SweepSpec`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import tomli_w

from kt_cli.errors import DataError, UsageError, unknown
from kt_cli.spec import DataSpec, PretrainSpec, TransferSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

AMP = ("", "float16", "bfloat16")
AUTO_PAIRS = 400  # as many as the paper draws


@dataclass(frozen=True)
class SweepSpec:
    """A whole sweep.

    Attributes:
        name: the folder of its results, below the output folder.
        models: references as in `kt_cli.zoo.names`; the zoo's models are added to them.
        data: None where no data is named yet (enough for a plan).
        zoo: models to train first.
        methods, seeds: each drawn pair is transferred once for each method and seed.
        pairs: how many ordered pairs to transfer; "all", or "auto": all up to 400, else 400.
        pair_seed: draws them.
        transfer: settings shared by all transfers (its method and seed are replaced).
        save_students: keep every student after transfer as a model.
        class_embedding: what classes are compared by: "head", "clip" or "none".
        flips_by_class: keep the flips of each class, for each pair.
        baseline: "random" adds randomly initialised teachers to the pairs.
    """

    name: str
    models: tuple[str, ...] = ()
    data: DataSpec | None = None
    zoo: tuple[PretrainSpec, ...] = ()
    methods: tuple[str, ...] = ("kl-dp",)
    seeds: tuple[int, ...] = (0,)
    pairs: int | str = "auto"
    pair_seed: int = 0
    transfer: TransferSpec = field(default_factory=TransferSpec)
    save_students: bool = False
    class_embedding: str = "head"
    flips_by_class: bool = False
    baseline: str = "none"

    def pair_count(self, models: int) -> int:
        """Ordered pairs to transfer among so many models."""
        every = models * (models - 1)
        if self.pairs == "all":
            return every
        return min(every, AUTO_PAIRS if self.pairs == "auto" else int(self.pairs))


def read_file(path: Path) -> dict[str, Any]:
    """The tables of a sweep file.

    Raises:
        DataError: it is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the sweep file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a TOML file: {error}") from error


SWEEP_KEYS = {
    "name": str, "models": list, "data": dict, "complementarity": dict, "transfer": dict,
    "pretrain": dict, "zoo": list,
}  # fmt: skip
COMPLEMENTARITY_KEYS = {"class_embedding": str, "flips_by_class": bool, "baseline": str}
BASELINES = ("none", "random")
TRANSFER_KEYS = {
    "methods": list, "seeds": list, "pairs": (int, str), "pair_seed": int, "save_students": bool,
}  # fmt: skip


def build(tables: Mapping[str, Any], name: str) -> SweepSpec:
    """A `SweepSpec` from the tables of a sweep file; `name` where the file gives none.

    Raises:
        UnknownName, UsageError: a key that does not exist, or a value of the wrong type.
    """
    tables = dict(tables)
    models = tables.get("models", [])
    tables["models"] = [models] if isinstance(models, str) else models
    _check(tables, SWEEP_KEYS, "the sweep file")
    transfer = dict(tables.get("transfer", {}))
    own = {key: transfer.pop(key) for key in TRANSFER_KEYS if key in transfer}
    if isinstance(own.get("methods"), str):
        own["methods"] = [own["methods"]]
    _check(own, TRANSFER_KEYS, "[transfer]")
    about_pairs = dict(tables.get("complementarity", {}))
    _check(about_pairs, COMPLEMENTARITY_KEYS, "[complementarity]")
    common = tables.get("pretrain", {})
    if not all(isinstance(entry, dict) for entry in tables.get("zoo", [])):
        raise UsageError("zoo must be a list of tables: [[zoo]]")
    data = tables.get("data")
    spec = SweepSpec(
        name=tables.get("name", name),
        models=tuple(tables["models"]),
        data=None if data is None else _filled(DataSpec, data, "[data]"),
        zoo=tuple(
            _filled(PretrainSpec, {**common, **entry}, "[[zoo]]") for entry in tables.get("zoo", [])
        ),
        transfer=_filled(TransferSpec, transfer, "[transfer]"),
    )
    settled: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in {**about_pairs, **own}.items()
    }
    return checked(replace(spec, **settled))


def checked(spec: SweepSpec) -> SweepSpec:
    """`spec`, or an error that names the first value that cannot be."""
    check_name(spec.name)
    if isinstance(spec.pairs, str) and spec.pairs not in ("all", "auto"):
        raise UsageError(f"pairs must be a number, 'all' or 'auto', not {spec.pairs!r}")
    if isinstance(spec.pairs, int) and spec.pairs < 0:
        raise UsageError(
            f"pairs must not be negative: {spec.pairs}", "0 measures complementarity only."
        )
    if not spec.models and not spec.zoo:
        raise UsageError(
            "a sweep needs models",
            "Name them with --models, or train some: [[zoo]] in a sweep file.",
        )
    names = [entry.name for entry in spec.zoo]
    for entry_name in names:
        check_name(entry_name)
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise UsageError(f"two models of the zoo are called {twice!r}")
    if spec.baseline not in BASELINES:
        raise unknown("baseline", spec.baseline, BASELINES)
    check_transfer(spec.transfer)
    for entry in spec.zoo:
        check_pretrain(entry)
    if spec.data is not None:
        check_data(spec.data)
    return spec


def check_name(name: str) -> None:
    """Errors for what cannot be the name of a folder."""
    if not name or "/" in name or name.startswith("."):
        raise UsageError(f"{name!r} cannot name a folder", "Use letters, digits, - and _.")


def check_transfer(spec: TransferSpec) -> None:
    """Errors for settings that no transfer can have."""
    if spec.eval_amp not in AMP:
        raise unknown("precision", spec.eval_amp, AMP)
    check_positive(
        spec, ("epochs", "lr", "batch_size", "micro_batch", "temperature", "crop", "side")
    )
    if spec.crop > 1:
        raise UsageError(f"crop must be at most 1, not {spec.crop}")
    if not 0 <= spec.kd_lambda <= 1:
        raise UsageError(f"kd_lambda must be in [0, 1], not {spec.kd_lambda}")


def check_pretrain(spec: PretrainSpec) -> None:
    """Errors for settings that no training can have."""
    check_positive(spec, ("epochs", "lr", "batch_size", "crop", "side", "fraction"))
    for name in ("crop", "fraction"):
        if getattr(spec, name) > 1:
            raise UsageError(f"{name} must be at most 1, not {getattr(spec, name)}")


def check_data(data: DataSpec) -> None:
    check_positive(data, ("fraction",))
    if data.fraction > 1:
        raise UsageError(f"fraction must be at most 1, not {data.fraction}")
    if not 0 <= data.guard < 1:
        raise UsageError(f"guard must be in [0, 1), not {data.guard}")
    if data.limit is not None and data.limit < 1:
        raise UsageError(f"limit must be at least 1, not {data.limit}")


def check_positive(spec: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if not 0 < getattr(spec, name) < math.inf:
            raise UsageError(f"{name} must be positive, not {getattr(spec, name)}")


def to_toml(spec: SweepSpec) -> str:
    """The resolved, complete sweep as a sweep file that builds it again."""
    plain = _without_none(asdict(spec))
    transfer = {k: v for k, v in plain.pop("transfer").items() if k not in ("method", "seed")}
    own = {key: plain.pop(key) for key in TRANSFER_KEYS}
    plain["complementarity"] = {key: plain.pop(key) for key in COMPLEMENTARITY_KEYS}
    ordered = {
        k: plain[k] for k in ("name", "models", "data", "complementarity", "zoo") if k in plain
    }
    return tomli_w.dumps({**ordered, "transfer": {**own, **transfer}})


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(v) for v in value]
    return value


def _filled(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """A spec of `kind` from a table; keys and types are checked, integers pass as floats."""
    hints = get_type_hints(kind)
    allowed = {
        f.name: hints[f.name]
        for f in fields(kind)
        if not (kind is TransferSpec and f.name in ("method", "seed"))
    }
    _check(values, allowed, where, TRANSFER_KEYS if kind is TransferSpec else ())
    given = {k: float(v) if hints[k] is float else v for k, v in values.items()}
    try:
        return kind(**given)
    except TypeError as error:
        raise UsageError(f"{where}: {str(error).split(') ')[-1]}") from error


def _check(
    values: Mapping[str, Any], allowed: Mapping[str, Any], where: str, also: Iterable[str] = ()
) -> None:
    """Errors for keys that are not allowed (`also` are valid in that table too) and for types."""
    for key, value in values.items():
        if key not in allowed:
            raise unknown(f"key of {where}", key, [*allowed, *also])
        wanted = (int, float) if allowed[key] is float else allowed[key]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            shown = getattr(allowed[key], "__name__", str(allowed[key]))
            raise UsageError(f"{where}: {key} must be {shown}, not {value!r}")
