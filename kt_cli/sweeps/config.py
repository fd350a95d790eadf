"""A sweep as it is asked for: a TOML file and flags (flags win) become one frozen `SweepSpec`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import tomli_w

from kt_cli.errors import DataError, UsageError, near, unknown
from kt_cli.files import escaped
from kt_cli.settings import DataSpec, PretrainSpec, SlurmSpec, SweepSpec, TransferSpec
from kt_cli.settings.cluster import check_cluster
from kt_cli.settings.data import check_images, usual_source, whole_source
from kt_cli.settings.declared import build as built
from kt_cli.settings.declared import by_keyword, check, declared, values
from kt_cli.settings.transfer import PRESETS, WAYS, canonical
from kt_cli.settings.values import absolute
from kt_cli.spec import Model

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Fields of SweepSpec, by the table of a sweep file that has them.
TOP = ("name", "models", "timeout_run")
TABLES = (*TOP, "data", "complementarity", "transfer", "pretrain", "zoo", "slurm")
ABOUT_PAIRS = ("class_embedding", "flips_by_class", "baseline")
ABOUT_TRANSFERS = tuple(name for name in declared(SweepSpec) if name not in (*TOP, *ABOUT_PAIRS))
REPLACED = ("method", "seed", "together")  # of TransferSpec, for each run of a sweep
GRID = (
    "lr", "schedule", "temperature", "kd_lambda", "mcl_tau", "mcl_every", "kd_topk", "micro_batch",
    "bn", "average", "margin", "subtract_drift",
)  # fmt: skip


def read_file(path: Path) -> dict[str, Any]:
    """The tables of a sweep file; DataError where it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"cannot read the sweep file {path}: {error.strerror}",
            near(path, "Models are named by --models."),
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a TOML file: {error}") from error


