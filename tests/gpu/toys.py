"""Models and images for the tests beside it, on whatever device there is; what they measure."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kt_cli.data.views import Views
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.distil import distil
from kt_cli.distillation.target_cache import TargetCache
from kt_cli.distillation.targets import Opened, Source, Targets, TeacherQuery
from kt_cli.distillation.train import Curve
from kt_cli.settings import TransferSpec

N, CLASSES, SIDE, WIDTH = 48, 4, 16, 16
CONFIG: dict[str, Any] = {"input_size": (3, SIDE, SIDE), "mean": (0.5,) * 3, "std": (0.25,) * 3}
# Three epochs of three updates, each of two micro-batches.
SPEC = TransferSpec(
    method="kl", epochs=3, lr=4.0, batch_size=16, micro_batch=8, augment="none", side=SIDE,
    mcl_every=2,
)  # fmt: skip
AMPS = ("", "float16", "bfloat16")
CPU = torch.device("cpu")


def only_on_cuda(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not torch.cuda.is_available(), reason=reason)


def precise(amp: str) -> Any:
    """A parameter for what takes a CPU a minute in float16 and shows no more than bfloat16 does."""
    marks = only_on_cuda("float16 is slow on a CPU") if amp == "float16" else ()
    return pytest.param(amp, id=amp or "float32", marks=marks)


def spec_of(**changes: Any) -> TransferSpec:
    return replace(SPEC, **changes)


class Small(nn.Module):
    """Convolutions, batch normalisation and dropout, and a classifier as timm's models have it."""

    def __init__(self, seed: int, width: int = WIDTH, classes: int = CLASSES) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, stride=2, padding=1),
                nn.GELU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Dropout(0.1),
            )
            self.head = nn.Linear(width, classes)
            with torch.no_grad():
                self.head.weight.mul_(4)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


def views_on(device: torch.device, augment: str = "none", n: int = N) -> Views:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, 3, SIDE, SIDE), dtype=np.uint8)
    return Views(pixels, rng.integers(0, CLASSES, n), augment, 0, device, "toy")


def sources(spec: TransferSpec, views: Views, keeping: TargetCache | None = None) -> Targets:
    """The student before transfer, Small(1), and a teacher, Small(0)."""
    asking = TeacherQuery.by(spec.with_defaults, views)

    def load(seed: int) -> Callable[[], Opened]:
        return lambda: (Small(seed), CONFIG)

    frozen, teacher = (Source(asking, load(seed), f"small {seed}", keeping) for seed in (1, 0))
    return Targets(spec.with_defaults, frozen, [teacher])


def train(
    device: torch.device,
    spec: TransferSpec,
    student: nn.Module,
    keeping: TargetCache | None = None,
    checkpoint: Checkpoint | None = None,
) -> Curve:
    """Distil Small(0) into `student`, as any transfer does."""
    views = views_on(device, spec.augment)
    targets = sources(spec, views, keeping)
    return distil(student, CONFIG, views, targets, spec, teacher_width=WIDTH,
                  checkpoint=checkpoint)  # fmt: skip


def state(module: nn.Module) -> dict[str, Tensor]:
    """On the CPU, in memory of its own."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Its parameters alone, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.named_parameters()}


def distance(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """The largest difference of any value; not a number where one of them is none."""
    assert left.keys() == right.keys()
    apart = [(left[name].double() - right[name].double()).abs().max() for name in left]
    return float(torch.stack(apart).max())


def assert_near(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], bound: float, what: str = ""
) -> None:
    """Finite, and nowhere further apart than `bound`."""
    for name, value in found.items():
        assert torch.isfinite(value).all(), f"{name} is not finite"
    apart = distance(found, wanted)
    assert apart <= bound, f"{what} {apart:.3g} apart, more than {bound:.3g}"


# --- readbacks --------------------------------------------------------------------------------

READBACKS = (
    Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.__bool__, Tensor.__float__, Tensor.__int__,
)  # fmt: skip


class _NoReadback(TorchFunctionMode):
    """Refuses what would wait for a device, if there were one."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), named: Any = None
    ) -> Any:
        if function in READBACKS:
            raise RuntimeError(f"{function.__name__} reads a value back")
        return function(*arguments, **(named or {}))


class _SyncIsAnError(AbstractContextManager[None]):
    def __enter__(self) -> None:
        torch.cuda.set_sync_debug_mode("error")

    def __exit__(self, *exception: object) -> None:
        torch.cuda.set_sync_debug_mode("default")


def no_waiting(device: torch.device) -> AbstractContextManager[Any]:
    """What waits for the device is an error; on the CPU, what reads a value back is."""
    return _SyncIsAnError() if device.type == "cuda" else _NoReadback()


# --- memory -----------------------------------------------------------------------------------


def allocated(device: torch.device) -> int:
    """Bytes that tensors take on the device, or on the CPU those that Python knows of."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        return int(torch.cuda.memory_allocated())
    # What torch.compile leaves behind are tensors without memory.
    kinds = (Tensor, nn.Parameter)
    tensors = [found for found in gc.get_objects() if type(found) in kinds]
    storages = {s.data_ptr(): s.nbytes() for t in tensors for s in [t.untyped_storage()]}
    return sum(storages.values())


def leave(device: torch.device, size: int) -> None:
    """Allow this process `size` bytes of the device's memory beside what it holds already.

    A CPU has no such limit: models that are hungry there refuse by themselves.
    """
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + size) / total)


def spoil(device: torch.device, module: nn.Module) -> None:
    """Leave what is no number in freed memory, where buffers of the module's sizes will lie."""
    rubbish = [
        torch.full_like(p, float("nan"), device=device)
        for p in module.parameters()
        for _ in range(16)
    ]
    del rubbish
