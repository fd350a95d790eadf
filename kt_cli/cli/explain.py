"""`kt explain STUDENT` or `kt explain BEFORE AFTER`: what changed, and where."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kt_cli.cli import options, screen
from kt_cli.cli.options import option
from kt_cli.cli.setting_options import Fields, Given, with_settings
from kt_cli.errors import UsageError, signed
from kt_cli.settings import DataSpec, EvalSpec
from kt_cli.settings.data import EVALUATED
from kt_cli.settings.shared import MODELS, OUTPUT

if TYPE_CHECKING:
    from kt_cli.knowledge.changes import Changes


@with_settings
def explain(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="A student that kt transfer saved; or the model "
                       "before and the model after."),
    ],
    images: Annotated[Given, Fields(DataSpec, ("source", "limit"), only=EVALUATED)],
    how: Annotated[Given, Fields(EvalSpec, without=("amp",))],
    teacher: Annotated[
        str | None,
        option(panel=MODELS, metavar="MODEL", help="Whose answers are shown beside them.",
               show_default="a saved student's only teacher"),
    ] = None,
    device: options.Device = None,
    tf32: options.Tf32 = None,
    amp: options.Amp = None,
    amp_dtype: options.AmpType = None,
    top: Annotated[
        int, option(min=0, panel=OUTPUT, metavar="N", help="How many classes and confusions.")
    ] = 5,
    samples: Annotated[
        int, option(min=0, panel=OUTPUT, metavar="N", help="How many images to list.")
    ] = 0,
    gallery: options.Gallery = None,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Say what changed: images, classes and confusions that were gained and lost.

    Of a student that kt transfer saved, its folder says what it came from and which images.
    """
    if len(models) > 2:
        raise UsageError(
            f"kt explain takes one model or two, not {len(models)}", "A third is --teacher."
        )
    if gallery is not None:
        from kt_cli.knowledge.gallery import require_ending

        require_ending(gallery)
    from kt_cli.api.explain import explain as explained

    how["eval_amp"] = options.precision(amp, amp_dtype)
    with screen.progress() as progress:
        before, after = models[0], models[1] if len(models) == 2 else None
        found = explained(before, after, teacher, progress=progress, **images, **how)
    if as_json:
        screen.show_json({**found.to_dict(top), **_listed(found, samples)})
    else:
        _show(found, top, samples)
    if gallery is not None:
        from kt_cli.knowledge import gallery as drawing
        from kt_cli.knowledge.changes import TEACHER

        witness = TEACHER if found.taught else None
        drawing.draw(gallery, found.found, drawing.CHANGES, samples or drawing.SAMPLES, witness)
        screen.note(f"Drew {gallery}")


def _show(found: Changes, top: int, samples: int) -> None:
    from kt_cli.knowledge.changes import AFTER, BEFORE, TEACHER

    of, names = found.found, found.found.names
    screen.line((found.verdict, "bold"))
    screen.line(f"{of.n:,} images of {len(of.classes):,} classes of {Path(of.images.name).name}\n")
    roles = [("before", BEFORE), ("after", AFTER)]
    roles += [("teacher", TEACHER)] if found.taught else []
    rows = [(role, names[i], f"{of.accuracies[i]:.2f}") for role, i in roles]
    screen.out.print(screen.table(("", "model", "top-1 %"), rows, words=("model",)))
    learned = "" if found.learned is None else f", {found.learned:.0f}% of it known to the teacher"
    gain = f"gain {found.gain:.2f}{learned}"
    screen.line(f"\nΔ {signed(found.delta)} = {gain} − loss {found.loss:.2f}")
    if classes := found.classes(top):
        cells = [(c.name, c.images, c.gained, c.lost, f"{c.gained - c.lost:+d}") for c in classes]
        screen.line(("\nclasses that gained and lost most", "bold"))
        screen.out.print(screen.table(("class", "images", "gained", "lost", "net"), cells))
    if confusions := found.confusions(top):
        moved = [(c.label, c.answer, c.before, c.after, f"{c.after - c.before:+d}")
                 for c in confusions]  # fmt: skip
        screen.line(("\nconfusions that moved most", "bold"))
        headers = ("class", "taken for", "before", "after", "change")
        screen.out.print(screen.table(headers, moved, words=("taken for",)))
    for title, right, wrong in (("gained", AFTER, BEFORE), ("lost", BEFORE, AFTER)):
        if samples:
            _samples(found, title, right, wrong, samples)


def _listed(found: Changes, count: int) -> dict[str, Any]:
    """The images that `--samples` asks for, for JSON."""
    from kt_cli.knowledge.changes import AFTER, BEFORE
    from kt_cli.knowledge.explanation import samples

    roles = {"gained": (AFTER, BEFORE), "lost": (BEFORE, AFTER)}
    said = {
        name: list(map(asdict, samples(found.found, *both, count))) for name, both in roles.items()
    }
    return {"samples": said} if count else {}


def _samples(found: Changes, title: str, right: int, wrong: int, count: int) -> None:
    from kt_cli.knowledge.changes import TEACHER
    from kt_cli.knowledge.explanation import samples

    of = found.found
    rows = [
        (s.id, s.label, s.answer, *([of.answer(TEACHER, s.index)] if found.taught else []))
        for s in samples(of, right, wrong, count)
    ]
    if not rows:
        return
    screen.line((f"\nimages that were {title}", "bold"))
    when = "before" if title == "gained" else "after"
    headers = ("image", "class", f"answer {when}", "teacher's answer")[: 3 + found.taught]
    screen.out.print(screen.table(headers, rows, words=headers[1:]))
