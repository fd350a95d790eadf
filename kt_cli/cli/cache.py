"""`kt cache ls|rm|verify`: what is kept, to look at, to remove, to check."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kt_cli.cli import options, screen
from kt_cli.cli.help_view import Command, Group
from kt_cli.cli.options import choice, flag, option
from kt_cli.errors import KtError, UsageError, counted, size_text

if TYPE_CHECKING:
    from rich.table import Table

    from kt_cli.cache import Entry

SECONDS = {"d": 86400, "h": 3600, "min": 60}
KINDS = (
    "predictions", "classes", "canonical", "targets", "contents", "drift", "timm", "unfinished",
)  # fmt: skip

app = typer.Typer(cls=Group)

Patterns = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATTERN",
        help="Globs such as 'vit_*': a model's name or key, the data's name, or a file's name.",
        show_default=False,
    ),
]
Kind = Annotated[
    str | None,
    choice("--kind", KINDS, "Only this kind; kt cache --help lists them.", metavar="KIND"),
]


@app.callback()
def cache() -> None:
    """Look at, remove or check what is kept below KT_CACHE (default ~/.cache/kt).

    All of it can be removed: what is needed is computed again.

    Its kinds:
      predictions  what models say about images
      classes      class embeddings
      canonical    decoded images, of trainings and of transfers' evaluations
      targets      what models say about views of these
      contents     digests of images, so that only what changed is read again
      drift        what students change of themselves (--subtract-drift)
      timm         timm's configurations, so that asking for one does not import it
      unfinished   being written, or left by a killed process
    """


@app.command(cls=Command)
def ls(patterns: Patterns = None, kind: Kind = None, as_json: options.Json = False) -> None:
    """List what is kept."""
    found = _chosen(patterns, kind)
    if as_json:
        screen.show_json([_as_json(entry) for entry in found])
    elif found:
        screen.out.print(_table(found))
        screen.line(f"{_count(found)}, {_size(found)}")


@app.command(cls=Command)
def rm(
    patterns: Patterns = None,
    kind: Kind = None,
    older_than: Annotated[
        str | None, option(metavar="AGE", help="Only what is older, such as 30d or 12h.")
    ] = None,
    everything: Annotated[bool, flag("--all", "Everything.")] = False,
    dry_run: Annotated[bool, flag("--dry-run", "Only say what would go.")] = False,
) -> None:
    """Remove what is chosen, without asking.

    Unfinished files of the last hour stay, since a process may be writing them.
    """
    if not (patterns or kind or older_than or everything):
        raise UsageError(
            "nothing says what to remove",
            "Name patterns, --kind or --older-than; --all removes everything.",
        )
    age = None if older_than is None else _seconds(older_than)
    from kt_cli.cache import remove

    found = _chosen(patterns, kind)
    chosen = [entry for entry in found if age is None or entry.older(age)]
    going = [entry for entry in chosen if not entry.in_use]
    if going:
        screen.out.print(_table(going))
        freed = size_text(remove(going)) if not dry_run else _size(going)
        screen.line(f"{'Would remove' if dry_run else 'Removed'} {_count(going)}: {freed}")
    elif found and not chosen:
        screen.note(f"Nothing of it is older than {older_than}.")
    if len(going) < len(chosen):
        screen.note(f"Kept {len(chosen) - len(going)} unfinished of the last hour.")


@app.command(cls=Command)
def verify(
    patterns: Patterns = None,
    kind: Kind = None,
    remove: Annotated[bool, flag("--remove", "Remove what is broken.")] = False,
) -> None:
    """Read everything again: checksums, sizes, columns.

    Exit code 1 if something is broken and not removed. Unfinished files promise nothing.
    """
    from kt_cli import cache as kept

    found = _chosen(patterns, kind, finished=True)
    broken: list[tuple[Entry, str]] = []
    with screen.progress() as progress:
        for done, entry in enumerate(found, 1):
            if (reason := kept.verify(entry)) is not None:
                broken.append((entry, reason))
            progress(done, len(found), "verify")
    for entry, reason in broken:
        screen.line(f"{entry.path}: {reason}")
    if found and not broken:
        screen.line(f"{_count(found)}, {_size(found)}: nothing is broken")
    elif broken and not remove:
        raise KtError(
            f"broken: {len(broken)} of {_count(found)}",
            "The same command with --remove removes what is broken; it is computed again.",
        )
    elif broken:
        freed = kept.remove(entry for entry, _ in broken)
        screen.line(f"Removed {_count([e for e, _ in broken])}: {size_text(freed)}")


def _chosen(
    patterns: Sequence[str] | None, kind: str | None, finished: bool = False
) -> list[Entry]:
    from kt_cli.cache import UNFINISHED, entries, root

    found = [entry for entry in entries(kind) if not patterns or entry.matches(patterns)]
    if finished:
        found = [entry for entry in found if entry.kind != UNFINISHED]
    if not found:
        said = "holds nothing that matches" if patterns or kind else "is empty"
        screen.note(f"The cache {root()} (KT_CACHE) {said}.")
    return found


def _table(found: Sequence[Entry]) -> Table:
    from kt_cli.cache import root

    headers = ("kind", "model", "size", "age", "images", "logits", "data")  # as they are needed
    rows = map(_cells, _grouped(found))
    return screen.table(headers, rows, ("model", "data", "logits"), f"{root()} (KT_CACHE)")


def _grouped(found: Sequence[Entry]) -> list[list[Entry]]:
    """Each entry alone, but targets, one for each model and epoch, with all that are alike."""
    groups: dict[Any, list[Entry]] = {}
    for entry in found:
        alike = entry.kind == "targets" and not entry.fault
        key = (*sorted(entry.about.items()), entry.rows, entry.columns) if alike else entry.path
        groups.setdefault(key, []).append(entry)
    return list(groups.values())


def _cells(alike: Sequence[Entry]) -> tuple[str, ...]:
    """Of entries that are alike: what they all are, the sum of their sizes, the youngest's age."""
    entry = alike[0]
    said, rows = entry.about, "" if entry.rows is None else f"{entry.rows:,}"
    model, images, logits = entry.path.name, rows, ""
    if entry.fault:
        model = f"unreadable: {model}"
    elif entry.kind == "predictions":
        size = "train size " * (said.get("eval_size") == "train")
        how = f"{size}{said.get('input_size', '?')} px {said.get('amp', '')}"
        model = f"{said.get('name', '')}, {how.rstrip()}"
        logits = "yes" if "logits" in entry.columns else "no"
    elif entry.kind == "classes":
        model, images = f"{said.get('name', '')}, {rows} classes", ""
    elif entry.kind == "canonical":
        model = f"{rows} × {said['side']} px"
    elif entry.kind == "targets":
        model = _targets(alike)
    elif entry.kind == "timm":
        model, images = f"{said.get('name', '')}, {rows} names", ""
    elif entry.kind == "drift":
        model = f"a student's {len(entry.columns)} tensors"
    age = _age(time.time() - max(entry.modified for entry in alike))
    return entry.kind, model, _size(alike), age, images, logits, said.get("data", "")


def _targets(alike: Sequence[Entry]) -> str:
    """How many models and epochs, and what is kept of each; targets do not know their models."""
    ((form, number),) = alike[0].about.items()
    kept = {"classes": "classes", "topk": "most probable classes"}[form]
    features = " and features" if "features" in alike[0].columns else ""
    return f"{len(alike):,} models × epochs, {int(number):,} {kept}{features}"


def _as_json(entry: Entry) -> dict[str, Any]:
    written = datetime.fromtimestamp(entry.modified, timezone.utc).isoformat(timespec="seconds")
    return asdict(entry) | {"path": str(entry.path), "modified": written}


def _count(found: Sequence[Entry]) -> str:
    return counted(len(found), "entry", "entries")


def _size(found: Sequence[Entry]) -> str:
    return size_text(sum(entry.bytes for entry in found))


def _age(seconds: float) -> str:
    for unit, length in SECONDS.items():
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return "now"


def _seconds(age: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(d|h|min)", age.strip())
    if found is None:
        raise UsageError(f"{age!r} is no age", "Write days or hours, such as 30d or 12h.")
    return float(found[1]) * SECONDS[found[2]]
