"""What models say about training views, and where it is kept between uses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kt_cli.device import send
from kt_cli.distillation.losses import TopK, full
from kt_cli.distillation.partition import SampleStats
from kt_cli.files import cache_folder, cached, keep_tensors, read_tensors

MEMORY, DISK, ONLINE = "memory", "disk", "online"
MEMORY_BUDGET = 2 * 2**30
# As they are kept on disk; what decides who teaches stays as it is.
SMALL = {
    "logits": torch.half, "log_probs": torch.half, "features": torch.half, "classes": torch.int,
}  # fmt: skip
Compute = Callable[[], "TeacherOutputs"]


@dataclass(frozen=True)
class TeacherOutputs:
    """What a model says about n views."""

    logits: Tensor | TopK  # (n, C), or their most probable classes
    said: SampleStats  # what partitions need
    features: Tensor | None = None  # (n, d) pooled, where they were asked for

    def at(self, indices: Tensor, device: torch.device) -> TeacherOutputs:
        """The answers for some of the views, on the device, in full precision."""
        where = send(indices, self.said.right.device)
        return TeacherOutputs.of(
            {name: send(full(values[where]), device) for name, values in self.tensors().items()}
        )

    def small(self) -> TeacherOutputs:
        """On the CPU, in half precision; logits less the largest of their view, which says the
        same and is where half precision holds the probable ones to the most digits."""
        found = self.tensors()
        if "logits" in found:
            moved = found["logits"] - found["logits"].amax(dim=1, keepdim=True)
            found["logits"] = moved.clamp(min=torch.finfo(torch.half).min)  # not −∞, times zero NaN
        return TeacherOutputs.of(
            {name: v.to(SMALL.get(name, v.dtype)).cpu() for name, v in found.items()}
        )

    def tensors(self) -> dict[str, Tensor]:
        """All that they consist of, by name."""
        found = {"features": self.features, **vars(self.said)}
        found |= vars(self.logits) if isinstance(self.logits, TopK) else {"logits": self.logits}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> TeacherOutputs:
        """The inverse of `tensors`.

        Raises:
            KeyError: one is missing.
        """
        logits = tensors["logits"] if "logits" in tensors else _filled(TopK, tensors)
        return cls(logits, _filled(SampleStats, tensors), tensors.get("features"))

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors().values())


def joined(parts: list[TeacherOutputs]) -> TeacherOutputs:
    """Answers about the views of all parts, in order."""
    tensors = [part.tensors() for part in parts]
    return TeacherOutputs.of({name: torch.cat([t[name] for t in tensors]) for name in tensors[0]})


def _filled(kind: type[Any], tensors: Mapping[str, Tensor]) -> Any:
    return kind(**{f.name: tensors[f.name] for f in fields(kind)})


class Memory:
    """Least recently used answers about epochs' views, within a budget in bytes."""

    def __init__(self, budget: int = MEMORY_BUDGET) -> None:
        self._budget = budget
        self._kept: OrderedDict[str, TeacherOutputs] = OrderedDict()

    def stored(self, answers: TeacherOutputs) -> TeacherOutputs:
        """The form in which a batch of answers is kept."""
        return answers

    def get(self, key: str, compute: Compute) -> TeacherOutputs:
        if key not in self._kept:
            self._kept[key] = compute()
            while len(self._kept) > 1 and sum(a.bytes for a in self._kept.values()) > self._budget:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


class Disk:
    """Answers in half precision, one file for each model and epoch, read by all processes.

    Files are mapped, so that processes share them; each reads one through once, for its checksum.
    """

    def stored(self, answers: TeacherOutputs) -> TeacherOutputs:
        """The form in which a batch of answers is kept."""
        return answers.small()

    def get(self, key: str, compute: Compute) -> TeacherOutputs:
        path = cache_folder("targets") / f"{key[:24]}.safetensors"
        found = cached(path, self._read)
        if found is not None:
            return found
        answers = compute()
        keep_tensors(path, answers.tensors())
        return cached(path, self._read) or answers

    def _read(self, path: Path) -> TeacherOutputs:
        return TeacherOutputs.of(read_tensors(path))


TargetCache = Memory | Disk
