"""`kt models [PATTERN…]`: list and search the models that kt knows of."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer

from kt_cli.cli import options, screen
from kt_cli.errors import DataError, unknown
from kt_cli.zoo import own
from kt_cli.zoo.facts import Fact, facts
from kt_cli.zoo.published import ALIASES

SHOWN = 20


class Sort(str, Enum):
    top1 = "top1"
    params = "params"
    gmacs = "gmacs"
    name = "name"


SORT_KEYS: dict[Sort, Callable[[Fact], Any]] = {
    Sort.top1: lambda fact: (-fact.top1, fact.model),
    Sort.params: lambda fact: (fact.params_m, -fact.top1),
    Sort.gmacs: lambda fact: (fact.gmacs is None, fact.gmacs, -fact.top1),
    Sort.name: lambda fact: fact.model,
}


@dataclass(frozen=True)
class FolderModel:
    """What config.json says of a model folder; `input_size` is the side in pixels."""

    name: str
    arch: str | None
    num_classes: int | None
    input_size: int | None
    path: str


def models(
    patterns: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATTERN]…",
            help="Part of a name, a glob such as 'vit_*', a short name such as deit_s, "
            "or a folder of models of your own.",
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help=f"How many to show. [default: {SHOWN}; --json: all]")
    ] = None,
    sort: Annotated[
        Sort, typer.Option(help="Best first by top1, or smallest first, or by name.")
    ] = Sort.top1,
    as_json: options.Json = False,
) -> None:
    """List timm's pretrained models with ImageNet results, or the models in a folder of yours."""
    folders = [pattern for pattern in patterns or () if _is_folder(pattern)]
    words = [pattern for pattern in patterns or () if pattern not in folders]
    mine = [model for folder in folders for model in _folder_models(Path(folder).expanduser())]
    published = sorted(_matching(words), key=SORT_KEYS[sort]) if words or not folders else []
    shown = published[: top or (None if as_json else SHOWN)]
    if as_json:
        rows = [*map(asdict, mine), *map(asdict, shown)]
        screen.out.print_json(json.dumps(rows))
        return
    if mine:
        _show_folders(mine)
    if published:
        _show_facts(shown, len(published))


def _matching(words: Sequence[str]) -> list[Fact]:
    """The published models that match any of `words`; all where there are none."""
    if not words:
        return list(facts())
    found: dict[str, Fact] = {}
    for word in words:
        matches = [fact for fact in facts() if _matches(fact.model, word)]
        if not matches:
            arch_names = {fact.model.partition(".")[0] for fact in facts()}
            raise unknown("model", word, [*ALIASES, *sorted(arch_names)])
        found |= {fact.model: fact for fact in matches}
    return list(found.values())


def _matches(name: str, word: str) -> bool:
    arch = name.partition(".")[0]
    if word in ALIASES:
        return arch == ALIASES[word]
    if any(sign in word for sign in "*?["):
        return fnmatchcase(name, word) or fnmatchcase(arch, word)
    return word.lower() in name


def _is_folder(pattern: str) -> bool:
    return own.exists(pattern) and Path(pattern).expanduser().is_dir()


def _folder_models(folder: Path) -> list[FolderModel]:
    found = [folder] if own.is_model(folder) else own.models_in(folder)
    if not found:
        raise DataError(
            f"no models in {folder}", f"A model is a folder with {own.CONFIG} and weights."
        )
    return [_describe(model) for model in found]


def _describe(folder: Path) -> FolderModel:
    config = own.read_config(folder)
    size = config.get("pretrained_cfg", config).get("input_size")
    return FolderModel(
        name=folder.absolute().name,
        arch=config.get("architecture"),
        num_classes=own.num_classes(folder),
        input_size=size[-1] if size else None,
        path=str(folder),
    )


def _show_facts(shown: Sequence[Fact], matched: int) -> None:
    rows = [
        (f.model, f"{f.top1:.2f}", str(f.img_size), f"{f.params_m:.1f}",
         "" if f.gmacs is None else f"{f.gmacs:.1f}")
        for f in shown
    ]  # fmt: skip
    _table(("model", "top-1 %", "size", "params M", "GMACs"), rows)
    if len(shown) < matched:
        screen.note(f"{len(shown)} of {matched:,} models; --top {matched} shows all.")
    else:
        screen.note(f"{matched:,} models.")


def _show_folders(found: Sequence[FolderModel]) -> None:
    rows = [
        tuple("" if v is None else str(v) for v in (m.name, m.arch, m.num_classes, m.input_size))
        for m in found
    ]
    _table(("model", "architecture", "classes", "size"), rows)
    screen.note(f"{len(found)} models.")


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = screen.simple_table()
    for header in headers:
        text = header in ("model", "architecture")
        table.add_column(header, justify="left" if text else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    screen.out.print(table)
