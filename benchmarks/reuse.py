"""A sweep whose runs share what models say about the views, against its runs one by one.

    python -m benchmarks.reuse [--images 256] [--epochs 2] [--repeats 3]

Four students × four teachers × kl and kl-dp, small untrained timm models on scikit-learn's digits
at 32 pixels. One by one, each run asks its teacher, and for kl-dp the frozen student, at each step.
The ideal is the bare steps of all runs, and for each model that is asked its forward passes once:
once for all epochs where nothing random is done to the images, else once an epoch. Loading and
evaluation are in none of the times. The works of an augmentation take turns; shown are medians,
also of the ratios of each turn.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import product

import torch

from benchmarks.measure import interleaved, medians, record, show
from benchmarks.train import (
    METHODS,
    Work,
    bare_forward,
    bare_steps,
    ratio,
    ready,
    settled,
    views_of,
)
from kt_cli.data.sources import open_data
from kt_cli.data.subsets import stratified
from kt_cli.data.views import preprocess
from kt_cli.distillation.distil import distil
from kt_cli.distillation.target_cache import Memory
from kt_cli.distillation.targets import BATCH, Source, Targets, TeacherQuery
from kt_cli.settings import DataSpec, TransferSpec
from kt_cli.zoo.load import build

STUDENTS = ("test_resnet", "test_efficientnet", "test_convnext", "test_vit")
TEACHERS = ("test_mambaout", "test_byobnet", "test_nfnet", "test_vit2")
CLASSES, SIZE = 10, 32
AUGMENTS = ("none", "paper")
LIMIT = 0.90
SPEC = TransferSpec(batch_size=64, micro_batch=64, crop=1.0, side=SIZE)


class Sweep:
    """All runs with one augmentation, and what they are compared with."""

    def __init__(self, spec: TransferSpec, images: int) -> None:
        everything = open_data(DataSpec("digits"), training=True).training()
        some = everything.subset(stratified(everything.labels, images, spec.seed))
        self._spec, self._images, self._views = spec, some, views_of(some, spec)
        self._models = {arch: build(arch, CLASSES, SIZE) for arch in STUDENTS + TEACHERS}
        for module, _ in self._models.values():
            module.to(self._views.device)
        # Copies take longer than the weights alone, and loading is in none of the times.
        self._asked, self._trained = (deepcopy(self._models) for _ in range(2))

    def works(self) -> dict[str, Work]:
        return {
            "steps": self._steps(),
            "forward": self._forward(),
            "shared": settled(lambda: self._all_runs(Memory())),
            "one by one": settled(lambda: self._all_runs(None)),
        }

    def with_ideal(self, found: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
        """The seconds of the works, `steps` and `forward` as often as a sweep needs them."""
        epochs = self._spec.epochs
        steps = [len(TEACHERS) * len(METHODS) * epochs * one for one in found["steps"]]
        passes = 1 if self._views.deterministic else epochs
        forward = [passes * one for one in found["forward"]]
        ideal = [a + b for a, b in zip(steps, forward, strict=True)]
        return {**found, "steps": steps, "forward": forward, "ideal": ideal}

    def _all_runs(self, memory: Memory | None) -> None:
        self._views = views_of(self._images, self._spec)  # that keep nothing yet
        for student, teacher, method in product(STUDENTS, TEACHERS, METHODS):
            self._run(student, teacher, replace(self._spec, method=method), memory)

    def _run(self, student: str, teacher: str, spec: TransferSpec, memory: Memory | None) -> None:
        query = TeacherQuery.by(spec, self._views)
        frozen, taught_by = (
            Source(query, partial(self._asked.__getitem__, arch), arch, memory)
            for arch in (student, teacher)
        )
        module, config = self._trained[student]
        module.load_state_dict(self._models[student][0].state_dict())
        distil(module, config, self._views, Targets(spec, frozen, [taught_by]), spec)

    def _steps(self) -> Work:
        """One epoch of each student."""
        epochs = []
        for module, config in (self._models[arch] for arch in STUDENTS):
            batches = ready(config, CLASSES, self._views, self._spec)
            epochs.append(bare_steps(deepcopy(module), self._spec, batches))
        return lambda: [epoch() for epoch in epochs]

    def _forward(self) -> Work:
        """One pass of each model over all images."""
        passes = []
        for module, config in self._models.values():
            prepare = preprocess(config, self._views.device)
            parts = torch.arange(len(self._views)).tensor_split(-(-len(self._views) // BATCH))
            inputs = [prepare(self._views.plain(part)) for part in parts]
            passes.append(bare_forward(deepcopy(module), inputs))
        return lambda: [once() for once in passes]


HEAD = ["augment", "steps", "forward", "ideal", "shared", "ideal ÷ shared", "one by one",
        "÷ shared"]  # fmt: skip


def row(augment: str, found: Mapping[str, Sequence[float]]) -> list[str]:
    s = {name: f"{value:.2f}" for name, value in medians(found).items()}
    return [
        augment, s["steps"], s["forward"], s["ideal"], s["shared"],
        f"{100 * ratio(found, 'ideal', 'shared'):.0f}%", s["one by one"],
        f"{ratio(found, 'one by one', 'shared'):.2f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["KT_CACHE"] = temporary
        for augment in AUGMENTS:
            spec = replace(SPEC, augment=augment, epochs=chosen.epochs)
            sweep = Sweep(spec, chosen.images)
            works = sweep.works()
            interleaved({name: works[name] for name in ("steps", "forward")}, 1)  # the first time
            found = sweep.with_ideal(interleaved(works, chosen.repeats))
            rows.append(row(augment, found))
            share = ratio(found, "ideal", "shared")
            record(f"reuse: {augment}, ideal ÷ shared", share, LIMIT, at_least=True)
    print(f"seconds of a sweep of {len(STUDENTS)} students × {len(TEACHERS)} teachers × "
          f"{', '.join(METHODS)}; {chosen.epochs} epochs of {chosen.images} images, "
          f"{torch.get_num_threads()} threads, {chosen.repeats} repeats")  # fmt: skip
    show(HEAD, rows)


if __name__ == "__main__":
    main()
