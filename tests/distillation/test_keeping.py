"""What keeps a student from losing what it knew: mean weights, rates, drift, a margin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kt_cli import files
from kt_cli.distillation import batch_norm, methods
from kt_cli.distillation.order import order_of
from kt_cli.distillation.partition import SampleStats, behind, by_confidence, by_label, flips
from kt_cli.distillation.teachers import Asked, TransferJob, teach
from kt_cli.errors import UsageError
from kt_cli.settings import TransferSpec
from tests.distillation.by_hand import by_hand
from tests.distillation.toys import (
    CONFIG,
    SPEC,
    N,
    Tiny,
    assert_near,
    assert_same,
    make_views,
    opened,
    prepare,
    state,
    train,
)

DP = replace(SPEC, method="kl-dp", lr=0.5)
Built = Callable[[], Tiny]


def plain() -> Tiny:
    return Tiny(1)


def normalising() -> Tiny:
    return Tiny(1, norm=True)


def taught(spec: TransferSpec, student: Built, teachers: tuple[int, ...] = (0,)) -> Tiny:
    module = student()
    job = TransferJob(
        module, CONFIG, make_views(spec.augment), Asked("student", opened(student())),
        [Asked(str(seed), opened(Tiny(seed))) for seed in teachers], spec.with_defaults,
    )  # fmt: skip
    teach(job)
    return module


def drift_files() -> list[Path]:
    return sorted(files.cache_folder("drift").glob("*.safetensors"))


def with_statistics_anew(module: nn.Module) -> dict[str, Tensor]:
    batch_norm.recompute(module, make_views(), prepare)
    return state(module)


@pytest.mark.parametrize("epochs", [2, 3])  # of three updates each: an even number, an odd one
def test_the_student_is_the_mean_over_the_last_half_of_the_updates(epochs: int) -> None:
    spec, other, after = replace(SPEC, epochs=epochs, micro_batch=16), Tiny(1), list[Any]()
    by_hand(spec, other, [Tiny(1), Tiny(0)], after_update=lambda _: after.append(state(other)))
    last = after[len(after) // 2 :]
    assert len(last) == math.ceil(3 * epochs / 2)
    student = Tiny(1)
    train(replace(spec, average="last-half"), student, [Tiny(0)])
    wanted = {name: torch.stack([s[name] for s in last]).mean(0) for name in after[0]}
    assert_near(state(student), wanted)
    assert not torch.allclose(student.head.weight, after[-1]["head.weight"], atol=1e-3)


@pytest.mark.parametrize("bn", ["train", "eval", "recompute"])
def test_mean_weights_get_statistics_of_their_own(bn: str) -> None:
    """Unless they are to stay as they are."""
    spec = replace(DP, bn=bn, average="last-half")
    after = taught(spec, normalising)
    running = {n: v for n, v in state(after).items() if n in batch_norm.statistics(after)}
    wanted = state(normalising()) if bn == "eval" else with_statistics_anew(after)
    assert running and all(torch.equal(value, wanted[name]) for name, value in running.items())


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_rate_decays(schedule: str) -> None:
    """As a loop by hand whose rate is set before each update."""
    factors = {
        "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
        "linear": lambda done: 1 - done,
    }
    module, spec = Tiny(1), replace(SPEC, micro_batch=16)
    rate = (spec.lr or 0) * spec.batch_size / 256
    views, order = make_views(), order_of(spec, N)
    optimizer = torch.optim.SGD(module.parameters(), rate, spec.momentum, weight_decay=1e-4)
    batches = [b for epoch in range(spec.epochs) for b in order.batches(epoch)]
    for done, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate * factors[schedule](done / len(batches))
        images = prepare(views.plain(batch))
        with torch.no_grad():
            target = Tiny(0).eval()(images).softmax(1)
        loss = (target * (target.log() - module(images).log_softmax(1))).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student = Tiny(1)
    train(replace(spec, schedule=schedule), student, [Tiny(0)])
    assert_near(state(student), state(module))


@pytest.mark.parametrize("student", [plain, normalising])
@pytest.mark.parametrize("average", ["none", "last-half"])
def test_the_drift_of_a_transfer_into_itself_is_taken_back(student: Built, average: str) -> None:
    spec = replace(DP, average=average, bn="eval")
    free, itself = taught(spec, student), taught(replace(spec, method="self"), student)
    kept = taught(replace(spec, subtract_drift=True), student)
    start = state(student())
    wanted = {
        name: value - (state(itself)[name] - start[name]) if value.is_floating_point() else value
        for name, value in state(free).items()
    }
    assert_near(state(kept), wanted)
    assert not torch.equal(kept.head.weight, free.head.weight)  # weight decay alone moves it


def test_the_drift_is_found_once_for_all_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(DP, subtract_drift=True)
    first = taught(spec, normalising)
    (kept,) = drift_files()
    with monkeypatch.context() as patched:
        patched.setattr("kt_cli.distillation.teachers.keep_tensors", None)  # of another training
        assert_same(state(taught(spec, normalising)), state(first))
        for other in ({"method": "kl"}, {"method": "kl-dp", "margin": 0.1}, {"method": "flip-st"}):
            taught(replace(spec, **other), normalising, (2,))
        taught(replace(spec, together="soup", method="kl"), normalising, (0, 2))
    assert drift_files() == [kept]
    for other in ({"seed": 1}, {"lr": 0.1}, {"average": "last-half"}):
        taught(replace(spec, **other), normalising)
    assert len(drift_files()) == 4


def test_a_damaged_drift_is_found_anew() -> None:
    spec = replace(DP, subtract_drift=True)
    first = taught(spec, normalising)
    (kept,) = drift_files()
    kept.write_bytes(kept.read_bytes()[:-3])
    assert_same(state(taught(spec, normalising)), state(first))


def test_a_teacher_teaches_where_it_is_ahead_by_the_margin() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (200,), generator=generator)
    said = [SampleStats.of(torch.randn(200, 3, generator=generator), labels) for _ in range(3)]
    for choose, score in ((by_label, "label_prob"), (by_confidence, "confidence")):
        for margin in (0.0, 0.1, 0.4):
            found = choose(behind(said, margin)).argmax(1).tolist()
            for i, source in enumerate(found):
                scores = [float(getattr(s, score)[i]) for s in said]
                scores[0] += margin
                assert source == scores.index(max(scores))
    assert torch.equal(flips(behind(said[:2], 0.3))[0], flips(said[:2])[0])
    assert methods.find("kl-dp").sources(replace(DP, margin=0.99), said)[0][:, 0].all()


@pytest.mark.parametrize(
    ("method", "settings"),
    [("kl", {"margin": 0.1}), ("flip-st", {"margin": 0.1}), ("kl-mcl", {"average": "last-half"}),
     ("kl-mcl", {"subtract_drift": True}), ("crd", {"subtract_drift": True}),
     ("self", {"subtract_drift": True}),
     ("kl-dp", {"subtract_drift": True, "together": "sequential"})],
)  # fmt: skip
def test_what_changes_nothing_is_refused(method: str, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"changes nothing|cannot be had"):
        methods.require_possible(TransferSpec(method, **settings), 1, True)
