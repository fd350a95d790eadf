"""The tables of `benchmarks.gpu`, one a process: rows are written as they are known.

    python -m benchmarks.device steps|waits|evaluation|pairs [--out FOLDER] [--seconds 200]

Models are untrained, images made up. Works of a row take turns; shown are medians of their ratios
and rates. On the CPU everything is so small that the figures mean nothing: it shows that it runs.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import pairs, train
from benchmarks.measure import interleaved, medians, seconds
from benchmarks.photos import photos
from benchmarks.train import Work, bare_epoch, bare_steps, ratio, ready, settled, targets_of
from kt_cli.data.augmentations import AUGMENTS, DRAWS
from kt_cli.data.images import ImageSet
from kt_cli.data.loading import batches
from kt_cli.data.sources import open_data
from kt_cli.data.views import Views, preprocess
from kt_cli.device import pick_device
from kt_cli.distillation.distil import distil
from kt_cli.distillation.order import order_of
from kt_cli.distillation.target_cache import Memory, TargetCache
from kt_cli.knowledge.evaluate import Evaluator, evaluate
from kt_cli.knowledge.pairs import flip_blocks
from kt_cli.settings import DataSpec, TransferSpec
from kt_cli.zoo.load import build

GB = 1e9


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        archs: students, each its own teacher. side, size: pixels of crops and inputs.
        updates: at most, of an epoch. seconds: that a bare epoch shall take.
        jpegs: of which so many are different; the rest are copies.
        workers: decoding processes.
    """

    archs: tuple[str, ...]
    side: int
    size: int
    batch_size: int
    micro_batch: int
    updates: int
    seconds: float
    repeats: int
    jpegs: int
    different: int
    workers: tuple[int, ...]
    models: int

    @property
    def spec(self) -> TransferSpec:
        return TransferSpec(epochs=1, batch_size=self.batch_size, micro_batch=self.micro_batch,
                            augment="paper", side=self.side)  # fmt: skip


