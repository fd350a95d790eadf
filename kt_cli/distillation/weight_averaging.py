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

    def step(self, module: nn.Module) -> None:
        _towards(self.state, module, 1 - self._tau)


class LastHalf:
    """The mean of the weights after each update of the last half (tail averaging)."""

    def __init__(self, module: nn.Module, updates: int) -> None:
        self.state, self._module, self._before = copied(module), module, updates // 2

    def after_update(self, updates: int) -> None:
        if updates > self._before:
            _towards(self.state, self._module, 1 / (updates - self._before))


@torch.no_grad()
def _towards(state: State, module: nn.Module, share: float) -> None:
    """Move a state towards the module's by a share of the way; counts are copied."""
    theirs = module.state_dict()
    mixed = [name for name, value in state.items() if value.is_floating_point()]
    torch._foreach_lerp_(
        [state[n] for n in mixed], [theirs[n].to(state[n].dtype) for n in mixed], share
    )
    for name in state.keys() - set(mixed):
        state[name].copy_(theirs[name])


def mean(states: Sequence[State]) -> dict[str, Tensor]:
    """The mean of several states (model soup, Wortsman et al., 2022); counts of the first."""
    found = {name: value.clone() for name, value in states[0].items()}
    for name, value in found.items():
        if value.is_floating_point():
            found[name] = torch.stack([state[name] for state in states]).mean(dim=0)
    return found


def less(state: State, drift: State) -> dict[str, Tensor]:
    """A state less a difference of weights by name; what that does not name stays."""
    return {name: v - drift[name].to(v.device) if name in drift else v for name, v in state.items()}


def between(start: State, end: State, alpha: float) -> dict[str, Tensor]:
    """(1 − α) θ₀ + α θ₁; exactly θ₀ or θ₁ at the ends, counts of θ₁ elsewhere."""
    if alpha in (0, 1):
        return dict(end if alpha else start)
    return {
        name: torch.lerp(start[name], value, alpha) if value.is_floating_point() else value
        for name, value in end.items()
    }
