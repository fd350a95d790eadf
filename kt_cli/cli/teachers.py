"""`kt teachers STUDENT --among MODELS`: which of them could make it better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kt_cli.cli import options, screen
from kt_cli.cli.options import flag, option
from kt_cli.cli.setting_options import Fields, Given, with_settings
from kt_cli.errors import signed
from kt_cli.settings import DataSpec, EvalSpec
from kt_cli.settings.data import EVALUATED
from kt_cli.settings.shared import IMAGES, MODELS, OUTPUT

if TYPE_CHECKING:
    from kt_cli.api.teachers import Ranking

ALONE = {"statistics": "by running statistics", "self": "by itself (self)"}


@with_settings
def teachers(
    student: Annotated[str, typer.Argument(metavar="STUDENT", help="The model to be made better.")],
    images: Annotated[Given, Fields(DataSpec, ("source", "limit"), only=EVALUATED)],
    how: Annotated[Given, Fields(EvalSpec, without=("amp",))],
    among: Annotated[
        list[str],
        option(panel=MODELS, metavar="MODELS", help="Who may teach: models or selections. May "
               "repeat."),
    ],
    team: Annotated[
        int, option(min=1, panel=MODELS, metavar="N", help="Also the N that cover the most.")
    ] = 1,
    no_labels: Annotated[
        bool, flag("--no-labels", "Do not look at the labels of the images.", IMAGES)
    ] = False,
    results: Annotated[
        list[Path] | None,
        option(panel=MODELS, metavar="FOLDER", help="Where earlier transfers are. May repeat.",
               show_default="results"),
    ] = None,
    top: Annotated[
        int, option(min=1, panel=OUTPUT, metavar="N", help="How many to show.")
    ] = 10,
    cached_only: options.CachedOnly = False,
    device: options.Device = None,
    tf32: options.Tf32 = None,
    amp: options.Amp = None,
    amp_dtype: options.AmpType = None,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Rank models by what they could teach one student, and say which command to run.

    From predictions, which are kept and reused, and from earlier transfers of the student.
    """
    from kt_cli.api.teachers import teachers as ranking

    how["eval_amp"] = options.precision(amp, amp_dtype)
    with screen.progress() as progress:
        found = ranking(student, among, team=team, labels=not no_labels, results=results,
                        cached_only=cached_only, progress=progress, **images, **how)  # fmt: skip
    if as_json:
        screen.show_json(found.to_dict())
    else:
        _show(found, top)


def _show(found: Ranking, top: int) -> None:
    own = found.teaching.student
    accuracy = f" · top-1 {own.accuracy:.2f}%" if found.teaching.labelled else ""
    screen.line(f"{found.student.name}: {found.teaching.n:,} images{accuracy}")
    if found.alone:
        moved = [f"{ALONE[name]} {signed(delta)}" for name, delta in found.alone.items()]
        screen.line(f"moved with nobody teaching it, so far: {', '.join(moved)} points")
    screen.line("")
    screen.out.print(_table(found, top))
    if len(found.teachers) > top:
        screen.line(f"({len(found.teachers) - top:,} more: --top, or --json for all)")
    if len(found.team) > 1:
        named = ", ".join(found.teachers[i].name for i in found.team)
        screen.line(f"\nteam that covers the most: {named}")
    screen.line(("\n" + _conclusion(found), "bold"))
    if command := found.command():
        screen.line(f"Try: {command}", whole=True)


def _table(found: Ranking, top: int) -> object:
    """The first column after the name is what they are ranked by."""
    scores, labelled = found.teaching.scores, found.teaching.labelled
    shown = {"accuracy": "top-1 %", "reachable": "within reach %", "pos_flips": "ρ⁺ %"}
    shown = shown if labelled else {"confident": "ahead where it differs %"}
    timed, rows = any(found.measured), []
    for i, model in enumerate(found.teachers[:top]):
        known = found.measured[i]
        delta = f"{signed(known.delta)} ({known.count})" if known else ""
        cells = [f"{scores[name][i]:.2f}" for name in shown]
        rows.append((model.name, *cells, *[delta] * timed, _reason(found, i)))
    headers = ["teacher", *shown.values(), *["Δ so far"] * timed, "why"]
    return screen.table(headers, rows, words=("why",))


def _reason(found: Ranking, i: int) -> str:
    known = found.measured[i]
    if known is not None and known.sign:
        return "helped before" if known.sign > 0 else "harmed before"
    if i not in found.worth:
        return "too little to show" if found.teaching.labelled else "never ahead"
    if not found.teaching.labelled:
        return "surer where it differs"
    scores = found.teaching.scores
    return f"near: {scores['reachable'][i] / scores['pos_flips'][i]:.0%} of its ρ⁺"


def _conclusion(found: Ranking) -> str:
    if not found.worth:
        return (
            f"None of these: what they know within reach of {found.student.name} would not show on "
            f"{found.teaching.n:,} images, or they harmed it before."
        )
    first = found.teachers[found.worth[0]].name
    count = f"{len(found.worth):,} of {len(found.teachers):,}"
    return f"{count} are worth a try, {first} first; whether it helps, a transfer will tell."
