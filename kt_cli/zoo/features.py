"""Pooled features of timm models: what goes into the classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from kt_cli.errors import UsageError
from kt_cli.zoo.load import unwrapped


class FeatureTap:
    """A module whose pooled features can be taken after each forward pass.

    Args:
        wanted: whether features are taken at all; where not, nothing is hooked.

    Raises:
        UsageError: features are wanted, and the module has no classifier of a known kind.
    """

    def __init__(self, module: nn.Module, wanted: bool = True) -> None:
        self.module = module
        self._taken: list[Tensor] = []
        self._hooks = []
        if wanted:
            self._hooks = [_required(module).register_forward_pre_hook(_into(self._taken))]

    def take(self) -> Tensor:
        """(b, d) features of the last forward pass."""
        assert self._taken, "no forward pass went through the classifier"
        return self._taken.pop().flatten(1)

    def close(self) -> None:
        """Take the hook off the module."""
        for hook in self._hooks:
            hook.remove()


def _into(taken: list[Tensor]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """A hook that knows no module, which would keep it, and its memory, until a collection."""

    def take(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        taken[:] = inputs[:1]

    return take


def classifier(module: nn.Module) -> nn.Module | None:
    """A timm model's classifier: linear, or a convolution of one pixel; None where it has none.

    Of distilled models, which have two, the one of the labels.
    """
    find = cast(Any, getattr(unwrapped(module), "get_classifier", None))
    head = find() if find is not None else None
    if isinstance(head, (tuple, list)):
        head = head[0]
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight[0].numel() != weight.shape[1]:
        return None
    return cast(nn.Module, head)


def width(module: nn.Module) -> int:
    """The number of pooled features.

    Raises:
        UsageError: as `FeatureTap`.
    """
    return int(cast(Tensor, _required(module).weight).shape[1])


def _required(module: nn.Module) -> nn.Module:
    head = classifier(module)
    if head is None:
        raise UsageError("the model has no pooled features before a classifier")
    return head
