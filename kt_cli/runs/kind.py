"""What every kind of run answers: a fifth kind is a new file with one of these."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol

from kt_cli.data.images import ImageSet
from kt_cli.data.sources import Data
from kt_cli.progress import Progress
from kt_cli.runs.columns import Row
from kt_cli.settings import DataSpec
from kt_cli.spec import Model, RunOf, S

Rows = list[Row]
Execute = Callable[[Sequence[RunOf[S]], Path, Progress], list[Rows | Exception]]


class Prices(Protocol):
    """What images cost, for the estimate of a run."""

    evaluation: int  # how many there are

    def per_image(self, model: Model, side: int | None = None) -> float:
        """Seconds of a model's forward pass; side: of its input, if not the usual."""

    def transfer(self, models: Sequence[Model], epochs: int) -> float:
        """Seconds of a transfer from the first models into the last."""


@dataclass(frozen=True)
class Kind(Generic[S]):
    """A kind of run."""

    name: str  # as in `Run.kind`
    table: str  # that receives its rows
    settings: type[S]
    # Opens what a run reads: all of it, and the sets that its data_id names, in order.
    images: Callable[[RunOf[S]], tuple[Data, list[ImageSet]]]
    # Does runs that share their images (one, where they do not go `together`): for each its rows,
    # or what went wrong. A run that writes its rows itself gives none.
    execute: Execute[S]
    about: Callable[[RunOf[S]], Row]  # the columns of a failed run, beside its settings
    seconds: Callable[[RunOf[S], Prices], float]  # estimates what it takes on one GPU
    # Images that are decoded beforehand, with crop and side; None for none.
    trains_on: Callable[[RunOf[S]], tuple[DataSpec, float, int] | None] = lambda run: None
    # What a run computes for all that share it, as a run of the kind; None for nothing.
    shared: Callable[[RunOf[S]], RunOf[S] | None] = lambda run: None
    together: bool = False  # runs on the same images are done together
    # Equal for runs that share what a process keeps, so that they are best done by one.
    alike: Callable[[RunOf[S]], Hashable] = lambda run: run.id
    # For each slot: the more, the less of what is in a process's memory is shared.
    chunks: Callable[[RunOf[S]], int] = lambda run: 4
    row_ids: Callable[[RunOf[S]], list[str]] = lambda run: [run.id]  # that a run writes
    many_rows: bool = False  # so that a failed one is another row than those of a success


def one_by_one(execute: Callable[[RunOf[S], Path, Progress], Rows]) -> Execute[S]:
    """What executes runs, from what executes one."""
    return lambda runs, folder, progress: [execute(run, folder, progress) for run in runs]
