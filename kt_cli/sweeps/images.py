"""What a plan knows of the images, and whether earlier rows were about the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kt_cli.data.sources import Data
from kt_cli.progress import Progress, silent
from kt_cli.rows.store import OK, read
from kt_cli.settings import DataSpec, TransferSpec


@dataclass(frozen=True)
class Images:
    """What a plan knows of the images."""

    eval_id: str  # fingerprint of the evaluation images
    transfer_id: str = ""  # of all that a transfer reads
    guarded_id: str = ""  # of all that a guarded one reads
    training: int = 0  # how many training images there are
    classes: int = 0

    @classmethod
    def of(
        cls, data: Data, transfers: Sequence[TransferSpec], progress: Progress = silent
    ) -> Images:
        """Of `data`; only what evaluation and `transfers` use is read."""
        guarded = {settings.guarded for settings in transfers}
        ids = {each: data.transfer_id(each, progress) for each in guarded}
        training = 0 if data.train is None else len(data.train)
        eval_id = data.eval.identify(progress)
        return cls(eval_id, ids.get(False, ""), ids.get(True, ""), training, len(data.classes))


def other_images(folder: Path, data: Data, spec: DataSpec) -> list[str]:
    """What parts the images from those of earlier rows in `folder`, which were named alike."""
    same: dict[str, object] = {"data": spec.source, "limit": spec.limit}
    drawn = {"fraction": spec.fraction, "subset_seed": spec.seed, "guard_share": spec.guard}
    roles = {
        "evaluation": (data.eval, "models", "eval_data", same),
        "training": (data.train, "transfer", "train_data", {**same, **drawn}),
        "guard's": (data.guard, "transfer", "guard_data", {**same, **drawn}),
    }
    said = []
    for role, (images, table, column, named) in roles.items():
        rows = read([folder], table, [column, "status", *named])
        for name, value in named.items():
            rows = rows[rows[name].isna() if value is None else rows[name] == value]
        earlier = rows[column][rows["status"] == OK].dropna()
        if images is not None and len(earlier) and images.fingerprint not in set(earlier):
            difference = images.difference(earlier.iloc[-1])
            said.append(f"the {role} images are not those of earlier rows ({difference})")
    return said
