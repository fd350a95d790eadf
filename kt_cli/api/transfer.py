"""Move what teachers know and a student does not into the student."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kt_cli.api import Reference
from kt_cli.errors import StudentLost, UsageError, WriteError, signed, warn
from kt_cli.files import file_name, require_writable
from kt_cli.progress import Progress, silent
from kt_cli.settings import DataSpec, TransferSpec
from kt_cli.settings.data import data_spec
from kt_cli.settings.declared import by_keyword, check
from kt_cli.settings.transfer import with_guard
from kt_cli.settings.values import texts
from kt_cli.spec import Model, Run

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Transferred:
    """A finished transfer.

    Attributes:
        row: what changed, by the columns of the table `transfer` (results/README.md).
        path: folder of the student, which timm loads too.
        classes: names of the data's classes, in the order of `row["gain_by_class"]`.
    """

    row: Mapping[str, Any]
    path: Path
    classes: tuple[str, ...] = ()

    def push(self, repository: str, private: bool = False) -> str:
        """Upload the student to the hub as ORG/NAME, `private` where that is new; where it is.

        Raises:
            KtError: the hub refuses, or does not answer.
        """
        from kt_cli.zoo import hub_push

        row = self.row
        message = f"{row['student']} taught by {row['teacher']} ({row['method']})"
        return hub_push.push(self.path, repository, private, message)

    @cached_property
    def student(self) -> nn.Module:
        """The student after transfer, in evaluation mode."""
        from kt_cli.zoo import load, names

        return load.load(names.single(f"local-dir:{self.path}")).module.eval()

    def __repr__(self) -> str:
        return (
            f"{self.row['teacher']} → {self.row['student']} by {self.row['method']}: "
            f"Δ {signed(self.delta)} = gain {self.row['gain']:.2f} − loss {self.row['loss']:.2f}, "
            f"saved in {self.path}"
        )

    @property
    def delta(self) -> float:
        """Δ: top-1 after − before, percentage points."""
        return float(self.row["delta"])


class Planned(NamedTuple):
    """A transfer, where its student will be, and the names of the data's classes."""

    run: Run
    saved: Path
    classes: tuple[str, ...]