def with_settings(tables: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a sweep file, with the settings of a call laid over them.

    Raises:
        UnknownName: no such setting.
    """
    kinds = (SweepSpec, TransferSpec, DataSpec, SlurmSpec)
    sweep, transfer, images, slurm = by_keyword(settings, *kinds)
    given = {
        "complementarity": {k: sweep.pop(k) for k in ABOUT_PAIRS if k in sweep},
        "transfer": {**transfer, **{k: sweep.pop(k) for k in ABOUT_TRANSFERS if k in sweep}},
        "data": images, "slurm": slurm,
    }  # fmt: skip
    merged = {**tables, **_plain(sweep)}
    # A preset that a flag names goes before what a file says of the same settings.
    preset = {key for one in PRESETS.values() for key in one} if "preset" in transfer else set()
    for name, table in given.items():
        if table or name in merged:
            said = {k: v for k, v in _table(merged, name).items() if k not in preset}
            merged[name] = {**said, **_plain(table)}
    return _with_whole_paths(merged)


def _with_whole_paths(tables: dict[str, Any]) -> dict[str, Any]:
    """With data that is named by its absolute path: a root alone, or what the environment names."""
    images = dict(_table(tables, "data"))
    if "source" not in images and (source := images.pop("root", None) or usual_source()):
        images["source"] = source
    for key, one in declared(DataSpec).items():
        if isinstance(images.get(key), str) and one.said.path:
            images[key] = absolute(images[key])
    if isinstance(images.get("source"), str):
        images["source"] = whole_source(images["source"])
    # What may be said before any data is named.
    if images.keys() - {"fraction", "limit"}:
        return {**tables, "data": images}
    return {k: v for k, v in tables.items() if k != "data"}


def build(tables: Mapping[str, Any], name: str) -> SweepSpec:
    """A `SweepSpec` from the tables of a sweep file; `name` where the file gives none.

    Raises:
        UnknownName, UsageError: a key that does not exist, or a value that cannot be.
    """
    for key in tables:
        if key not in TABLES:
            raise unknown("key of the sweep file", key, TABLES)
    top = {"name": name, **_listed({key: tables[key] for key in TOP if key in tables})}
    transfer = dict(_table(tables, "transfer"))
    own = _listed({key: transfer.pop(key) for key in ABOUT_TRANSFERS if key in transfer})
    grid = {key: transfer.pop(key) for key in GRID if isinstance(transfer.get(key), list)}
    about_pairs = _table(tables, "complementarity")
    common, zoo = _table(tables, "pretrain"), tables.get("zoo", [])
    if not isinstance(zoo, list) or not all(isinstance(entry, dict) for entry in zoo):
        raise UsageError("zoo must be a list of tables: [[zoo]]")
    images = _table(tables, "data")
    spec = SweepSpec(
        **values(SweepSpec, top, "the sweep file", TOP),
        **values(SweepSpec, own, "[transfer]", ABOUT_TRANSFERS),
        **values(SweepSpec, about_pairs, "[complementarity]", ABOUT_PAIRS),
        data=built(DataSpec, images, "[data]") if "data" in tables else None,
        zoo=tuple(built(PretrainSpec, {**common, **entry}, "[[zoo]]") for entry in zoo),
        transfer=_transfer(transfer),
        grid={key: _grid(key, several) for key, several in grid.items()},
        slurm=built(SlurmSpec, _table(tables, "slurm"), "[slurm]"),
    )
    spec = replace(spec, methods=tuple(map(canonical, spec.methods)))
    _check(spec)
    return spec


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"{name} must be a table: [{name}]")
    return table


def _listed(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table in which a list of one name may be that name alone."""
    several = {name for name, one in declared(SweepSpec).items() if one.items is str}
    return {k: [v] if k in several and isinstance(v, str) else v for k, v in table.items()}


def _transfer(table: Mapping[str, Any]) -> TransferSpec:
    names = [name for name in declared(TransferSpec) if name not in REPLACED]
    return TransferSpec.of(values(TransferSpec, table, "[transfer]", names, ABOUT_TRANSFERS))


def _grid(key: str, several: Sequence[Any]) -> tuple[Any, ...]:
    found = tuple(getattr(_transfer({key: value}), key) for value in several)
    if not several or len(set(found)) < len(several):
        raise UsageError(f"{key} must list values that differ, not {several}")
    return found


def _check(spec: SweepSpec) -> None:
    check(spec)
    names = [entry.name for entry in spec.zoo]
    for name in (spec.name, *names):
        check_name(name)
    if isinstance(spec.pairs, str) and spec.pairs not in ("all", "auto"):
        raise UsageError(f"pairs must be a number, 'all' or 'auto', not {spec.pairs!r}")
    if isinstance(spec.pairs, int) and spec.pairs < 0:
        tip = "0 measures complementarity only."
        raise UsageError(f"pairs must not be negative: {spec.pairs}", tip)
    for name in ("methods", "seeds", "together"):
        several = getattr(spec, name)
        if len(set(several)) < len(several) or not (several or name == "together"):
            raise UsageError(f"{name} must list values that differ, not {list(several)}")
    if not spec.models and not spec.zoo:
        tip = "Name them with --models, or train some: [[zoo]] in a sweep file."
        raise UsageError("a sweep needs models", tip)
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise UsageError(f"two models of the zoo are called {twice!r}")
    for transfer in spec.transfers() or [spec.transfer]:
        check(transfer.with_defaults)
    check_cluster(spec.slurm)
    if spec.data is not None:
        check_images(spec.data)
    text = to_toml(spec)
    if (said := escaped(text)) != text:
        odd = next(a for a, b in zip(said.split("\n"), text.split("\n"), strict=True) if a != b)
        raise UsageError(f"not UTF-8, which a sweep's file is: {odd}", "Name a link to the path.")


def check_name(name: str) -> None:
    """Errors for what cannot be the name of a folder."""
    if not name or "/" in name or name.startswith("."):
        raise UsageError(f"{name!r} cannot name a folder", "Use letters, digits, - and _.")


def to_toml(spec: SweepSpec) -> str:
    """The resolved, complete sweep as a sweep file that builds it again."""
    plain = _plain(asdict(spec))
    transfer = {k: v for k, v in plain.pop("transfer").items() if k not in REPLACED}
    transfer |= plain.pop("grid")
    own = {key: plain.pop(key) for key in declared(SweepSpec) if key in ABOUT_TRANSFERS}
    usual = _plain(asdict(SlurmSpec()))
    slurm = {k: v for k, v in plain.pop("slurm").items() if v != usual.get(k)}
    about_pairs = {key: plain.pop(key) for key in ABOUT_PAIRS}
    ordered = {k: plain[k] for k in (*TOP, "data") if k in plain}
    return tomli_w.dumps({
        **ordered, "complementarity": about_pairs, "zoo": plain["zoo"],
        "transfer": {**own, **transfer}, **({"slurm": slurm} if slurm else {}),
    })  # fmt: skip


def _plain(value: Any) -> Any:
    """Settings as a file has them: lists, and nothing of what is None."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def model_names(spec: SweepSpec, models: Sequence[Model]) -> list[str]:
    """How the models of a sweep are called, those that it trains first included."""
    return [*(model.name for model in models), *(entry.name for entry in spec.zoo)]


def require_roles(spec: SweepSpec, names: Sequence[str]) -> None:
    """Refuse two models of one name, roles that none of these has, and one that has only itself.

    Raises:
        UnknownName, UsageError: names the first of them.
    """
    called = Counter(names)
    if clash := next((entry.name for entry in spec.zoo if called[entry.name] > 1), None):
        tip = "Give the [[zoo]] entry another name."
        raise UsageError(f"a model of the zoo and a named one are both called {clash!r}", tip)
    for role, globs in (("student", spec.students), ("teacher", spec.teachers)):
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in names):
                tip = "How several teach is `together`, not `teachers`." if glob in WAYS else ""
                raise unknown(role, glob, names, tip)
    if spec.pairs != 0 and not spec.pair_count(names):
        (alone,) = filter(spec.is_student, names)
        tip = "Name others with --teachers or --students."
        raise UsageError(f"{alone} is the only teacher and the only student", tip)


def team_transfers(spec: SweepSpec) -> list[TransferSpec]:
    """The settings of all transfers of a team; methods that cannot choose are left out."""
    from kt_cli.distillation import methods

    return [
        replace(settings, together=way)
        for settings in spec.transfers()
        for way in spec.together
        if way != "parallel" or methods.find(settings.method).many
    ]


def transfer_count(spec: SweepSpec, names: Sequence[str]) -> int:
    """Transfers among models of these names, of pairs and at most of teams."""
    pairs = spec.pair_count(names)
    teachers = sum(map(spec.is_teacher, names))
    enough = (teachers - spec.is_teacher(name) >= spec.team for name in names
              if spec.is_student(name))  # fmt: skip
    teams = min(pairs, sum(enough))
    return pairs * len(spec.transfers()) + teams * len(team_transfers(spec))