SIZES = {
    "cuda": Size(
        ("resnet50", "vit_base_patch16_224", "convnext_base"), 256, 224, 256, 64, 8, 0.5, 4,
        3072, 128, (4, 8, 12, 16), 300,
    ),
    "cpu": Size(("test_resnet", "test_vit", "test_convnext"), 36, 32, 8, 4, 1, 0.1, 1, 16, 8,
                (0, 2), 6),
}  # fmt: skip
# The type of mixed precision, and whether TF32 is allowed. The most common first.
PRECISIONS = {
    "bf16": ("bfloat16", True), "TF32": ("", True), "fp16": ("float16", True), "fp32": ("", False),
}  # fmt: skip


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether convolutions and products in float32 may round their factors to TF32."""
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = allowed
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


class Table:
    """A Markdown table that grows in a file and on the screen, until its time is over."""

    def __init__(self, out: Path | None, limit: float) -> None:
        self._out, self._until, self._longest = out, time.monotonic() + limit, 0.0
        self.failed = False

    def head(self, title: str, columns: Sequence[str]) -> None:
        self.say(f"\n### {title}\n")
        self._row(columns)
        self._row(["---", *["--:"] * (len(columns) - 1)])

    def add(self, name: str, cells: Callable[[], Sequence[str]]) -> None:
        """A row, where there is time for it: as much as the longest so far took."""
        start = time.monotonic()
        if start + self._longest > self._until:
            self.say(f"| {name} | left out: no time left |")
            return
        try:
            self._row([name, *cells()])
        except Exception as error:  # costs its row, not the others
            traceback.print_exc()
            self.failed = True
            self.say(f"| {name} | {type(error).__name__}: {' '.join(str(error).split())[:200]} |")
        self._longest = max(self._longest, time.monotonic() - start)

    def say(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        if self._out is not None:
            with self._out.open("a", encoding="utf-8") as file:
                file.write(text + "\n")

    def _row(self, cells: Sequence[str]) -> None:
        self.say(f"| {' | '.join(cells)} |")


# --- training ------------------------------------------------------------------------------------


class Student:
    """An architecture on the device, and what is timed of it on n images.

    Its teacher is of the same architecture.
    """

    def __init__(
        self, arch: tuple[nn.Module, Mapping[str, Any]], size: Size, amp: str, device: torch.device
    ) -> None:
        self.module, self.config = arch
        self.size, self.device = size, device
        self.spec = replace(size.spec, amp=amp)
        self.kept: TargetCache = Memory()
        self.curve_waiting = 0.0

    def bare(self, views: Views) -> Work:
        """Forward, backward and update on inputs that lie ready."""
        prepared = ready(self.config, train.CLASSES, views, self.spec)
        return bare_steps(deepcopy(self.module).to(self.device), self.spec, prepared)

    def kt(self, views: Views, keeping: TargetCache | None) -> Work:
        """The training of a transfer by kl-dp, which asks teacher and frozen student."""
        student = deepcopy(self.module).to(self.device)
        opened = {"frozen": (deepcopy(self.module), self.config),
                  "teacher": (deepcopy(self.module), self.config)}  # fmt: skip
        targets = targets_of(self.spec, views, opened, keeping)

        def work() -> None:
            curve = distil(student, self.config, views, targets, self.spec)
            self.curve_waiting = curve.waiting

        return settled(work)

    def fitting(self, pixels: Any) -> int:
        """Images of so many updates that a bare epoch takes about as long as it shall."""
        one = self.spec.batch_size
        work = self.bare(views_of(pixels[:one], self.spec, self.device))
        work()
        updates = self.size.seconds / max(seconds(work), 1e-6)
        return one * int(min(max(1, updates), self.size.updates))


def views_of(pixels: Any, spec: TransferSpec, device: torch.device) -> Views:
    labels = np.arange(len(pixels)) % train.CLASSES
    return Views(pixels, labels, spec.augment, spec.seed, device, f"made-up-{len(pixels)}")


def crops(size: Size) -> Any:
    """(n, 3, side, side) canonical crops; what is on them does not matter for the time."""
    shape = (size.batch_size * size.updates, 3, size.side, size.side)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def peak(work: Work, device: torch.device) -> float:
    """Peak memory in GB while it works; on the CPU nobody counts."""
    if device.type != "cuda":
        work()
        return float("nan")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() / GB


def steps(size: Size, device: torch.device, table: Table) -> None:
    """The share of the bare images a second that training steps reach."""
    table.head(
        "A transfer's steps",
        ["student", "images/step", "bare images/s", "cached images/s", "% of bare", "waiting %",
         "peak GB", "online images/s", "% of bare", "peak GB"],
    )  # fmt: skip
    archs = {arch: build(arch, train.CLASSES, size.size) for arch in size.archs}
    pixels = crops(size)
    for precision, (amp, allowed) in PRECISIONS.items():
        for name, arch in archs.items():
            student = Student(arch, size, amp, device)
            with tf32(allowed):
                table.add(f"{name}, {precision}", partial(_step_cells, student, pixels))
            del student
            torch.cuda.empty_cache()


def _step_cells(student: Student, pixels: Any) -> list[str]:
    n = student.fitting(pixels)
    views = views_of(pixels[:n], student.spec, student.device)
    works = {"cached": student.kt(views, student.kept), "online": student.kt(views, None)}
    peaks = {kind: peak(work, student.device) for kind, work in works.items()}
    works["bare"] = student.bare(views)  # its inputs take memory, so after the peaks
    works["bare"]()
    waiting: list[float] = []

    def cached() -> None:
        works["cached"]()
        waiting.append(student.curve_waiting)

    found = interleaved({**works, "cached": cached}, student.size.repeats)
    rate = {kind: n / value for kind, value in medians(found).items()}
    share = {kind: 100 * ratio(found, "bare", kind) for kind in ("cached", "online")}
    return [
        f"{student.spec.batch_size}", f"{rate['bare']:,.0f}", f"{rate['cached']:,.0f}",
        f"{share['cached']:.0f}", f"{statistics.median(waiting):.0f}", f"{peaks['cached']:.1f}",
        f"{rate['online']:,.0f}", f"{share['online']:.0f}", f"{peaks['online']:.1f}",
    ]  # fmt: skip


# --- what waits for what -------------------------------------------------------------------------


def waits(size: Size, device: torch.device, table: Table) -> None:
    """Each stage of a training alone, micro-batch by micro-batch, and the whole."""
    table.head(
        "What waits for what (bf16): milliseconds of a micro-batch "
        f"of {size.micro_batch}, alone, until it is queued and until it is done",
        ["student", "read", "copy", "augment", "… done", "resize", "… done", "step", "… done",
         "step, any algorithm", "sum", "whole with kt"],
    )  # fmt: skip
    pixels = crops(size)
    for name in size.archs:
        student = Student(build(name, train.CLASSES, size.size), size, "bfloat16", device)
        table.add(name, partial(_wait_cells, student, pixels))


def _wait_cells(student: Student, pixels: Any) -> list[str]:
    device, spec = student.device, student.spec
    n = student.fitting(pixels)
    views = views_of(pixels[:n], spec, device)
    order = order_of(spec, n)
    parts = [part for batch in order.batches(0) for part in order.micro_batches(batch)]
    draws, augment = torch.rand(n, DRAWS), AUGMENTS[spec.augment]
    prepare = preprocess(student.config, device)

    def read(part: Tensor) -> Tensor:
        picked = torch.from_numpy(pixels[part.numpy()])
        return picked.pin_memory() if device.type == "cuda" else picked

    def copy(picked: Tensor) -> Tensor:
        return picked.to(device, non_blocking=True)

    lying = [read(part) for part in parts]
    there = [copy(one) for one in lying]
    units = [one.float().div_(255) for one in there]
    bare = bare_epoch(deepcopy(student.module).to(device), spec,
                      ready(student.config, train.CLASSES, views, spec))  # fmt: skip
    works: dict[str, Callable[[], Any]] = {
        "read": lambda: [read(part) for part in parts],
        "copy": lambda: [copy(one) for one in lying],
        "augment": lambda: [augment(one, draws[part])
                            for one, part in zip(there, parts, strict=True)],
        "resize": lambda: [prepare(unit) for unit in units],
        "step": bare,
        "whole": student.kt(views, student.kept),
    }  # fmt: skip
    for work in works.values():
        work()
    times = [{kind: queued_and_done(work) for kind, work in works.items()}
             for _ in range(student.size.repeats)]  # fmt: skip
    ms = {
        kind: [1000 * statistics.median(turn[kind][i] for turn in times) / len(parts)
               for i in (0, 1)]
        for kind in works
    }  # fmt: skip
    any_algorithm = 1000 * _without_determinism(settled(bare)) / len(parts)
    total = sum(ms[kind][1] for kind in works if kind != "whole")
    both = [f"{value:.1f}" for kind in ("augment", "resize", "step") for value in ms[kind]]
    return [f"{ms['read'][1]:.1f}", f"{ms['copy'][1]:.1f}", *both, f"{any_algorithm:.1f}",
            f"{total:.1f}", f"{ms['whole'][1]:.1f}"]  # fmt: skip


def queued_and_done(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds until `work` returns, and until the device has done it."""
    settled(lambda: None)()
    start = time.perf_counter()
    work()
    queued = time.perf_counter() - start
    settled(lambda: None)()
    return queued, time.perf_counter() - start


