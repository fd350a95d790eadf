"""A training step of kt with its targets ready, against the bare step of the student.

    python -m benchmarks.train [--images 128] [--repeats 5]

Three pairs of untrained timm models, with kl-dp. Images are made up; their canonical crops lie in a
mapped file as in any run, and are scaled by 7/8 as the default 256 pixels are for models of 224.
Times are of a whole epoch, divided by its updates. The works take turns, so that a busy spell of
the machine meets all of them; shown are medians, also of the ratios of each turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import interleaved, medians, record, show
from benchmarks.photos import photo
from kt_cli.data.canonical import canonical
from kt_cli.data.images import ImageSet
from kt_cli.data.views import Views, preprocess
from kt_cli.device import pick_device, place
from kt_cli.distillation.distil import distil
from kt_cli.distillation.order import order_of
from kt_cli.distillation.target_cache import Memory, TargetCache
from kt_cli.distillation.targets import Opened, Source, Targets, TeacherQuery
from kt_cli.distillation.train import precision
from kt_cli.settings import TransferSpec
from kt_cli.zoo.load import build

CLASSES, SIZE, SIDE = 1_000, 112, 128
SPEC = TransferSpec(epochs=1, batch_size=64, micro_batch=32, augment="none", side=SIDE)
LIMIT = 1.10
# The sweep that answers are shared in: a run for each student, teacher and method.
STUDENTS, TEACHERS, METHODS = 4, 4, ("kl", "kl-dp")
RUNS = STUDENTS * TEACHERS * len(METHODS)
# Micro-batches of each update: prepared inputs (b, 3, H, W) and target logits (b, C).
Batches = Sequence[Sequence[tuple[Tensor, Tensor]]]
Work = Callable[[], Any]


@dataclass(frozen=True)
class Pair:
    """Timm architectures. kind: what the pair stands for."""

    kind: str
    student: str
    teacher: str


PAIRS = (
    Pair("small CNN", "mobilenetv3_small_100", "mobilenetv3_large_100"),
    Pair("transformer", "deit_tiny_patch16_224", "resnet10t"),
    Pair("costly teacher", "convnext_atto", "resnet34"),
)


# --- the bare minimum ----------------------------------------------------------------------------


def ready(config: Mapping[str, Any], classes: int, views: Views, spec: TransferSpec) -> Batches:
    """One epoch's inputs of a student, in memory, with made-up target logits."""
    order, prepare = order_of(spec, len(views)), preprocess(config, views.device)

    def one(indices: Tensor) -> tuple[Tensor, Tensor]:
        target = torch.randn(len(indices), classes, device=views.device)
        return prepare(views.batch(0, indices)), target

    return [[one(part) for part in order.micro_batches(batch)] for batch in order.batches(0)]


def bare_steps(module: nn.Module, spec: TransferSpec, batches: Batches) -> Work:
    """`bare_epoch`, until the device has done it."""
    return settled(bare_epoch(module, spec, batches))


def bare_epoch(module: nn.Module, spec: TransferSpec, batches: Batches) -> Work:
    """Forward, backward and update of one epoch on what lies ready: nothing else."""
    assert spec.lr is None
    device = batches[0][0][0].device
    place(module, device, spec.amp)
    optimizer = torch.optim.SGD(
        module.parameters(), lr=1e-4, momentum=spec.momentum, weight_decay=spec.weight_decay,
        fused=device.type == "cuda",
    )  # fmt: skip
    scaler = torch.amp.GradScaler(device.type, enabled=spec.amp == "float16")

    def epoch() -> None:
        module.train()
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            for images, target in batch:
                with precision(spec.amp, device):
                    logits = module(images)
                log_q, log_p = target.log_softmax(dim=1), logits.float().log_softmax(dim=1)
                loss = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
                scaler.scale(loss / len(batch)).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()

    return epoch


def bare_forward(module: nn.Module, batches: Sequence[Tensor]) -> Work:
    """Forward passes on prepared inputs."""

    @torch.no_grad()
    def forward() -> None:
        module.eval()
        for images in batches:
            module(images)

    return settled(forward)


def settled(work: Work) -> Work:
    """`work`, until the device has done it."""

    def done() -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return done


# --- what kt does --------------------------------------------------------------------------------


def works(pair: Pair, views: Views, paper: Views) -> dict[str, Work]:
    """What is timed. paper: views of the same images with the default augmentation."""
    device = views.device
    student, config = build(pair.student, CLASSES, SIZE)
    student = student.to(device)
    opened = {"frozen": (deepcopy(student), config), "teacher": build(pair.teacher, CLASSES, SIZE)}

    def targets(keeping: TargetCache | None, views: Views = views) -> Targets:
        return targets_of(SPEC, views, opened, keeping)

    memory, prepare = Memory(), preprocess(config, device)
    targets(memory).begin(0)
    targets(memory, paper).begin(0)
    order = order_of(SPEC, len(views))
    parts = [part for batch in order.batches(0) for part in order.micro_batches(batch)]

    def see(views: Views) -> None:
        for images in views.stream(0, parts):
            prepare(images)

    def train(module: nn.Module, keeping: TargetCache | None, views: Views = views) -> None:
        distil(module, config, views, targets(keeping, views), SPEC)

    return {
        "bare": bare_steps(deepcopy(student), SPEC, ready(config, CLASSES, views, SPEC)),
        "kt": settled(partial(train, deepcopy(student), memory)),
        "distorted": settled(partial(train, deepcopy(student), memory, paper)),
        "views": settled(partial(see, views)),
        "paper": settled(partial(see, paper)),
        "online": settled(partial(train, student, None)),
        "targets": settled(lambda: targets(Memory()).begin(0)),
    }


