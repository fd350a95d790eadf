"""Several teachers of one student, against single transfers by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kt_cli.distillation import batch_norm
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.target_cache import Memory
from kt_cli.distillation.teachers import Asked, TransferJob, teach
from kt_cli.distillation.train import Curve
from kt_cli.settings import TransferSpec
from kt_cli.settings.transfer import WAYS
from tests.distillation.toys import (
    CONFIG,
    SPEC,
    WIDTH,
    Tiny,
    assert_near,
    assert_same,
    make_views,
    never,
    opened,
    prepare,
    state,
    train,
)

DP = replace(SPEC, method="kl-dp", augment="flip")
SEEDS = (0, 2, 3)


def teachers(seeds: Sequence[int] = SEEDS) -> list[nn.Module]:
    return [Tiny(seed, norm=True) for seed in seeds]


def begun() -> Tiny:
    return Tiny(1, norm=True, dropout=0.2)


def asked(module: nn.Module, key: str) -> Asked:
    return Asked(key, opened(module), WIDTH)


def taught(
    spec: TransferSpec, way: str, others: Sequence[nn.Module], **more: Any
) -> tuple[nn.Module, list[Curve]]:
    """The student, and the curves, of a whole job."""
    module = begun()
    job = TransferJob(
        module, CONFIG, make_views(spec.augment), asked(begun(), "student"),
        [asked(other, f"teacher {i}") for i, other in enumerate(others)],
        replace(spec, together=way), **more,
    )  # fmt: skip
    return module, teach(job)


def single(
    spec: TransferSpec, student: nn.Module, teacher: nn.Module, frozen: nn.Module
) -> tuple[dict[str, Tensor], Curve]:
    return state(student), train(spec, student, [teacher], frozen)


def assert_curves(found: Sequence[Curve], wanted: Sequence[Curve]) -> None:
    untimed = [[replace(c, waiting=0, earlier=0) for c in curves] for curves in (found, wanted)]
    assert untimed[0] == untimed[1]


def differ(left: nn.Module, right: nn.Module) -> bool:
    return not torch.equal(left.state_dict()["head.weight"], right.state_dict()["head.weight"])


# --- compiled ------------------------------------------------------------------------------------


class Wide(Tiny):
    """A student of its own shape."""

    def __init__(self, width: int) -> None:
        super().__init__(1)
        torch.manual_seed(width)
        self.body[1], self.head = nn.Linear(48, width), nn.Linear(width, 3)


def test_ten_students_are_compiled_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch gives up on a function that it compiled eight times, and says so in its log alone."""
    compiled, plain = list[int](), torch.compile

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(width)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(plain, backend=backend))
    for width in range(4, 14):
        student, other = Wide(width), Wide(width)
        for module, compile_ in ((student, True), (other, False)):
            spec = replace(SPEC, method="kl-dp", compile=compile_, epochs=1)
            teach(TransferJob(module, CONFIG, make_views(), asked(Wide(width), "student"),
                         [asked(Tiny(0), "teacher")], spec))  # fmt: skip
        assert_near(student.state_dict(), other.state_dict())
    assert set(compiled) == set(range(4, 14))


# --- one -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["single", "parallel", "sequential"])
@pytest.mark.parametrize("method", ["kl-dp", "xekl-mcl", "crd"])
def test_one_teacher_is_one_training_whatever_the_way(method: str, way: str) -> None:
    spec = replace(DP, method=method, lr=0.5)
    module, curves = taught(spec, way, teachers()[:1])
    wanted = begun()
    curve = train(spec, wanted, teachers()[:1], begun())
    assert_same(module.state_dict(), wanted.state_dict())
    assert_curves(curves, [curve])


def test_all_ways_are_known() -> None:
    assert set(WAYS) == {"single", "parallel", "sequential", "soup"}


# --- in parallel ---------------------------------------------------------------------------------


def test_parallel_teachers_are_one_training() -> None:
    module, (curve,) = taught(DP, "parallel", teachers(), after_step=never_called)
    wanted = begun()
    assert_curves([curve], [train(DP, wanted, teachers(), begun())])
    assert_same(module.state_dict(), wanted.state_dict())
    assert len(curve.shares) == 3 and all(sum(share) > 0 for share in curve.shares)


def never_called(module: nn.Module) -> None:
    raise AssertionError("nobody takes turns")


# --- in sequence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["kl", "kl-dp", "kl-mcl", "self"])
def test_sequential_teachers_are_trainings_one_after_another(method: str) -> None:
    """The frozen student of each is what the teacher before made of the student."""
    spec = replace(DP, method=method, mcl_tau=0.5)
    steps: list[dict[str, Tensor]] = []
    module, curves = taught(
        spec, "sequential", teachers(), after_step=lambda m: steps.append(state(m))
    )
    student, wanted, states = begun(), [], []
    for teacher in teachers():
        wanted.append(train(spec, student, [teacher], deepcopy(student)))
        states.append(state(student))
    assert_curves(curves, wanted)
    assert len(steps) == 3
    for found, by_hand in zip(steps, states, strict=True):
        assert_same(found, by_hand)
    assert_same(module.state_dict(), states[-1])


