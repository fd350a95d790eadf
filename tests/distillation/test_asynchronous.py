"""The training step asks the device nothing: the host goes on while a GPU is at work.

Tensors without data (`meta`) stand for those of a GPU: what would have to be read from there fails,
as with torch.cuda.set_sync_debug_mode("error"); what is sent there must not be waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kt_cli.data.augmentations import AUGMENTS
from kt_cli.data.views import Views
from kt_cli.distillation import distil, methods, train
from kt_cli.distillation.contrast import Contrast
from kt_cli.distillation.target_cache import Memory, TeacherOutputs
from tests.distillation.toys import CLASSES, CONFIG, SPEC, WIDTH, N, Tiny, opened, targets_of

DEVICE = torch.device("meta")


class Waits(Exception):
    """The host would wait for the device."""


class Asynchronous(TorchDispatchMode):
    """Refuses what is sent to the device otherwise than by an asynchronous copy."""

    paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, str(func)
        if self.paused:
            return func(*args, **kwargs)
        tensors = [v for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
        kinds = {t.device.type for t in tensors if t.ndim or t.device == DEVICE}
        if name == "aten._to_copy.default" and kwargs.get("device") == DEVICE:
            kinds.add(DEVICE.type)
        asynchronous = kwargs.get("non_blocking") or (name == "aten.copy_.default" and args[2:])
        if len(kinds) > 1 and not asynchronous:
            raise Waits(name)
        return func(*args, **kwargs)


@contextmanager
def asynchronous(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asynchronous]:
    mode, plain = Asynchronous(), torch.tensor

    def tensor(*arguments: Any, **settings: Any) -> Any:
        if not mode.paused:
            raise Waits("torch.tensor")
        return plain(*arguments, **settings)

    with monkeypatch.context() as patch, mode:
        patch.setattr(torch, "tensor", tensor)
        yield mode


ASKING: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "item": lambda here, there: there.sum().item(),
    "float": lambda here, there: float(there[0]),
    "if": lambda here, there: bool((there > 0).any()),
    "nonzero": lambda here, there: there.nonzero(),
    "mask": lambda here, there: there[there > 0],
    "cpu": lambda here, there: there.cpu(),
    "tolist": lambda here, there: there.tolist(),
    "equal": lambda here, there: torch.equal(there, there),
    "unique": lambda here, there: there.unique(),
    "to": lambda here, there: here.to(DEVICE),
    "copy": lambda here, there: there.copy_(here),
    "index": lambda here, there: there[here],
    "index_put": lambda here, there: there.index_fill_(0, here, 1.0),
    "tensor": lambda here, there: torch.tensor([1.0], device=DEVICE),
}


@pytest.mark.parametrize("name", ASKING)
def test_what_waits_for_a_device_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = torch.arange(3), torch.ones(3, device=DEVICE)
    with (
        pytest.raises((Waits, NotImplementedError, RuntimeError)),
        asynchronous(monkeypatch),
    ):
        ASKING[name](here, there)


class OnDisk:
    """Answers on the CPU, as those that are mapped from a file."""

    def stored(self, answers: TeacherOutputs) -> TeacherOutputs:
        return answers

    def get(self, key: str, compute: Callable[[], TeacherOutputs]) -> TeacherOutputs:
        found = compute().tensors()
        return TeacherOutputs.of({k: torch.zeros(v.shape, dtype=v.dtype) for k, v in found.items()})


def assert_asynchronous(
    monkeypatch: pytest.MonkeyPatch, method: str, cache: Any = None, **settings: Any
) -> None:
    """A whole training, but for the looks at the device that it takes at the ends of an epoch."""
    spec = replace(SPEC, method=method, epochs=1, micro_batch=16, **settings)
    updates = []

    def end(state: Any) -> None:
        state.epoch, state.update = state.epoch + 1, 0

    def fit(*arguments: Any) -> Any:
        *others, loop = arguments

        def begin_epoch(epoch: int) -> None:
            mode.paused = True
            loop.begin_epoch(epoch)
            mode.paused = False

        with asynchronous(monkeypatch) as mode:
            return train.fit(*others, replace(loop, begin_epoch=begin_epoch))

    def contrast(*_: Any) -> Contrast:
        return Contrast(WIDTH, WIDTH, torch.arange(N) % CLASSES, 0, negatives=16).to(DEVICE)

    monkeypatch.setattr(train._State, "end", end)
    monkeypatch.setattr(train._State, "curve", lambda state: train.Curve((0.0,), ((0.0,),), 0.0))
    monkeypatch.setattr(train._State, "add", lambda *_: updates.append(1))
    monkeypatch.setattr(distil, "fit", fit)
    monkeypatch.setattr(distil, "_contrast", contrast)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # none for `meta`
    pixels = np.zeros((N, 3, 4, 4), np.uint8)
    views = Views(pixels, np.arange(N) % CLASSES, spec.augment, 0, DEVICE)
    student, frozen, teacher = (Tiny(i, norm=True).to(DEVICE) for i in range(3))
    targets = targets_of(spec, views, opened(frozen), [opened(teacher)], cache)
    distil.distil(student, CONFIG, views, targets, spec, teacher_width=WIDTH)
    assert len(updates) == 3


@pytest.mark.parametrize("method", methods.METHODS)
@pytest.mark.parametrize("cache", [None, Memory, OnDisk])
def test_a_step_of_any_method_waits_for_nothing(
    method: str, cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_asynchronous(monkeypatch, method, cache and cache(), augment="paper")


@pytest.mark.parametrize("augment", AUGMENTS)
def test_nor_do_views(augment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_asynchronous(monkeypatch, "kl", augment=augment)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("kl", {"distil_on": "positive"}), ("kl", {"distil_on": "not-negative"}),
     ("kl", {"kd_topk": 2}), ("kl-dp", {"target_topk": 2}), ("xekl", {"reference_compat": True}),
     ("xekl-mcl", {"reference_compat": True, "kd_topk": 2}),
     ("kl-mcl", {"reference_compat": True, "kd_topk": 2})],
)  # fmt: skip
def test_nor_do_settings(
    method: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_asynchronous(monkeypatch, method, OnDisk(), **settings)
