"""Weights of published models: what is missing, fetched before it is needed."""

from __future__ import annotations

from collections.abc import Sequence

from kt_cli.errors import KtError, WriteError, counted, size_text, warn
from kt_cli.progress import Listener
from kt_cli.spec import Model
from kt_cli.zoo import prefetch, timm_registry
from kt_cli.zoo.prefetch import Failures, Plan
from kt_cli.zoo.timm_registry import HOW_TO_GET_WEIGHTS

JOBS = 8  # models at a time


def describe(planned: Plan) -> str:
    unknown_size = sum(size is None for size in planned.wanted.values())
    size = f", about {size_text(planned.bytes)}" if planned.bytes else ""
    of_them = "" if unknown_size == len(planned.wanted) else f"{unknown_size} of them "
    more = f", {of_them}of unknown size" if unknown_size else ""
    parts = [f"{counted(len(planned.wanted), 'model')} to fetch{size}{more}"]
    if planned.there:
        parts.append(f"{len(planned.there):,} there already")
    if planned.own:
        parts.append(f"{len(planned.own):,} that the hub does not have")
    return f"{'; '.join(parts)}. {planned.folder}: {size_text(planned.free)} free."


def fetch_planned(planned: Plan, jobs: int, tell: Listener = Listener()) -> Failures:
    """Fetch what is wanted; gives what could not be had. Raises as `prefetch.fetch`."""
    if planned.bytes > planned.free:
        raise WriteError(
            f"{planned.folder} has {size_text(planned.free)} left, about "
            f"{size_text(planned.bytes)} are to be fetched",
            "Free some space, or let HF_HOME name another folder; "
            "`kt models prefetch --dry-run` shows the sizes.",
        )
    failures = prefetch.fetch(planned.wanted, jobs, tell.progress)
    if planned.wanted:
        tell.note(f"Fetched {counted(len(planned.wanted) - len(failures), 'model')}.")
    return failures


def for_jobs(models: Sequence[Model], needed: int, tell: Listener) -> None:
    """Fetch what jobs without a network will need; what cannot be had fails its own runs only.

    KtError where fewer than `needed` models have weights, WriteError where the disk is too small.
    """
    if timm_registry.missing_weights(models):
        timm_registry.require_weights(models, needed)
        return
    planned = prefetch.plan(models, JOBS)
    if not planned.wanted:
        return
    tell.note(f"Jobs have no network, so weights come first: {describe(planned)}")
    failures = fetch_planned(planned, JOBS, tell)
    reasons = [f"{model.name}: {reason}" for model, reason in failures]
    if len(models) - len(failures) < needed:
        raise KtError(f"weights could not be had of {'; '.join(reasons)}", HOW_TO_GET_WEIGHTS)
    for reason in reasons:
        warn(f"weights could not be had of {reason}. Its runs will fail.")
