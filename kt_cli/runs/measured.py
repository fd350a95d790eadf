"""What a sweep measured of its models, and that later runs are about the very same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kt_cli.data.images import ImageSet
from kt_cli.errors import DataError
from kt_cli.rows import store
from kt_cli.settings import EvalSpec
from kt_cli.spec import Model
from kt_cli.zoo.identity import TRAITS, Traits, differences


def traits_measured(folder: Path, images: ImageSet, how: EvalSpec) -> dict[str, Traits]:
    """Of each model, by key, what the results in `folder` say it was when it saw `images`."""
    columns = ["model_key", "eval_data", "eval_size", "eval_amp", *TRAITS, "status"]
    rows = store.read([folder], "models", columns)
    same = (
        (rows["status"] == store.OK) & (rows["eval_data"] == images.fingerprint)
        & (rows["eval_size"] == how.size) & (rows["eval_amp"] == how.amp)
    )  # fmt: skip
    return {
        row["model_key"]: {k: row[k] for k in TRAITS if isinstance(row[k], str)}
        for row in rows[same].to_dict("records")
    }


def require_as_measured(found: Mapping[Model, Traits], measured: Mapping[str, Traits]) -> None:
    """Refuse models that are not what was measured; those that never were may be anything.

    Raises:
        DataError: says of each what changed.
    """
    changed = {m: differences(measured.get(m.key, {}), traits) for m, traits in found.items()}
    said = [f"{model.name}: {'; '.join(what)}" for model, what in changed.items() if what]
    if said:
        raise DataError(
            f"models changed since this sweep measured them: {', '.join(said)}",
            "Rows of both must not meet: bring back what it was, or start a sweep of another "
            "--name.",
        )
