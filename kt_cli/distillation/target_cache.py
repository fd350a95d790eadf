"""Where models' answers are kept between uses, and whether that pays.

A sweep decides once, from all its runs: in memory where everything fits, else on disk in half
precision, else on disk as the most probable classes; nowhere where each answer is used once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kt_cli.distillation.teacher_outputs import TeacherOutputs
from kt_cli.files import atomic_file, cache_folder, save_tensors

MEMORY, DISK, ONLINE = "memory", "disk", "online"
WHERE = {MEMORY: "in memory", DISK: "on disk", ONLINE: "computed as they are needed"}
LEAST_TOPK, MOST_TOPK = 10, 512
MEMORY_BUDGET = 2 * 2**30
STATS_BYTES = 9  # of `SampleStats`: two floats and a flag
Compute = Callable[[], TeacherOutputs]


class Memory:
    """Least recently used answers about epochs' views, within a budget in bytes."""

    def __init__(self, budget: int = MEMORY_BUDGET) -> None:
        self._budget = budget
        self._kept: OrderedDict[str, TeacherOutputs] = OrderedDict()

    def stored(self, answers: TeacherOutputs) -> TeacherOutputs:
        """The form in which a batch of answers is kept."""
        return answers

    def get(self, key: str, compute: Compute) -> TeacherOutputs:
        if key not in self._kept:
            self._kept[key] = compute()
            while len(self._kept) > 1 and sum(a.bytes for a in self._kept.values()) > self._budget:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


class Disk:
    """Answers in half precision, one file for each model and epoch, read by all processes.

    Files are mapped: what a batch does not need is not read.
    """

    def stored(self, answers: TeacherOutputs) -> TeacherOutputs:
        """The form in which a batch of answers is kept."""
        return answers.small()

    def get(self, key: str, compute: Compute) -> TeacherOutputs:
        """
        Raises:
            WriteError: the file cannot be written.
        """
        path = cache_folder("targets") / f"{key[:24]}.safetensors"
        found = self._read(path)
        if found is not None:
            return found
        answers = compute()
        with atomic_file(path) as temporary:
            save_tensors(temporary, answers.tensors())
        return self._read(path) or answers

    def _read(self, path: Path) -> TeacherOutputs | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                return TeacherOutputs.of({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError, KeyError):
            return None


TargetCache = Memory | Disk


@dataclass(frozen=True)
class Decision:
    """Where answers are kept, and why.

    kind: a key of WHERE. topk: classes that are kept; 0 for all. bytes: what all of them take.
    """

    kind: str
    topk: int
    bytes: int
    reason: str

    def __str__(self) -> str:
        """For a plan: `on disk, 12 classes each, 3 GB: …`."""
        classes = f", the {self.topk} most probable classes" if self.topk else ""
        size = f", {_gb(self.bytes)}" if self.bytes else ""
        return f"{WHERE[self.kind]}{classes}{size}: {self.reason}"


def decide(
    *, images: int, classes: int, answers: int, uses: float, memory: int, disk: int
) -> Decision:
    """Whether it pays to keep answers, and in which form they fit.

    Args:
        images: n training images. classes: C.
        answers: how many (model, epoch) there are to be asked in all.
        uses: how often each is needed, in the mean.
        memory, disk: budgets in bytes.
    """
    if uses < 2:
        return Decision(ONLINE, 0, 0, f"each answer is used {uses:.1f} times only")
    whole = images * answers * (4 * classes + STATS_BYTES)
    if whole <= memory:
        return Decision(MEMORY, 0, whole, f"used {uses:.1f} times each, and all fit in memory")
    half = images * answers * (2 * classes + STATS_BYTES)
    if half <= disk:
        return Decision(DISK, 0, half, f"used {uses:.1f} times each, in half precision")
    # Four bytes for a class and two for its probability.
    fixed = STATS_BYTES + 4
    fitting = min(MOST_TOPK, int((disk / max(1, images * answers) - fixed) // 6))
    if fitting >= LEAST_TOPK:
        size = images * answers * (6 * fitting + fixed)
        return Decision(DISK, fitting, size, f"{_gb(half)} of all classes exceed the budget")
    too_much = f"{_gb(half)} exceed the budget, so do the {LEAST_TOPK} most probable classes"
    return Decision(ONLINE, 0, 0, too_much)


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
