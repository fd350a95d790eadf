"""Models and images so small that whole trainings take milliseconds, for the tests beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kt_cli.data.views import Views
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.distil import distil
from kt_cli.distillation.target_cache import TargetCache
from kt_cli.distillation.targets import Opened, Source, Targets, TeacherQuery
from kt_cli.distillation.train import Curve
from kt_cli.settings import TransferSpec

CPU = torch.device("cpu")
N, CLASSES, WIDTH = 48, 3, 8
CONFIG: dict[str, Any] = {"input_size": (3, 4, 4), "mean": (0.5,) * 3, "std": (0.25,) * 3}
# Three epochs of three updates, each of two micro-batches.
SPEC = TransferSpec(
    method="kl",
    epochs=3,
    lr=2.0,
    batch_size=16,
    micro_batch=8,
    augment="none",
    mcl_every=2,
)


class Tiny(nn.Module):
    """A body, and a classifier as timm's models have it."""

    def __init__(self, seed: int, norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Flatten(),
                nn.Linear(48, WIDTH),
                nn.BatchNorm1d(WIDTH) if norm else nn.Identity(),
                nn.Tanh(),
                nn.Dropout(dropout),
            )
            self.head = nn.Linear(WIDTH, CLASSES)
            with torch.no_grad():
                self.head.weight.mul_(4)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


def make_views(augment: str = "none", n: int = N) -> Views:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, 3, 4, 4), dtype=np.uint8)
    return Views(pixels, rng.integers(0, CLASSES, n), augment, 0, CPU, "x")


def prepare(images: Tensor) -> Tensor:
    return (images - 0.5) / 0.25


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    """Bit for bit."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def assert_near(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_allclose(value, right[name], atol=1e-5, rtol=1e-4, err_msg=name)


def opened(module: nn.Module) -> Callable[[], Opened]:
    return lambda: (module, CONFIG)


def never() -> Opened:
    raise AssertionError("a model was loaded that nobody needs")


def targets_of(
    spec: TransferSpec,
    views: Views,
    frozen: Callable[[], Opened],
    teachers: Sequence[Callable[[], Opened]],
    cache: TargetCache | None = None,
) -> Targets:
    """Targets from models that are opened when they are needed."""
    query = TeacherQuery.by(spec.with_defaults, views)
    first, *others = (
        Source(query, load, f"model {i}", cache) for i, load in enumerate([frozen, *teachers])
    )
    return Targets(spec.with_defaults, first, others)


def train(
    spec: TransferSpec,
    student: nn.Module,
    teachers: Sequence[nn.Module],
    frozen: nn.Module | None = None,
    views: Views | None = None,
    cache: TargetCache | None = None,
    checkpoint: Checkpoint | None = None,
) -> Curve:
    """Distil into `student`. frozen: Tiny(1) where it is not given."""
    views = make_views(spec.augment) if views is None else views
    frozen = Tiny(1) if frozen is None else frozen
    targets = targets_of(spec, views, opened(frozen), [opened(t) for t in teachers], cache)
    return distil(student, CONFIG, views, targets, spec, teacher_width=WIDTH, checkpoint=checkpoint)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


# What may have happened to a file.
DAMAGES: list[Callable[[bytes], bytes]] = [
    half, lambda content: content[:-1], lambda content: content[:5], lambda content: b"",
    lambda content: b"x" * 200,
]  # fmt: skip
