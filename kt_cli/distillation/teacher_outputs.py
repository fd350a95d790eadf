"""What models say about training views, whole or as their most probable classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from kt_cli.device import send
from kt_cli.distillation.losses import TopK
from kt_cli.distillation.partition import SampleStats

# As they are kept on disk; what decides who teaches stays as it is.
SMALL = {
    "logits": torch.half, "log_probs": torch.half, "features": torch.half, "classes": torch.int,
}  # fmt: skip


@dataclass(frozen=True)
class TeacherOutputs:
    """What a model says about n views.

    Attributes:
        logits: (n, C), or their most probable classes.
        said: what partitions need.
        features: (n, d) pooled features, where they were asked for.
    """

    logits: Tensor | TopK
    said: SampleStats
    features: Tensor | None = None

    def at(self, indices: Tensor, device: torch.device) -> TeacherOutputs:
        """The answers for some of the views, on the device, in full precision."""
        where = send(indices, self.said.right.device)
        return TeacherOutputs.of(
            {name: send(full(values[where]), device) for name, values in self.tensors().items()}
        )

    def small(self) -> TeacherOutputs:
        """On the CPU, in half precision."""
        return TeacherOutputs.of(
            {name: v.to(SMALL.get(name, v.dtype)).cpu() for name, v in self.tensors().items()}
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


def full(values: Tensor) -> Tensor:
    """Half precision as single; all else as it is."""
    if not values.is_floating_point():
        return values
    return values.to(torch.promote_types(values.dtype, torch.float32))
