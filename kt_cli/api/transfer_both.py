"""Two models that teach each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kt_cli.api import Reference
from kt_cli.api.transfer import Planned, Transferred, keep, lost, planned, resolved
from kt_cli.errors import KtError, UsageError
from kt_cli.files import file_name, require_writable, write_text
from kt_cli.progress import Progress, silent
from kt_cli.settings.values import plain
from kt_cli.spec import Run

Row = Mapping[str, Any]


def transfer_both(
    one: Reference,
    other: Reference,
    *,
    output: Path | str | None = None,
    overwrite: bool = False,
    guard: str | None = None,
    results: Path | str | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> tuple[Transferred, Transferred]:
    """Teach each of two models what the other knows better, by the other as it was.

    It is the same as two transfers, but for the rounding of answers that are asked for in other
    batches (none where targets are kept for each alone as well); what a model says about training
    views is asked once, as teacher and as frozen student. When the same call is made again after
    an interruption, a student that was finished is not taught again.

    Args:
        one, other: models as on the command line.
        output: folder of both students, each under its name; by default below students/.
        overwrite, guard, results, settings: as of `transfer`.

    Returns:
        What became of `other`, taught by `one`, and of `one`, taught by `other`.

    Raises:
        StudentLost: as of `transfer`; its `transferred` has both.
        UsageError, KtError: likewise.
    """
    if results is not None:
        require_writable(Path(results).absolute())
    asked = [str(plain(model)) for model in (one, other)]
    models = resolved(asked)
    names = [file_name(model.name) for model in models]
    if output is not None and names[0] == names[1]:
        raise UsageError(f"both students would be saved as {names[0]}", "Leave out the output.")
    plans = [
        planned([asked[1 - i], asked[i]], None if output is None else Path(output) / names[i],
                True, guard, progress, settings)
        for i in (1, 0)
    ]  # fmt: skip
    found = [_kept(plan.run, plan.saved) for plan in plans]
    if output is not None:
        from kt_cli.zoo.save import require_free

        for plan, row in zip(plans, found, strict=True):
            if row is None:
                require_free(plan.saved, overwrite, models)
    rows = _taught(plans, found, results, progress)
    first, second = (
        Transferred(row, plan.saved, plan.classes) for plan, row in zip(plans, rows, strict=True)
    )
    worse = [lost(one) for one in (first, second) if one.row["worse"]]
    if worse:
        error = worse[0]
        error.message = "; ".join(one.message for one in worse)
        error.transferred = first, second
        raise error
    return first, second


def _taught(
    plans: Sequence[Planned], known: Sequence[Row | None], results: Path | str | None,
    progress: Progress,
) -> list[Row]:  # fmt: skip
    """The rows of the planned transfers; those that are known are not done again."""
    from kt_cli.distillation import checkpoint
    from kt_cli.runs.transfer import transfer_run

    rows = []
    for run, plan, row in zip(_sharing([p.run for p in plans]), plans, known, strict=True):
        if row is None:
            saved = plan.saved.absolute()
            (row,) = transfer_run(run, saved.parent, progress)
            keep(run, row, plan.saved, results)
            write_text(_row_of(run, saved), json.dumps(plain(row)))
        rows.append(row)
    for plan in plans:
        checkpoint.remove_all(plan.saved.absolute().parent, plan.run.id)
    return rows


def _sharing(runs: list[Run]) -> list[Run]:
    """The runs, which keep what models say about views where both ask for it."""
    from kt_cli.data.sources import open_data
    from kt_cli.runs.target_plan import keep_targets

    data = open_data(runs[0].data, training=True)
    settled = [replace(run, settings=run.settings.with_defaults) for run in runs]
    return keep_targets(settled, len(data.training()), len(data.classes), budget=0)[0]


def _row_of(run: Run, saved: Path) -> Path:
    """Where the row of a student is kept until the other is taught too."""
    from kt_cli.distillation import checkpoint

    return saved.parent / checkpoint.HOME / run.id / "row.json"


def _kept(run: Run, saved: Path) -> Row | None:
    """The row of a student that an interrupted call finished."""
    from kt_cli.zoo import local_models

    try:
        row = json.loads(_row_of(run, saved.absolute()).read_text(encoding="utf-8"))
        done = local_models.read_config(saved)["kt"]["run_id"] == run.id
    except (KtError, OSError, ValueError, KeyError, TypeError):
        return None
    return row if done else None
