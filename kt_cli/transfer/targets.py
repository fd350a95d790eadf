"""What the loop distils from: logits of whole epochs, computed once per model and kept.

A training step then costs the student's forward, backward and update only. Views are a function
of (seed, epoch, index), so a model's logits on them serve every pair and method that it is in,
as teacher or as frozen student.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kt_cli.data.views import Views, preprocess
from kt_cli.spec import Model
from kt_cli.transfer.methods import Method

if TYPE_CHECKING:
    from kt_cli.zoo.load import Loaded

BATCH = 256
BUDGET_BYTES = 2 * 2**30


@dataclass(frozen=True)
class EpochTargets:
    """logits: (n, C) of each sample's source. taught: (n,) bool, True where it is the teacher."""

    logits: Tensor
    taught: Tensor


class LogitsCache:
    """Least recently used (n, C) logits of models on epochs' views, within a byte budget."""

    def __init__(self, budget: int = BUDGET_BYTES) -> None:
        self._budget = budget
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def get(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        if key not in self._kept:
            self._kept[key] = compute()
            while len(self._kept) > 1 and self._size() > self._budget:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _size(self) -> int:
        return sum(t.numel() * t.element_size() for t in self._kept.values())


class Targets:
    """The targets of one transfer: who teaches what on each epoch's views.

    Args:
        load: gives a model ready for evaluation; called only when its logits are not kept.
    """

    def __init__(
        self,
        method: Method,
        teacher: Model,
        student: Model,
        views: Views,
        load: Callable[[Model], Loaded],
        cache: LogitsCache,
    ) -> None:
        self._method, self._teacher, self._student = method, teacher, student
        self._views, self._cache = views, cache
        self._load = lru_cache(maxsize=2)(load)

    def epoch(self, epoch: int) -> EpochTargets:
        teacher = self._logits(self._teacher, epoch)
        frozen = self._logits(self._student, epoch) if self._method.needs_frozen else teacher
        taught = self._method.partition(teacher, frozen, self._views.labels)
        return EpochTargets(torch.where(taught[:, None], teacher, frozen), taught)

    def _logits(self, model: Model, epoch: int) -> Tensor:
        key = f"{model.key}/{self._views.epoch_key(epoch)}"
        return self._cache.get(key, lambda: logits_on(self._load(model), self._views, epoch))


@torch.no_grad()
def logits_on(model: Loaded, views: Views, epoch: int) -> Tensor:
    """Logits (n, C), float32, of a model on all views of an epoch, at its own resolution."""
    module = model.module.to(views.device).eval()
    prepare = preprocess(model.config("train"), views.device)
    parts = [
        module(prepare(views.batch(epoch, indices))).float()
        for indices in torch.split(torch.arange(len(views)), BATCH)
    ]
    return torch.cat(parts)