def transfer(
    teachers: Reference | Sequence[Reference],
    student: Reference,
    *,
    output: Path | str | None = None,
    overwrite: bool = False,
    guard: str | None = None,
    results: Path | str | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Transferred:
    """Teach a student what teachers know better, and save it as a model that timm loads.

    An interrupted transfer goes on where it stopped when the same call is made again.

    Args:
        teachers, student: models as on the command line.
        output: folder for the student; by default one below students/.
        overwrite: replace a model that kt saved there before.
        guard: go only as far as images that the student never trained on let it: "gain", "safe",
            "safe:0.5" or "shrink".
        results: folder that receives its row, for `kt_cli.results` and `kt report`; None for none.
        settings: as the options of `kt transfer` (docs/settings.md): data="digits", lr=0.01, …

    Raises:
        UsageError: the models, the settings and the data do not go together.
        StudentLost: more than `fail_if_worse` or `fail_if_class_worse` points; its `transferred` is
            what would have been returned.
        KtError: the loss is not finite, or memory is exhausted.
    """
    asked = [*texts(teachers), *texts(student)]
    if results is not None:
        require_writable(Path(results).absolute())
    run, saved, classes = planned(asked, output, overwrite, guard, progress, settings)
    from kt_cli.runs.transfer import transfer_run

    (row,) = transfer_run(run, saved.absolute().parent, progress)
    keep(run, row, saved, results)
    found = Transferred(row, saved, classes)
    if row["worse"]:
        raise lost(found)
    return found


def planned(
    references: Sequence[str], output: Path | str | None, overwrite: bool, guard: str | None,
    progress: Progress, settings: Mapping[str, Any],
) -> Planned:  # fmt: skip
    """A transfer from the first models into the last, as `transfer` does it."""
    how, images = by_keyword(settings, TransferSpec, DataSpec)
    spec = TransferSpec.of(how)
    # The screen of a single transfer names classes.
    spec = replace(spec, method=with_guard(spec.method, guard), by_class=True)
    # Whoever gives what would change nothing wants something else.
    if not spec.guarded and ("guard_data" in images or spec.force_guard):
        option = "--force-guard" if spec.force_guard else "--guard-data"
        raise UsageError(f"{option} changes nothing without --guard", "Add --guard safe.")
    data = data_spec(images)
    if len(references) < 2:
        raise UsageError("no teacher is named", "Name at least one beside the student.")
    models = resolved(references)
    from kt_cli.data.guard_images import leave_out_guards
    from kt_cli.data.remembered import forget
    from kt_cli.distillation import methods
    from kt_cli.zoo.save import require_free

    methods.find(spec.method)
    check(spec.with_defaults)
    target = None if output is None else Path(output)
    if target is not None:
        require_free(target, overwrite, models)
    forget()
    if "guard" not in images:
        data = leave_out_guards(data, models)
    return _run(models, spec, data, target, progress)


def keep(run: Run, row: Mapping[str, Any], saved: Path, results: Path | str | None) -> None:
    """Write a row as a sweep does; where that fails, what was measured is not lost with it."""
    from kt_cli.rows import store

    if results is None:
        return
    done = {"run_id": run.id, **row, "path": os.path.relpath(saved, results)}
    done |= {"status": store.OK, "attempt": run.attempt}
    try:
        store.write(Path(results), "transfer", [done])
    except WriteError as error:
        warn(f"{error.message}: kt report will not have this transfer.")


def lost(found: Transferred) -> StudentLost:
    """The error of a student that lost more than was allowed."""
    said = f"{found.row['student']} lost more than was allowed: {found.row['worse']}"
    error = StudentLost(said, f"It is saved, and marked, in {found.path}.")
    error.transferred = found
    return error


def resolved(references: Sequence[str]) -> list[Model]:
    """The teachers and, last, the student."""
    from kt_cli.zoo import names

    models = names.resolve(references)
    names.refuse_predictions(models, "kt transfer")
    if len(models) < len(references):
        raise UsageError(f"teachers and student must be different models: {', '.join(references)}")
    several = next((one for one in references if len(names.resolve([one])) > 1), None)
    if several is not None:
        raise UsageError(
            f"{several} names several models, kt transfer takes them one by one",
            "Write each of them, the student last; selections are for kt sweep.",
        )
    return models


def _run(
    models: Sequence[Model], spec: TransferSpec, images: DataSpec, target: Path | None,
    progress: Progress,
) -> Planned:  # fmt: skip
    from kt_cli.data.guard_images import require_guard
    from kt_cli.data.sources import open_data
    from kt_cli.distillation import methods
    from kt_cli.zoo import classes, load
    from kt_cli.zoo.imagenet_names import readable

    opened = open_data(images, training=True)
    methods.require_possible(spec, len(models) - 1, opened.training().labelled)
    if spec.guarded:
        require_guard(images, opened.guard, models[-1], spec.force_guard)
    classes.require_classes(models, opened.classes, images.source, opened.eval.select)
    classes.warn_of_classes(models, opened.classes, opened.eval.select)
    opened.eval.warn_of_empty_classes()
    load.require_weights(models)
    methods.warn_if_short(spec.with_defaults, len(opened.training()))
    run = Run("transfer", tuple(models), opened.transfer_id(spec.guarded, progress), spec, images)
    *teachers, student = (model.name for model in models)
    name = f"{student}-from-{'-'.join(teachers)[:80]}-{spec.method}-{run.id[:8]}"
    saved = target or Path("students") / file_name(name)
    require_writable(saved.absolute())
    names = tuple(readable(opened.classes))
    return Planned(replace(run, out=saved.absolute().name), saved, names)