def test_without_the_reset_of_the_frozen_student_it_would_be_another() -> None:
    module, _ = taught(DP, "sequential", teachers()[:2])
    other = begun()
    for teacher in teachers()[:2]:
        train(DP, other, [teacher], begun())
    assert differ(module, other)


def test_the_order_of_sequential_teachers_matters() -> None:
    one, _ = taught(DP, "sequential", teachers())
    other, _ = taught(DP, "sequential", teachers(SEEDS[::-1]))
    assert differ(one, other)


def test_kept_answers_of_the_student_are_not_those_of_a_student_in_between() -> None:
    """It has no name that tells it from the student at the start."""
    memory = Memory()
    first, curves = taught(DP, "sequential", teachers(), cache=memory)
    again, others = taught(DP, "sequential", teachers(), cache=memory)
    assert_same(first.state_dict(), again.state_dict())
    assert_curves(curves, others)
    fresh, _ = taught(DP, "sequential", teachers())
    assert_near(first.state_dict(), fresh.state_dict())


# --- a soup --------------------------------------------------------------------------------------


def parts_by_hand(spec: TransferSpec) -> tuple[list[dict[str, Tensor]], list[Curve]]:
    parts, curves = [], []
    for teacher in teachers():
        student = begun()
        curves.append(train(spec, student, [teacher], begun()))
        parts.append(state(student))
    return parts, curves


@pytest.mark.parametrize("method", ["kl-dp", "kl-mcl"])
def test_a_soup_is_the_mean_of_single_transfers(method: str) -> None:
    spec = replace(DP, method=method, mcl_tau=0.5)
    steps: list[dict[str, Tensor]] = []
    module, curves = taught(spec, "soup", teachers(), after_step=lambda m: steps.append(state(m)))
    parts, wanted = parts_by_hand(spec)
    assert_curves(curves, wanted)
    for found, part in zip(steps, parts, strict=True):
        assert_same(found, part)
    for name, value in module.state_dict().items():
        values = torch.stack([part[name] for part in parts])
        assert torch.equal(value, values.mean(0) if value.is_floating_point() else values[0]), name
    assert not module.training


def test_the_statistics_of_a_soup_can_be_its_own() -> None:
    """Each part's are estimated anew, and those of the soup again: they are no mean of theirs."""
    spec = replace(DP, bn="recompute")
    module, _ = taught(spec, "soup", teachers())
    parts, _ = parts_by_hand(spec)
    wanted = begun()
    wanted.load_state_dict(
        {n: torch.stack([p[n].double() for p in parts]).mean(0) for n in parts[0]}
    )
    batch_norm.recompute(wanted, make_views(), prepare)
    names = batch_norm.statistics(module)
    for name in names:
        torch.testing.assert_close(module.state_dict()[name], wanted.state_dict()[name])
    mean = torch.stack([part["body.2.running_var"] for part in parts]).mean(0)
    assert not torch.allclose(module.state_dict()["body.2.running_var"], mean, rtol=1e-3)


# --- around them ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "turns"), [("parallel", 1), ("sequential", 3), ("soup", 3)])
def test_progress_is_that_of_all_turns(way: str, turns: int) -> None:
    told: list[tuple[int, int]] = []
    taught(DP, way, teachers(), on_epoch=lambda done, total: told.append((done, total)))
    assert told == [(i + 1, 3 * turns) for i in range(3 * turns)]


@pytest.mark.parametrize("way", ["sequential", "soup", "parallel"])
def test_an_interrupted_course_goes_on_to_the_same_student(way: str, tmp_path: Path) -> None:
    wanted, curves = taught(DP, way, teachers())
    total = len(curves) * SPEC.epochs
    for stop in range(1, total + 1, 2):  # within turns, and after the first and the last
        folder = tmp_path / str(stop)
        done: list[int] = []
        with pytest.raises(InterruptedError):
            taught(DP, way, teachers(), checkpoint=kept_in(folder), on_epoch=stopping(stop))
        module, found = taught(
            DP, way, teachers(), checkpoint=kept_in(folder),
            on_epoch=lambda done_now, total, done=done: done.append(done_now),
        )  # fmt: skip
        assert done == list(range(stop + 1, total + 1))  # nothing is done again
        assert_same(module.state_dict(), wanted.state_dict())
        assert_curves(found, curves)
        assert {path.name for path in folder.iterdir()} == {str(i) for i in range(len(curves))}


def kept_in(folder: Path) -> Callable[[str], Checkpoint]:
    return lambda name: Checkpoint(folder / name, seconds=0)


def stopping(stop: int) -> Callable[[int, int], None]:
    def on_epoch(done: int, total: int) -> None:
        if done == stop:
            raise InterruptedError

    return on_epoch


@pytest.mark.parametrize("way", ["single", "sequential", "soup"])
def test_the_student_before_transfer_is_not_opened_for_nothing(way: str) -> None:
    spec = replace(SPEC, method="kl", together=way)
    others = teachers()[: 1 if way == "single" else 2]
    job = TransferJob(
        begun(), CONFIG, make_views(), Asked("student", never),
        [asked(other, f"teacher {i}") for i, other in enumerate(others)], spec,
    )  # fmt: skip
    assert len(teach(job)) == len(others)
