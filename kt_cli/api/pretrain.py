"""Train or fine-tune timm models on images of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kt_cli.api import Reference
from kt_cli.errors import UsageError, counted, warn
from kt_cli.files import file_name, require_writable
from kt_cli.progress import Progress, silent
from kt_cli.settings import DataSpec, PretrainSpec
from kt_cli.settings.data import data_spec
from kt_cli.settings.declared import by_keyword, check
from kt_cli.settings.values import texts
from kt_cli.spec import Run

GUARD = 0.1


@dataclass(frozen=True)
class Trained:
    """A trained model. row: as in the table `pretrain`; None where it was there already."""

    path: Path
    row: Mapping[str, Any] | None = None


def pretrain(
    architectures: Reference | Sequence[Reference],
    *,
    output: Path | str = "zoo",
    overwrite: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> list[Trained]:
    """Train models, each into a folder of its own that timm loads.

    What was interrupted goes on when the same call is made again; what is finished stays.

    Args:
        architectures: timm architectures, or with `pretrained` any models as on the command line.
        output: folder that receives the models' folders.
        settings: as the options of `kt pretrain` (docs/settings.md).

    Raises:
        UsageError: a model cannot be built or trained so.
    """
    names = texts(architectures)
    how, images = by_keyword(settings, PretrainSpec, DataSpec)
    data = data_spec({"guard": GUARD, **images})
    if "name" in how and len(names) > 1:
        raise UsageError(f"--name names one model, not {len(names)}", "Leave it out.")
    files = [file_name(Path(arch).name) for arch in names]
    specs = [PretrainSpec(**{"name": file, **how, "arch": arch})
             for file, arch in zip(files, names, strict=True)]  # fmt: skip
    _require_possible(specs)
    first = specs[0]
    if first.freeze_epochs >= first.epochs:
        epochs = counted(first.epochs, "epoch")
        warn(f"--freeze {first.freeze_epochs} of {epochs}: only the classifier is trained.")
    from kt_cli.data.remembered import forget
    from kt_cli.data.sources import training_id
    from kt_cli.sweeps.plan import starting_point

    forget()
    runs = [
        Run("pretrain", starting_point(spec), training_id(data.part(spec.fraction), progress),
            spec, data, out=spec.name)
        for spec in specs
    ]  # fmt: skip
    return _train(runs, Path(output), overwrite, progress)


def _require_possible(specs: Sequence[PretrainSpec]) -> None:
    from kt_cli.sweeps.config import check_name
    from kt_cli.zoo import names

    for spec in specs:
        check(spec)
        check_name(spec.name)
        names.require_architecture(spec.arch, spec.pretrained)
    called = [spec.name for spec in specs]
    twice = next((name for name in called if called.count(name) > 1), None)
    if twice:
        raise UsageError(
            f"two models would be called {twice!r}", "Train one of them alone, with --name."
        )


def _train(runs: Sequence[Run], output: Path, overwrite: bool, progress: Progress) -> list[Trained]:
    """Run after run, without those that this very call finished before it was interrupted."""
    from kt_cli.runs.pretrain import pretrain_run
    from kt_cli.sweeps.plan import trained_by
    from kt_cli.zoo.save import require_free

    done = [run for run in runs if not overwrite and trained_by(output / run.out) == run.id]
    for run in runs:
        if run not in done:
            require_free(output / run.out, overwrite)
            require_writable((output / run.out).absolute())
    found = []
    for run in runs:
        row = None if run in done else pretrain_run(run, output, progress)[0]
        found.append(Trained(output / run.out, row))
        _doubt(row, run)
    return found


def _doubt(row: Mapping[str, Any] | None, run: Run) -> None:
    from kt_cli.knowledge.sanity_check import near_chance
    from kt_cli.runs.kinds import kind_of

    if row is None or row["accuracy"] is None:
        return
    right = round(row["accuracy"] / 100 * row["n"])
    data, _ = kind_of(run).images(run)  # as the run has opened them
    if near_chance(right, data.eval.class_sizes):
        epochs = counted(row["epochs"], "epoch")
        warn(
            f"{row['model']}: top-1 of {row['accuracy']:.2f}% is near chance after {epochs}. "
            "Train it for more (--epochs), or with another --lr."
        )