def _without_determinism(work: Work) -> float:
    """Seconds where cuDNN may take any algorithm: what equal numbers cost."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = False
    try:
        work()
        return statistics.median(seconds(work) for _ in range(3))
    finally:
        torch.backends.cudnn.deterministic = before


# --- evaluation ----------------------------------------------------------------------------------


def evaluation(size: Size, device: torch.device, table: Table) -> None:
    """Images a second of an evaluation, by the number of decoding processes."""
    arch = size.archs[0]
    table.head(
        f"Evaluation of {arch} in bf16 on {size.jpegs:,} JPEGs of 350 to 500 pixels",
        ["decoding workers", "decoding alone, images/s", "forward alone, images/s",
         "kt, images/s", "% of the slower"],
    )  # fmt: skip
    module, config = build(arch, train.CLASSES, size.size)
    with tempfile.TemporaryDirectory() as temporary:
        images = jpegs(Path(temporary), size)
        evaluator = Evaluator(deepcopy(module), config, device, "bfloat16")
        transform = evaluator.geometry.transform()
        read = batches(images, [transform], evaluator.batch_size, workers=0, device=device)
        (first,) = next(iter(read))

        def forward() -> None:
            for _ in range(max(1, len(images) // len(first))):
                evaluator(first)

        settled(forward)()
        fed = max(1, len(images) // len(first)) * len(first) / seconds(settled(forward))
        for workers in size.workers:
            table.add(str(workers), partial(_evaluation_cells, images, module, config, device,
                                            transform, workers, fed))  # fmt: skip


def _evaluation_cells(
    images: ImageSet, module: nn.Module, config: Mapping[str, Any], device: torch.device,
    transform: Callable[[Any], Tensor], workers: int, fed: float,
) -> list[str]:  # fmt: skip
    def decode() -> None:
        for _ in batches(images, [transform], 128, workers):
            pass

    said = partial(evaluate, module, config, images, device, amp="bfloat16", workers=workers)
    decoded, whole = (len(images) / seconds(settled(work)) for work in (decode, said))
    return [f"{decoded:,.0f}", f"{fed:,.0f}", f"{whole:,.0f}",
            f"{100 * whole / min(decoded, fed):.0f}"]  # fmt: skip


def jpegs(folder: Path, size: Size) -> ImageSet:
    """JPEGs like photographs in class folders; copies after the first ones."""
    classes = min(8, size.different)
    written = photos(folder, size.different, classes, sides=(350, 500))
    for i in range(size.different, size.jpegs):
        source = written[i % size.different]
        shutil.copy(source, source.with_name(f"{i}.jpg"))
    return open_data(DataSpec(str(folder))).eval


# --- pairs ---------------------------------------------------------------------------------------


def all_pairs(size: Size, device: torch.device, table: Table) -> None:
    """The products behind the flips of all pairs, on the CPU and on the device; all by kt."""
    outputs = pairs.made_up(size.models)
    table.head(
        f"Flips of all ordered pairs of {size.models} models, {pairs.IMAGES:,} images, "
        f"{torch.get_num_threads()} threads",
        ["", "seconds"],
    )

    def all_by_kt() -> None:
        for _ in flip_blocks(outputs, by_class=True):
            pass

    table.add("kt, on the CPU: all that follows", lambda: [f"{seconds(all_by_kt):.2f}"])
    for where in dict.fromkeys((torch.device("cpu"), device)):
        table.add(f"bare products, {where.type}", partial(_product_cells, outputs, where))


def _product_cells(outputs: Any, device: torch.device) -> list[str]:
    work = settled(pairs.flip_products(outputs, device))
    work()
    return [f"{statistics.median(seconds(work) for _ in range(3)):.3f}"]


WORKS: dict[str, Callable[[Size, torch.device, Table], None]] = {
    "steps": steps, "waits": waits, "evaluation": evaluation, "pairs": all_pairs,
}  # fmt: skip


def run(works: Callable[[Size, torch.device, Table], None] | None = None) -> None:
    """Write the tables of `works`, or of those that the command names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    if works is None:
        parser.add_argument("table", choices=WORKS)
    parser.add_argument("--out", type=Path, help="its file benchmarks.md gets the rows too")
    parser.add_argument("--seconds", type=float, default=200.0)
    chosen = parser.parse_args()
    device = pick_device()
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
    table = Table(chosen.out / "benchmarks.md" if chosen.out else None, chosen.seconds)
    (works or WORKS[chosen.table])(SIZES[device.type], device, table)
    sys.exit(1 if table.failed else 0)


if __name__ == "__main__":
    run()
