"""Classifiers of timm models, and the pooled features that go into them."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from kt_cli.errors import UsageError
from kt_cli.zoo.load import Selected, unwrapped


class FeatureTap:
    """A module whose pooled features can be taken after each forward pass, where they are wanted.

    UsageError where they are, and the module has no classifier of a known kind.
    """

    def __init__(self, module: nn.Module, wanted: bool = True) -> None:
        self.module = module
        taken: list[Tensor] = []
        self._taken = taken

        # It knows no module, which it would keep, and its memory, until a collection.
        def take(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            taken[:] = inputs[:1]

        self._hooks = [_required(module).register_forward_pre_hook(take)] if wanted else []

    def take(self) -> Tensor:
        """(b, d) features of the last forward pass."""
        assert self._taken, "no forward pass went through the classifier"
        return self._taken.pop().flatten(1)

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def classifier(module: nn.Module) -> nn.Module | None:
    """A timm model's classifier of the labels: linear, or a convolution of one pixel; else None."""
    find = cast(Any, getattr(unwrapped(module), "get_classifier", None))
    head = find() if find is not None else None
    if isinstance(head, (tuple, list)):
        head = head[0]
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight[0].numel() != weight.shape[1]:
        return None
    return cast(nn.Module, head)


def width(module: nn.Module, name: str = "the model") -> int:
    """The number of pooled features; UsageError as `FeatureTap`."""
    return int(cast(Tensor, _required(module, name).weight).shape[1])


def _required(module: nn.Module, name: str = "the model") -> nn.Module:
    head = classifier(module)
    if head is None:
        raise UsageError(f"{name} has no pooled features before a classifier to distil")
    return head


def classifier_rows(module: nn.Module) -> NDArray[np.float32] | None:
    """Rows (C, d) of the classifier of a loaded module, by class; None where it has none such."""
    head = classifier(module)
    if head is None:
        return None
    weight = cast(Tensor, head.weight)
    rows: NDArray[np.float32] = weight.detach().flatten(1).float().cpu().numpy()
    if not isinstance(module, Selected):
        return rows
    return None if module.lacking else rows[module.columns.cpu().numpy()]
