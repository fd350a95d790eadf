"""`kt transfer TEACHER STUDENT`: teach the student what the teacher knows better."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kt_cli.cli import options, screen, transfer_view
from kt_cli.cli.options import flag, option
from kt_cli.cli.setting_options import Fields, Given, with_settings
from kt_cli.errors import StudentLost, UsageError
from kt_cli.settings import DataSpec, TransferSpec
from kt_cli.settings.shared import NO_HARM, STUDENT

if TYPE_CHECKING:
    from kt_cli.api.transfer import Transferred

FIRST_OF_IMAGES = ("source", "fraction", "limit", "unlabelled", "guard_data")
RESULTS = Path("results/transfers")
FIRST = ("method", "together", "epochs", "lr", "bn")


@with_settings
def transfer(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="One teacher or several; the last is the student."),
    ],
    images: Annotated[Given, Fields(DataSpec, FIRST_OF_IMAGES)],
    how: Annotated[Given, Fields(TransferSpec, FIRST, without=("eval_amp", "by_class"))],
    guard: Annotated[
        bool,
        flag("--guard", "Go only as far as images that the student never trained on bear out.",
             NO_HARM),
    ] = False,
    amp: options.Amp = None,
    amp_dtype: options.AmpType = None,
    device: options.Device = None,
    output: Annotated[
        Path | None,
        option("-o", "--output", panel=STUDENT, metavar="FOLDER", help="Where the student goes."),
    ] = None,
    overwrite: options.Overwrite = False,
    results: Annotated[
        Path,
        option(panel=STUDENT, metavar="FOLDER", help="Where its row goes, for kt report."),
    ] = RESULTS,
    push_to_hub: Annotated[
        str | None,
        option(panel=STUDENT, metavar="ORG/NAME", hidden=True,
               help="Also upload the student to the hub."),
    ] = None,
    private: Annotated[
        bool, flag("--private", "Make a new repository private.", STUDENT, hidden=True)
    ] = False,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Move what the teacher knows and the student does not into the student.

    The student after transfer is saved as a model that timm loads. A killed transfer goes on
    where it stopped when the same command runs again.
    """
    if len(models) < 2:
        raise UsageError("kt transfer needs a teacher and a student, not one model alone")
    _require_pushable(push_to_hub, private)
    from kt_cli.api.transfer import transfer as moved

    how["amp"] = options.precision(amp, amp_dtype)
    with screen.progress() as progress:
        found, lost = _kept(lambda: moved(
            models[:-1], models[-1], output=output, overwrite=overwrite, guard=guard,
            results=results, progress=progress, **images, **how,
        ))  # fmt: skip
    if as_json:
        screen.show_json(dict(found.row))
    else:
        transfer_view.show(found.row, found.classes)
    screen.note(f"Saved the student to {found.path}")
    if lost is not None:
        raise lost
    if push_to_hub is not None:
        screen.note(f"Uploaded to {found.push(push_to_hub, private)}")


def _require_pushable(repository: str | None, private: bool) -> None:
    if repository is not None:
        from kt_cli.zoo.hub_push import require_pushable

        require_pushable(repository)
    elif private:
        raise UsageError("--private changes nothing without --push-to-hub", "Name a repository.")


def _kept(transfer: Callable[[], Transferred]) -> tuple[Transferred, StudentLost | None]:
    """What came of a transfer, and the error where the student lost more than was allowed."""
    try:
        return transfer(), None
    except StudentLost as error:
        return error.transferred, error
