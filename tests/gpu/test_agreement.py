"""The device says what the CPU says, alone or with others, before and after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpu.toys import (
    AMPS,
    CPU,
    Small,
    assert_near,
    distance,
    only_on_cuda,
    precise,
    spec_of,
    train,
    weights,
)
from gpu.zoo import ARCHS, images, model, transfer
from kt_cli.knowledge.predict import REFRESH, How, predict, predict_all
from kt_cli.knowledge.predictions import Predictions, logits_of
from kt_cli.settings import EvalSpec

pytestmark = pytest.mark.gpu


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether convolutions and products in float32 may round their factors to TF32."""
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = allowed  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value  # type: ignore[attr-defined]


def logits(said: Predictions) -> np.ndarray[Any, Any]:
    return np.concatenate(list(logits_of(said, 1000))).astype(np.float64)


# How far apart logits may be, as a share of the largest; they are kept in half precision.
BOUNDS = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 5e-2, "float16": 1e-2}


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("precision", BOUNDS)
def test_predictions_are_those_of_the_cpu_in_float32(
    precision: str, arch: str, device: torch.device, tmp_path: Path, record_property: Any
) -> None:
    """On a machine without a GPU: in other batches and in half precision."""
    if precision == "tf32" and device.type == "cpu":
        pytest.skip("TF32 is a precision of CUDA devices")
    some, named = images(60), model(tmp_path, arch)
    wanted = predict(named, some, How(EvalSpec(), CPU, True, REFRESH, batch_size=7, workers=0))
    reference = logits(wanted)
    amp = precision if precision.endswith("16") else ""
    with tf32(precision == "tf32"):
        found = predict(named, some, How(EvalSpec(amp=amp), device, True, REFRESH, workers=0))
    apart = np.abs(logits(found) - reference).max() / np.abs(reference).max()
    record_property("apart", f"{apart:.2g} of the largest logit")
    assert apart <= BOUNDS[precision]
    top = np.sort(reference, axis=1)
    sure = top[:, -1] - top[:, -2] > 2 * BOUNDS[precision] * np.abs(reference).max()
    assert sure.any() or precision == "bfloat16"
    np.testing.assert_array_equal(found.pred[sure], wanted.pred[sure])


@pytest.mark.parametrize("amp", ["", "float16"], ids=["float32", "float16"])
def test_a_model_says_the_same_alone_and_with_others(
    amp: str, device: torch.device, tmp_path: Path
) -> None:
    some, models = images(60), [model(tmp_path, arch) for arch in ARCHS]
    how = How(EvalSpec(amp=amp), device, False, REFRESH, workers=0)
    alone = [predict(one, some, how) for one in models]
    together = predict_all(models, some, how)
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, Predictions)
        for name in ("pred", "confidence", "label_prob", "top5"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


@only_on_cuda("a transfer is compared on two kinds of device; here is one")
@pytest.mark.parametrize("method", ["kl", "kl-dp", "xekl-mcl", "cd"])
def test_a_transfer_moves_the_student_as_on_the_cpu(
    method: str, device: torch.device, record_property: Any
) -> None:
    students, start = [], weights(Small(1))
    with tf32(False):
        for where in (CPU, device):
            student = Small(1)
            student.body[-1] = torch.nn.Identity()  # each device has its own random numbers
            student.to(where)
            train(where, spec_of(method=method, augment="paper", lr=0.2, mcl_tau=0.5), student)
            students.append(weights(student))
    moved = distance(students[0], start)
    record_property("apart", f"{distance(*students) / moved:.2g} of the way")
    assert moved > 1e-4
    assert_near(students[1], students[0], 0.02 * moved)


@pytest.mark.parametrize("amp", [precise(amp) for amp in AMPS])
@pytest.mark.parametrize("arch", ARCHS)
def test_before_and_after_are_the_same_where_nothing_moves(
    arch: str, amp: str, device: torch.device, tmp_path: Path
) -> None:
    """Whatever layout its weights are left in by a training in half precision."""
    spec = spec_of(method="self", lr=1e-12, epochs=1, bn="eval", amp=amp, eval_amp=amp)
    row = transfer(tmp_path, replace(spec, batch_size=32, micro_batch=32), arch, arch)
    assert (row["delta"], row["gain"], row["loss"]) == (0, 0, 0)
