"""Weights between weights: slow weights, the mean of several, the line between two.

A state is the `state_dict` of a module. Floating-point tensors are mixed; what counts (integer
buffers such as `num_batches_tracked`) is copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]


def copied(module: nn.Module) -> dict[str, Tensor]:
    """The module's state, in memory of its own."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def load(module: nn.Module, state: State) -> None:
    """Give the module a state: the one place where the weights of a model in use are replaced.

    Raises:
        RuntimeError: it is of another module.
    """
    module.load_state_dict(dict(state))
    forget(module)


def forget(module: nn.Module) -> None:
    """Let go of what a module in evaluation mode remembers of the weights that it had.

    LeViT and its kin (TinyViT, EfficientFormer, EfficientViT) look their attention biases up once
    and then answer with these, whatever is loaded.
    """
    if not module.training:
        module.train()
        module.eval()


class EMA:
    """θ_slow ← τ θ_slow + (1 − τ) θ at each step, from θ₀ (momentum-based continual learning)."""

    def __init__(self, module: nn.Module, tau: float) -> None:
        self.state, self._tau = copied(module), tau

    @torch.no_grad()
    def step(self, module: nn.Module) -> None:
        for name, value in module.state_dict().items():
            slow = self.state[name]
            if slow.is_floating_point():
                slow.lerp_(value.to(slow.dtype), 1 - self._tau)
            else:
                slow.copy_(value)


def mean(states: Sequence[State]) -> dict[str, Tensor]:
    """The mean of several states (model soup, Wortsman et al., 2022); counts of the first."""
    found = {name: value.clone() for name, value in states[0].items()}
    for name, value in found.items():
        if value.is_floating_point():
            found[name] = torch.stack([state[name] for state in states]).mean(dim=0)
    return found


def between(start: State, end: State, alpha: float) -> dict[str, Tensor]:
    """(1 − α) θ₀ + α θ₁; exactly θ₀ or θ₁ at the ends, counts of θ₁ elsewhere."""
    if alpha in (0, 1):
        return dict(end if alpha else start)
    return {
        name: torch.lerp(start[name], value, alpha) if value.is_floating_point() else value
        for name, value in end.items()
    }
