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

WHICH = ("model_key", "eval_data", "eval_size", "eval_amp")


class Measured:
    """The `models` table of a folder of results, as far as it is about `images`."""

    def __init__(self, folder: Path, images: ImageSet, how: EvalSpec) -> None:
        rows = store.read([folder], "models", [*WHICH, *TRAITS, "status"])
        same = (
            (rows["status"] == store.OK) & (rows["eval_data"] == images.fingerprint)
            & (rows["eval_size"] == how.size) & (rows["eval_amp"] == how.amp)
        )  # fmt: skip
        self._traits = {
            row["model_key"]: {k: row[k] for k in TRAITS if isinstance(row[k], str)}
            for row in rows[same].to_dict("records")
        }

    def require(self, found: Mapping[Model, Traits]) -> None:
        """Refuse models that are not what was measured; those that never were may be anything.

        Raises:
            DataError: says of each what changed.
        """
        said = []
        for model, traits in found.items():
            changed = differences(self._traits.get(model.key, {}), traits)
            if changed:
                said.append(f"{model.name}: {'; '.join(changed)}")
        if said:
            raise DataError(
                f"models changed since this sweep measured them: {', '.join(said)}",
                "Rows of both must not meet: bring back what it was, or start a sweep of another "
                "--name.",
            )
