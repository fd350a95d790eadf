"""The table of the kinds of runs, and what holds for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from kt_cli.data.canonical import canonical, canonical_path
from kt_cli.data.hanging import noticed
from kt_cli.data.sources import open_data
from kt_cli.device import provenance
from kt_cli.errors import DataError
from kt_cli.progress import Progress, silent
from kt_cli.rows import store
from kt_cli.runs.columns import Row, setting_columns
from kt_cli.runs.kind import Kind
from kt_cli.runs.pairs import PAIRS
from kt_cli.runs.predict import PREDICT
from kt_cli.runs.pretrain import PRETRAIN
from kt_cli.runs.transfer import TRANSFER
from kt_cli.settings import DataSpec
from kt_cli.spec import Model, Run

KINDS: dict[str, Kind[Any]] = {kind.name: kind for kind in (PRETRAIN, PREDICT, PAIRS, TRANSFER)}


def kind_of(run: Run) -> Kind[Any]:
    return KINDS[run.kind]


def from_json(text: str) -> Run:
    """A run as `Run.to_json` wrote it."""
    raw = json.loads(text)
    raw["models"] = tuple(Model(**model) for model in raw["models"])
    raw["settings"] = _settings(raw["kind"], json.dumps(raw["settings"]))
    raw["data"] = DataSpec(**raw["data"])
    return Run(**raw)


@lru_cache(maxsize=64)
def _settings(kind: str, text: str) -> Any:
    """One object for all runs of these settings: what follows from them is found out once."""
    return KINDS[kind].settings(**json.loads(text))


def failed_row(run: Run, error: str, seconds: float = 0.0) -> Row:
    """The row of a run that failed: what was asked for, and why there is no result.

    seconds: that it took all the same, as far as is known. Where it ran need not be here.
    """
    kind = kind_of(run)
    return {
        "run_id": run.id, "status": store.FAILED, "error": error, "attempt": run.attempt,
        **setting_columns(run.settings.with_defaults, kind.table), "data": run.data.source,
        **provenance(), "seconds": seconds, **kind.about(run),
    }  # fmt: skip


def check_data(run: Run) -> None:
    """Raise DataError where the images are no longer the ones that the run was planned for."""
    data, sets = kind_of(run).images(run)
    for images, planned in zip(sets, run.data_id.split("+"), strict=True):
        if images.fingerprint != planned:
            raise DataError(
                f"the images of {images.name} changed since the run was planned: "
                f"{images.difference(planned)}",
                "Start the sweep again.",
            )
    # Training images were decoded under their fingerprint; the others are read again and again.
    for images in [each for each in sets if each is not data.train] or [data.eval]:
        images.require_unchanged()


def decode_training_images(
    runs: Iterable[Run], progress: Progress = silent, minutes: float | None = None
) -> None:
    """Cache the canonical training images of all runs; KtError if reading hangs for `minutes`."""
    for data, crop, side in _wanted_images(runs):
        images = open_data(data, training=True).training()
        images.identify(progress)  # which reads what is not known, however long that takes
        with noticed(images, minutes, progress) as told:
            canonical(images, crop, side, told)


def are_decoded(runs: Iterable[Run]) -> bool:
    """Whether the cache has them all."""
    return all(
        canonical_path(open_data(data, training=True).training(), crop, side).exists()
        for data, crop, side in _wanted_images(runs)
    )


def _wanted_images(runs: Iterable[Run]) -> list[tuple[DataSpec, float, int]]:
    return list(dict.fromkeys(found for run in runs if (found := kind_of(run).trains_on(run))))
