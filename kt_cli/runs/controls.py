"""What running statistics do to a student without anything learned: controls beside its Δ."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from kt_cli.distillation import batch_norm
from kt_cli.distillation.weight_averaging import State, copied, load

CONTROLS: dict[str, float] = {}  # of students in this process, for all their transfers


def statistics_alone(
    module: nn.Module, start: State, accuracy: Callable[[], float], before: float
) -> float:
    """Δ of the student before transfer with the running statistics after it.

    Args:
        module: the student after transfer, as it is left. start: its state before.
        accuracy: top-1 in percent of what the module is. before: of the student before transfer.
    """
    end, names = copied(module), batch_norm.statistics(module)
    if all(torch.equal(start[name], end[name]) for name in names):
        return 0.0
    load(module, {**start, **{name: end[name] for name in names}})
    return _and_back(module, end, accuracy) - before


def control(
    module: nn.Module, start: State, accuracy: Callable[[], float], before: float,
    estimate_statistics: Callable[[nn.Module], None], key: str,
) -> float:  # fmt: skip
    """Δ of the student before transfer with statistics estimated anew, as `statistics_alone`.

    Args:
        key: identity of the student, the images and how it is evaluated.
    """
    if key not in CONTROLS:
        end = copied(module)
        load(module, start)
        estimate_statistics(module)
        CONTROLS[key] = _and_back(module, end, accuracy) - before
    return CONTROLS[key]


def _and_back(module: nn.Module, end: State, accuracy: Callable[[], float]) -> float:
    found = accuracy()
    load(module, end)
    return found
