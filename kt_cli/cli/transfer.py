"""`kt transfer TEACHER STUDENT`: teach the student what the teacher knows better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kt_cli.cli import options, screen, transfer_view
from kt_cli.cli.options import flag, option
from kt_cli.cli.setting_options import Fields, Given, with_settings
from kt_cli.errors import StudentLost, UsageError
from kt_cli.settings import GUARDS, DataSpec, TransferSpec
from kt_cli.settings.shared import METHOD, NO_HARM, STUDENT
from kt_cli.settings.transfer import with_guard

if TYPE_CHECKING:
    from kt_cli.api.transfer import Transferred

FIRST_OF_IMAGES = ("source", "fraction", "limit", "unlabelled", "guard_data")
RESULTS = Path("results/transfers")
FIRST = ("method", "together", "epochs", "lr", "bn", "preset")


def _known(guard: str | None) -> str | None:
    with_guard("kl", guard)  # a word that is none may be a model, after an option without a value
    return guard


Both = Annotated[
    bool,
    flag("--both", "Two models: each teaches the other, as it was. The output is a folder of both.",
         METHOD),
]  # fmt: skip
Guard = Annotated[
    str | None,
    option("--guard", panel=NO_HARM, callback=_known, **options.one_of(tuple(GUARDS)),
           help="Go only as far as images that the student never trained on let it: where they "
           "prove a gain; where they prove that it loses 0.1 points at most (safe:0.5 for others); "
           "or where the best is to be expected."),
]  # fmt: skip


@with_settings
def transfer(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="One teacher or several; the last is the student."),
    ],
    images: Annotated[Given, Fields(DataSpec, FIRST_OF_IMAGES)],
    how: Annotated[Given, Fields(TransferSpec, FIRST, without=("eval_amp", "by_class"))],
    both: Both = False,
    guard: Guard = None,
    amp: options.Amp = None,
    amp_dtype: options.AmpType = None,
    device: options.Device = None,
    tf32: options.Tf32 = None,
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
    _require_possible(len(models), both, push_to_hub, private)
    how["amp"] = options.precision(amp, amp_dtype)
    with screen.progress() as progress:
        asked = {"output": output, "overwrite": overwrite, "guard": guard, "results": results,
                 "progress": progress, **images, **how}  # fmt: skip
        found, lost = _moved(models, both, asked)
    rows = [dict(one.row) for one in found]
    if as_json:
        screen.show_json(rows if both else rows[0])
    else:
        transfer_view.show_all(rows, found[0].classes)
    for one in found:
        screen.note(f"Saved the student to {one.path}")
    if lost is not None:
        raise lost
    if push_to_hub is not None:
        screen.note(f"Uploaded to {found[0].push(push_to_hub, private)}")


def _require_possible(models: int, both: bool, repository: str | None, private: bool) -> None:
    if models < 2:
        raise UsageError("kt transfer needs a teacher and a student, not one model alone")
    if both and (models > 2 or repository is not None):
        what = "--push-to-hub is for one student" if repository else "--both is for two models"
        raise UsageError(what, "Leave out --both.")
    if repository is not None:
        from kt_cli.zoo.hub_push import require_pushable

        require_pushable(repository)
    elif private:
        raise UsageError("--private changes nothing without --push-to-hub", "Name a repository.")


def _moved(
    models: list[str], both: bool, asked: Given
) -> tuple[tuple[Transferred, ...], StudentLost | None]:
    """What came of transfers, and the error where a student lost more than was allowed."""
    from kt_cli.api.transfer import transfer
    from kt_cli.api.transfer_both import transfer_both

    try:
        if both:
            return transfer_both(*models, **asked), None
        return (transfer(models[:-1], models[-1], **asked),), None
    except StudentLost as error:
        return error.transferred if both else (error.transferred,), error
