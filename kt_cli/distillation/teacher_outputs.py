"""What models say about training views, whole or as their most probable classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from kt_cli.device import send
from kt_cli.distillation.losses import TopK
from kt_cli.distillation.partition import SampleStats


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
        return self._each(lambda values: send(full(values[where]), device))

    def small(self) -> TeacherOutputs:
        """On the CPU, in half precision; what decides who teaches stays as it is."""
        logits = self.logits
        if isinstance(logits, TopK):
            logits = TopK(logits.classes.int(), logits.log_probs.half(), logits.log_rest)
        else:
            logits = logits.half()
        features = None if self.features is None else self.features.half()
        return replace(self, logits=logits, features=features)._each(Tensor.cpu)

    def tensors(self) -> dict[str, Tensor]:
        """All that they consist of, by name."""
        found: dict[str, Any] = {"features": self.features, **_fields(self.said)}
        if isinstance(self.logits, TopK):
            found |= _fields(self.logits)
        else:
            found["logits"] = self.logits
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
        return sum(t.numel() * t.element_size() for t in self.tensors().values())

    def _each(self, change: Callable[[Tensor], Tensor]) -> TeacherOutputs:
        return TeacherOutputs.of({name: change(value) for name, value in self.tensors().items()})


def joined(parts: list[TeacherOutputs]) -> TeacherOutputs:
    """Answers about the views of all parts, in order."""
    tensors = [part.tensors() for part in parts]
    return TeacherOutputs.of({name: torch.cat([t[name] for t in tensors]) for name in tensors[0]})


def _fields(value: TopK | SampleStats) -> dict[str, Tensor]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _filled(kind: type[Any], tensors: Mapping[str, Tensor]) -> Any:
    return kind(**{f.name: tensors[f.name] for f in fields(kind)})


def full(values: Tensor) -> Tensor:
    """Half precision as single; all else as it is."""
    if not values.is_floating_point():
        return values
    return values.to(torch.promote_types(values.dtype, torch.float32))
