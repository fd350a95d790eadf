"""Weights of published models on the screen: what is missing, fetched before it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.filesize import decimal

from kt_cli.cli import screen
from kt_cli.errors import KtError, WriteError
from kt_cli.zoo.published import HOW_TO_GET_WEIGHTS

if TYPE_CHECKING:
    from kt_cli.spec import Model
    from kt_cli.zoo.prefetch import Failure, Plan

JOBS = 8  # models at a time


def number(count: int) -> str:
    return f"{count:,} model{'s' * (count != 1)}"


def describe(planned: Plan) -> str:
    """What is to be fetched, and what is there."""
    unknown_size = sum(wanted.bytes is None for wanted in planned.wanted)
    size = f", about {decimal(planned.bytes)}" if planned.bytes else ""
    more = f" and {unknown_size} of unknown size" if unknown_size else ""
    parts = [f"{number(len(planned.wanted))} to fetch{size}{more}"]
    if planned.there:
        parts.append(f"{len(planned.there):,} there already")
    if planned.own:
        parts.append(f"{len(planned.own):,} that the hub does not have")
    return f"{'; '.join(parts)}. {planned.folder}: {decimal(planned.free)} free."


def fetch(planned: Plan, jobs: int) -> list[Failure]:
    """Fetch what is wanted, with a bar; gives what could not be had.

    Raises:
        WriteError: the disk is too small. WeightsUnavailable: the hub does not answer.
    """
    from kt_cli.zoo import prefetch

    if planned.bytes > planned.free:
        raise WriteError(
            f"{planned.folder} has {decimal(planned.free)} left, about {decimal(planned.bytes)} "
            "are to be fetched",
            "Free some space, or let HF_HOME name another folder; "
            "`kt models prefetch --dry-run` shows the sizes.",
        )
    with screen.progress() as progress:
        failures = prefetch.fetch(planned.wanted, jobs, progress)
    if planned.wanted:
        screen.note(f"Fetched {number(len(planned.wanted) - len(failures))}.")
    return failures


def for_jobs(models: Sequence[Model], needed: int) -> None:
    """Fetch what jobs without a network will need; what cannot be had fails its own runs only.

    Raises:
        KtError: fewer than `needed` models have weights. WriteError: the disk is too small.
    """
    from kt_cli.zoo import published
    from kt_cli.zoo.prefetch import plan

    if published.missing_weights(models):
        require(models, needed)
        return
    planned = plan(models, JOBS)
    if not planned.wanted:
        return
    screen.note(f"Jobs have no network, so weights come first: {describe(planned)}")
    failures = fetch(planned, JOBS)
    reasons = [f"{failure.model.name}: {failure.reason}" for failure in failures]
    if len(models) - len(failures) < needed:
        raise KtError(f"weights could not be had of {'; '.join(reasons)}", HOW_TO_GET_WEIGHTS)
    for reason in reasons:
        screen.warn(f"weights could not be had of {reason}. Its runs will fail.")


def require(models: Sequence[Model], needed: int) -> None:
    """Warn of models whose weights are not here while the hub is silent.

    Raises:
        WeightsUnavailable: fewer than `needed` models are left.
    """
    from kt_cli.zoo import published

    missing = published.missing_weights(models)
    if not missing:
        return
    error = published.weights_unavailable(missing)
    if len(models) - len(missing) < needed:
        raise error
    screen.warn(f"{error.message}: their runs will fail. {error.tip}")