def targets_of(
    spec: TransferSpec, views: Views, opened: Mapping[str, Opened], keeping: TargetCache | None
) -> Targets:
    """opened: the frozen student and its teacher, in this order."""
    query = TeacherQuery.by(spec, views)
    frozen, teacher = (Source(query, partial(opened.__getitem__, key), key, keeping)
                       for key in opened)  # fmt: skip
    return Targets(spec, frozen, [teacher])


# --- made-up images and tables -------------------------------------------------------------------


def made_up(count: int) -> ImageSet:
    """Images like photographs."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, count)
    images = [photo(label / CLASSES, rng, (SIDE, 2 * SIDE)) for label in labels]
    names = tuple(map(str, range(CLASSES)))
    ids = [str(i) for i in range(count)]
    return ImageSet("made up", names, ids, labels, images.__getitem__, f"made-up-{count}")


class Unkept(Views):
    """Views of a set that is too large to keep them: made at each step."""

    def keep(self, epoch: int) -> None:
        """Keep nothing."""


def views_of(images: ImageSet, spec: TransferSpec, kind: type[Views] = Views) -> Views:
    pixels = canonical(images, spec.crop, spec.side)
    return kind(pixels, images.labels, spec.augment, spec.seed, pick_device(), images.fingerprint)


def ratio(found: Mapping[str, Sequence[float]], above: str, below: str) -> float:
    """Median over the turns: a work against another one of the same turn."""
    return statistics.median(a / b for a, b in zip(found[above], found[below], strict=True))


def row(pair: Pair, found: Mapping[str, Sequence[float]], updates: int) -> list[str]:
    """found: seconds of an epoch of each work, one for each turn."""
    ms = {name: 1000 * value / updates for name, value in medians(found).items()}
    # As many students as teachers, so both models of the pair have equal shares in the sweep.
    share = TEACHERS / RUNS
    return [
        pair.kind, f"{pair.student} ← {pair.teacher}", f"{ms['bare']:.0f}", f"{ms['kt']:.0f}",
        f"{ratio(found, 'kt', 'bare'):.3f}", f"{ms['views']:.0f}",
        f"{ratio(found, 'distorted', 'bare'):.3f}", f"{ms['paper']:.0f}",
        f"{ms['online']:.0f}", f"{ratio(found, 'online', 'bare'):.2f}", f"{ms['targets']:.0f}",
        f"{share * ms['targets']:.0f}",
        f"{ratio(found, 'kt', 'bare') + share * ratio(found, 'targets', 'bare'):.2f}",
    ]  # fmt: skip


HEAD = ["", "student ← teacher", "bare", "kt", "÷ bare", "its views", "paper's ÷ bare",
        "paper's views", "online", "÷ bare", "targets", "share", "(kt + share) ÷ bare"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["KT_CACHE"] = temporary
        images = made_up(chosen.images)
        views = [views_of(images, spec, Unkept) for spec in (SPEC, replace(SPEC, augment="paper"))]
        todo = {f"{pair.kind}/{name}": work for pair in PAIRS
                for name, work in works(pair, *views).items()}  # fmt: skip
        interleaved(todo, 1)  # what only the first time costs
        found = interleaved(todo, chosen.repeats)
    updates = order_of(SPEC, chosen.images).updates
    for pair in PAIRS:
        for name, work in (("none", "kt"), ("paper", "distorted")):
            record(f"train: {pair.student}, {name}, ÷ bare", ratio(_of(pair, found), work, "bare"),
                   LIMIT)  # fmt: skip
    print(f"milliseconds of an update of {SPEC.batch_size} images in micro-batches of "
          f"{SPEC.micro_batch}; {SIDE} → {SIZE} pixels, {torch.get_num_threads()} threads, "
          f"{chosen.images} images, {chosen.repeats} repeats")  # fmt: skip
    show(HEAD, [row(pair, _of(pair, found), updates) for pair in PAIRS])
    print(f"kt with its targets ready: limit {LIMIT:.2f} times the bare step, also by the paper's "
          "augmentation where views are made at each step; share: of a run in a sweep of "
          f"{STUDENTS} students × {TEACHERS} teachers × {len(METHODS)} methods")  # fmt: skip


def _of(pair: Pair, found: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    start = f"{pair.kind}/"
    return {name.removeprefix(start): v for name, v in found.items() if name.startswith(start)}


if __name__ == "__main__":
    main()
