"""Weights between weights, against recursions by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kt_cli.distillation import weight_averaging
from kt_cli.distillation.weight_averaging import EMA

COUNT = "1.num_batches_tracked"


def module(seed: int) -> nn.Module:
    """Weights, running statistics and a count, all of them random."""
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    move(made, seed)
    return made


@torch.no_grad()
def move(made: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for value in made.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.randn(value.shape, generator=generator))
        else:
            value.add_(1 + seed)


def arrays(state: weight_averaging.State) -> dict[str, np.ndarray]:
    return {name: value.double().numpy().copy() for name, value in state.items()}


def test_slow_weights_equal_a_recursion_by_hand() -> None:
    made, tau = module(0), 0.9
    slow = EMA(made, tau)
    by_hand = arrays(made.state_dict())
    for update in range(1, 9):
        move(made, update)
        slow.step(made)
        for name, value in arrays(made.state_dict()).items():
            mixed = tau * by_hand[name] + (1 - tau) * value
            by_hand[name] = value if name == COUNT else mixed
        for name, found in slow.state.items():
            np.testing.assert_allclose(found, by_hand[name], rtol=1e-5, atol=1e-6)
    assert slow.state[COUNT].dtype == torch.long


def test_slow_weights_start_as_the_module_and_leave_it_alone() -> None:
    made = module(0)
    start = weight_averaging.copied(made)
    slow = EMA(made, 0.5)
    move(made, 1)
    live = weight_averaging.copied(made)
    assert all(torch.equal(slow.state[name], value) for name, value in start.items())
    slow.step(made)
    assert not torch.equal(slow.state["0.weight"], start["0.weight"])
    assert all(torch.equal(made.state_dict()[name], value) for name, value in live.items())


def test_the_mean_of_states_takes_counts_from_the_first() -> None:
    states = [module(seed).state_dict() for seed in range(3)]
    found = weight_averaging.mean(states)
    parts = [arrays(state) for state in states]
    for name, value in found.items():
        wanted = parts[0][name] if name == COUNT else sum(part[name] for part in parts) / 3
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)
    assert found[COUNT].dtype == torch.long
    found[COUNT].add_(1)
    found["0.weight"].add_(1)
    assert all(np.array_equal(arrays(s)[n], p[n]) for s, p in zip(states, parts, strict=True)
               for n in p)  # fmt: skip


def test_the_mean_of_one_is_itself() -> None:
    state = module(0).state_dict()
    found = weight_averaging.mean([state])
    assert all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.parametrize("alpha", [0, 0.0, 1, 1.0])
def test_the_ends_of_the_line_are_exact(alpha: float) -> None:
    start, end = module(0).state_dict(), module(1).state_dict()
    found = weight_averaging.between(start, end, alpha)
    wanted = end if alpha else start
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_the_line_between_two() -> None:
    start, end = module(0).state_dict(), module(1).state_dict()
    a, b = arrays(start), arrays(end)
    found: dict[str, Tensor] = weight_averaging.between(start, end, 0.3)
    for name, value in found.items():
        wanted = b[name] if name == COUNT else 0.7 * a[name] + 0.3 * b[name]
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)
    module(2).load_state_dict(found)
    assert all(np.array_equal(arrays(start)[n], a[n]) for n in a)
    assert all(np.array_equal(arrays(end)[n], b[n]) for n in b)
