"""A sweep as it is asked for: a TOML file and flags (flags win) become one frozen `SweepSpec`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args, get_type_hints

import tomli_w

from kt_cli.errors import DataError, UsageError, unknown
from kt_cli.spec import DataSpec, PretrainSpec, TransferSpec
from kt_cli.sweep.checks import (
    TEACHERS,
    check_data,
    check_name,
    check_positive,
    check_pretrain,
    check_transfer,
)
from kt_cli.sweep.resources import SLURM_KEYS, SlurmSpec, build_slurm

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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
        students: names (or globs) of the models that are taught; empty for all.
        transfer: settings shared by all transfers (its method and seed are replaced).
        grid: settings with several values: each drawn pair is transferred with all combinations.
        teachers: ways in which teams of several teachers teach, beside single ones.
        team: teachers in a team; there is one for each student of the drawn pairs.
        target_budget: GB of disk for what models say about training views.
        save_students: keep every student after transfer as a model.
        class_embedding: what classes are compared by: "head", "clip" or "none".
        flips_by_class: keep the flips of each class, for each pair.
        baseline: "random" adds randomly initialised teachers to the pairs.
        slurm: resources of its jobs on a cluster; no part of any run's identity.
    """

    name: str
    models: tuple[str, ...] = ()
    data: DataSpec | None = None
    zoo: tuple[PretrainSpec, ...] = ()
    methods: tuple[str, ...] = ("kl-dp",)
    seeds: tuple[int, ...] = (0,)
    pairs: int | str = "auto"
    pair_seed: int = 0
    students: tuple[str, ...] = ()
    transfer: TransferSpec = field(default_factory=TransferSpec)
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    teachers: tuple[str, ...] = ()
    team: int = 3
    target_budget: float = 100.0
    save_students: bool = False
    class_embedding: str = "head"
    flips_by_class: bool = False
    baseline: str = "none"
    slurm: SlurmSpec = field(default_factory=SlurmSpec)

    def transfers(self) -> list[TransferSpec]:
        """The settings of all transfers of a pair: methods × seeds × the grid."""
        points = [dict(zip(self.grid, values, strict=True))
                  for values in itertools.product(*self.grid.values())]  # fmt: skip
        return [
            replace(self.transfer, method=method, seed=seed, **point)
            for method in self.methods
            for seed in self.seeds
            for point in points
        ]

    def team_transfers(self) -> list[TransferSpec]:
        """The settings of all transfers of a team; methods that cannot choose are left out."""
        from kt_cli.transfer import methods

        return [
            replace(settings, teachers=way)
            for settings in self.transfers()
            for way in self.teachers
            if way != "parallel" or methods.find(settings.method).many
        ]

    def transfer_count(self, models: int) -> int:
        """Transfers among so many models, of pairs and at most of teams."""
        pairs = self.pair_count(models)
        teams = min(pairs, models) if models > self.team else 0
        return pairs * len(self.transfers()) + teams * len(self.team_transfers())

    def is_student(self, name: str) -> bool:
        """Whether a model is taught."""
        return not self.students or any(fnmatchcase(name, glob) for glob in self.students)

    def pair_count(self, models: int, students: int | None = None) -> int:
        """Ordered pairs to transfer among so many models, so many of them taught; None for all."""
        every = (models if students is None else students) * (models - 1)
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
    "pretrain": dict, "zoo": list, "slurm": dict,
}  # fmt: skip
COMPLEMENTARITY_KEYS = {"class_embedding": str, "flips_by_class": bool, "baseline": str}
REPLACED = ("method", "seed", "teachers")  # of TransferSpec, for each run of a sweep
BASELINES = ("none", "random")
GRID = ("lr", "temperature", "kd_lambda", "mcl_tau", "mcl_every", "kd_topk", "micro_batch", "bn")
TRANSFER_KEYS = {
    "methods": list, "seeds": list, "pairs": (int, str), "pair_seed": int, "save_students": bool,
    "teachers": list, "team": int, "students": list, "target_budget": (int, float),
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
    for key in ("methods", "teachers", "students"):
        if isinstance(own.get(key), str):
            own[key] = [own[key]]
    _check(own, TRANSFER_KEYS, "[transfer]")
    grid = {key: transfer.pop(key) for key in GRID if isinstance(transfer.get(key), list)}
    about_pairs = dict(tables.get("complementarity", {}))
    _check(about_pairs, COMPLEMENTARITY_KEYS, "[complementarity]")
    _check(tables.get("slurm", {}), SLURM_KEYS, "[slurm]")
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
        grid=_grid(grid),
        slurm=build_slurm(tables.get("slurm", {})),
    )
    settled: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in {**about_pairs, **own}.items()
    }
    return checked(replace(spec, **settled))


def _grid(lists: Mapping[str, list[Any]]) -> dict[str, tuple[Any, ...]]:
    """Values of the settings that have several, each of the right type."""
    found = {}
    for key, values in lists.items():
        points = [_filled(TransferSpec, {key: value}, "[transfer]") for value in values]
        found[key] = tuple(getattr(point, key) for point in points)
        if not values or len(set(found[key])) < len(values):
            raise UsageError(f"{key} must list values that differ, not {values}")
    return found


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
    check_positive(spec, ("target_budget",))
    if spec.team < 2:
        raise UsageError(f"a team has at least 2 teachers, not {spec.team}")
    for way in spec.teachers:
        if way not in TEACHERS[1:]:
            raise unknown("way to teach together", way, TEACHERS[1:])
    for transfer in spec.transfers() or [spec.transfer]:
        check_transfer(transfer)
    for entry in spec.zoo:
        check_pretrain(entry)
    if spec.data is not None:
        check_data(spec.data)
    return spec


def to_toml(spec: SweepSpec) -> str:
    """The resolved, complete sweep as a sweep file that builds it again."""
    plain = _without_none(asdict(spec))
    transfer = {k: v for k, v in plain.pop("transfer").items() if k not in REPLACED}
    transfer |= plain.pop("grid")
    own = {key: plain.pop(key) for key in TRANSFER_KEYS}
    plain["slurm"] = spec.slurm.to_table()
    plain["complementarity"] = {key: plain.pop(key) for key in COMPLEMENTARITY_KEYS}
    ordered = {
        k: plain[k] for k in ("name", "models", "data", "complementarity", "zoo") if k in plain
    }
    slurm = {"slurm": plain["slurm"]} if plain["slurm"] else {}
    return tomli_w.dumps({**ordered, "transfer": {**own, **transfer}, **slurm})


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
        if not (kind is TransferSpec and f.name in REPLACED)
    }
    _check(values, allowed, where, TRANSFER_KEYS if kind is TransferSpec else ())
    given = {k: float(v) if float in _types(hints[k]) else v for k, v in values.items()}
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
        types = _types(allowed[key])
        wanted = (*types, int) if float in types else types
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            shown = " or ".join(kind.__name__ for kind in types if kind is not type(None))
            raise UsageError(f"{where}: {key} must be {shown}, not {value!r}")


def _types(hint: Any) -> tuple[type[Any], ...]:
    """The types of an annotation such as `float | None`, or of a tuple of them."""
    return hint if isinstance(hint, tuple) else get_args(hint) or (hint,)
