"""`kt models [PATTERN…]`: list the models that kt knows of; `kt models prefetch`: fetch weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kt_cli.cli import options, screen
from kt_cli.cli.help_view import Command, Group
from kt_cli.cli.options import choice, flag, option
from kt_cli.errors import KtError, counted, size_text
from kt_cli.progress import Listener

if TYPE_CHECKING:
    from kt_cli.zoo.imagenet_facts import Fact

SHOWN, JOBS = 20, 8
LISTING, FETCHING = "list", "prefetch"
SORT_KEYS: dict[str, Callable[[Fact], Any]] = {
    "top1": lambda fact: (-fact.top1, fact.model),
    "params": lambda fact: (fact.params_m, -fact.top1),
    "gmacs": lambda fact: (fact.gmacs is None, fact.gmacs, -fact.top1),
    "name": lambda fact: fact.model,
}


class _Listing(Group):
    """`kt models vit_*` is short for `kt models list vit_*`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = [LISTING, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_Listing)


@app.callback()
def models() -> None:
    """List models, or fetch their weights. `kt models` alone lists the best."""


@app.command(LISTING, cls=Command)
def listed(
    patterns: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATTERN",
            help="Part of a name, a glob such as 'vit_*', a short name such as deit_s, "
            "or a folder or other reference of models of your own.",
        ),
    ] = None,
    arch: Annotated[
        str | None,
        option(help="timm architecture of PATTERNs that are checkpoint files or folders."),
    ] = None,
    top: Annotated[
        int | None,
        option(min=1, metavar="N", show_default=f"{SHOWN}; --json: all", help="How many to show."),
    ] = None,
    sort: Annotated[
        str, choice("--sort", [*SORT_KEYS], "Best first by top1, or smallest first, or by name.")
    ] = "top1",
    max_params: Annotated[
        float | None,
        option(metavar="M", help="Of timm's only those of at most so many million parameters."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List timm's pretrained models with ImageNet results, or models of your own."""
    from kt_cli.zoo import listing, names

    references = [pattern for pattern in patterns or () if listing.is_own(pattern)]
    words = [pattern for pattern in patterns or () if pattern not in references]
    if arch is not None and not references:
        raise names.idle_arch()
    mine = [model for reference in references for model in listing.own(reference, arch)]
    found = listing.known(words, [FETCHING]) if words or not references else []
    published = sorted(found, key=SORT_KEYS[sort])
    if max_params is not None:
        published = [fact for fact in published if fact.params_m <= max_params]
    shown = published[: top or (None if as_json else SHOWN)]
    if as_json:
        screen.show_json([*(own._asdict() for own in mine), *map(asdict, shown)])
        return
    if mine:
        headers = ("model", "architecture", "classes", "size")
        screen.out.print(screen.table(headers, [own[:4] for own in mine], ["architecture"]))
        screen.note(f"{counted(len(mine), 'model')}.")
    if published:
        _show_published(shown, len(published))
    elif found:
        screen.note(f"None of {counted(len(found), 'model')} is that small: --max-params.")


@app.command(FETCHING, cls=Command)
def prefetch(
    selection: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Models as everywhere: names, timm-top300, 'vit_*'."),
    ],
    jobs: Annotated[
        int, option("-j", "--jobs", min=1, metavar="N", help="Models at a time.")
    ] = JOBS,
    dry_run: Annotated[bool, flag("--dry-run", "Only say what is missing.")] = False,
) -> None:
    """Fetch weights of published models into the hub's cache, so that jobs need no network.

    What is there is not fetched again; the same command goes on where it stopped.
    """
    from kt_cli.zoo import names, weights
    from kt_cli.zoo import prefetch as fetching

    planned = fetching.plan(names.resolve(selection), jobs)
    screen.note(weights.describe(planned))
    if dry_run:
        sizes = [
            (model.name, "unknown" if known is None else size_text(known))
            for model, known in planned.wanted.items()
        ]
        if sizes:
            screen.out.print(screen.table(("model", "size"), sizes))
        return
    with screen.progress() as progress:
        failures = weights.fetch_planned(planned, jobs, Listener(progress, screen.note))
    for model, reason in failures:
        screen.line(f"{model.name}: {reason}")
    if failures:
        raise KtError(
            f"weights of {counted(len(failures), 'model')} could not be had",
            "The others are kept; the same command tries these again.",
        )


def _show_published(shown: Sequence[Fact], matched: int) -> None:
    rows = [
        (f.model, f"{f.top1:.2f}", str(f.img_size), f"{f.params_m:.1f}",
         "" if f.gmacs is None else f"{f.gmacs:.1f}")
        for f in shown
    ]  # fmt: skip
    screen.out.print(screen.table(("model", "top-1 %", "size", "params M", "GMACs"), rows))
    if len(shown) < matched:
        screen.note(f"{len(shown)} of {matched:,} models; --top {matched} shows all.")
    else:
        screen.note(f"{counted(matched, 'model')}.")
