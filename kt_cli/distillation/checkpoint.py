"""The state of an interrupted training: one safetensors file, written atomically."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from kt_cli.files import atomic_file, checked, save_tensors

HOME = ".checkpoints"
EVERY_SECONDS = 180.0
# An epoch that took less is sooner done again than written down.
WORTH_SECONDS = 5.0


@dataclass
class Checkpoint:
    """Where a training keeps its state, and how often."""

    path: Path
    seconds: float = EVERY_SECONDS  # between two within an epoch
    identity: str = ""  # of what is trained on what; a state of another one is not gone on from
    _last: float = field(default_factory=time.monotonic, repr=False)

    def due(self, epoch_ended: bool = False) -> bool:
        wait = min(WORTH_SECONDS, self.seconds) if epoch_ended else self.seconds
        return time.monotonic() - self._last >= wait

    def save(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Replace what is there.

        Raises:
            WriteError: it could not be written; the earlier one is left as it was.
        """
        with atomic_file(self.path) as temporary:
            said = {"kt": json.dumps(dict(about)), "identity": self.identity}
            save_tensors(temporary, tensors, said, checksum=True)
        self._last = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and what was said about them; None where there is nothing to go on from."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "pt") as file:
                about = json.loads(file.metadata()["kt"])
                if file.metadata()["identity"] != self.identity:
                    return None
                found = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
                return checked(found, file.metadata()), about
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None


def of_run(folder: Path, run_id: str, identity: str, part: str = "0") -> Checkpoint:
    """Where a run that saves its results in `folder` keeps the state of one of its trainings."""
    path = folder / HOME / run_id / f"{part}.safetensors"
    return Checkpoint(path, identity=identity)


def remove_all(folder: Path, run_id: str) -> None:
    """Remove the checkpoints of a run, half-written ones too, and their home after the last one."""
    shutil.rmtree(folder / HOME / run_id, ignore_errors=True)
    with suppress(OSError):  # others are at work there
        (folder / HOME).rmdir()
