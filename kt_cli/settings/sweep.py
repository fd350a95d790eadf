"""A whole sweep: which models, on which images, measured and transferred how."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from kt_cli.settings.cluster import SlurmSpec
from kt_cli.settings.data import EMBEDDINGS, DataSpec
from kt_cli.settings.declared import NOT_NEGATIVE, POSITIVE, setting
from kt_cli.settings.pretrain import PretrainSpec
from kt_cli.settings.shared import COMPUTATION, of_models, of_output, of_transfers
from kt_cli.settings.transfer import WAYS, TransferSpec

BASELINES = ("none", "random")
AUTO_PAIRS = 400  # as many as the paper draws


@dataclass(frozen=True)
class SweepSpec:
    """A sweep as it is asked for, by a file and by flags."""

    name: str = of_output(help="Name of the sweep: its folder of results.", identity=False)
    models: tuple[str, ...] = of_models(
        (), "Models or selections: timm-top300, 'vit_*', @list.txt, a,b,c. May repeat.",
        identity=False,
    )  # fmt: skip
    data: DataSpec | None = None  # None where none is named yet, which is enough for a plan
    zoo: tuple[PretrainSpec, ...] = ()  # models to train first; they are added to `models`
    timeout_run: float | None = setting(
        None, "A run that takes longer has failed; for those that hang.", panel=COMPUTATION,
        metavar="MINUTES", within="(0, 1e6]", usual="none", identity=False,
    )  # fmt: skip
    methods: tuple[str, ...] = of_transfers(
        ("kl-dp",), "Each pair is transferred by each, as of kt transfer; with +guard, +safe or "
        "+shrink for a guard. Comma list.", flags=("-m", "--methods"), listed=True,
    )  # fmt: skip
    seeds: tuple[int, ...] = of_transfers(
        (0,), "Each pair is transferred with each. Comma list.", listed=True
    )
    pairs: int | str = of_transfers(
        "auto", "Ordered pairs to transfer: a number or all; auto: all up to 400, else 400."
    )
    pair_seed: int = of_transfers(0, "Seed that draws the pairs.", within=NOT_NEGATIVE)
    students: tuple[str, ...] = of_transfers(
        (), "Models that are taught, by name or glob. Comma list.", listed=True, usual="all"
    )
    teachers: tuple[str, ...] = of_transfers(
        (), "Models that teach, by name or glob. Comma list.", listed=True, usual="all"
    )
    transfer: TransferSpec = field(default_factory=TransferSpec)  # but for method and seed
    # Settings with several values: each drawn pair is transferred with all combinations.
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    together: tuple[str, ...] = of_transfers(
        (), "Also teams of teachers. Comma list.", listed=True, choices=WAYS[1:]
    )
    team: int = of_transfers(
        3, "Teachers in a team; there is one team for each student of the drawn pairs.",
        within="[2, inf)",
    )  # fmt: skip
    target_budget: float = of_transfers(
        100.0, "GB of disk for what models say about training views.", metavar="GB", within=POSITIVE
    )
    save_students: bool = of_transfers(False, "Keep every student after transfer.")
    class_embedding: str = of_models("head", "What classes are compared by.", choices=EMBEDDINGS)
    flips_by_class: bool = of_models(False, "Keep the flips of each class.")
    baseline: str = of_models(
        "none", "random adds randomly initialised teachers.", choices=BASELINES, identity=False
    )
    slurm: SlurmSpec = field(default_factory=SlurmSpec)

    def transfers(self) -> list[TransferSpec]:
        """The settings of all transfers of a pair: methods × seeds × the grid."""
        points = [dict(zip(self.grid, values, strict=True))
                  for values in itertools.product(*self.grid.values())]  # fmt: skip
        return [
            replace(self.transfer, method=method, seed=seed, **point)
            for method in self.methods
            for seed in self.seeds
            for point in points
        ]

    def is_student(self, name: str) -> bool:
        return _named(name, self.students)

    def is_teacher(self, name: str) -> bool:
        return _named(name, self.teachers)

    def pair_count(self, names: Collection[str]) -> int:
        """Ordered pairs to transfer among models of these names."""
        teachers = sum(map(self.is_teacher, names))
        every = sum(teachers - self.is_teacher(name) for name in names if self.is_student(name))
        if self.pairs == "all":
            return every
        return min(every, AUTO_PAIRS if self.pairs == "auto" else int(self.pairs))


def _named(name: str, globs: Sequence[str]) -> bool:
    """Whether globs name a model; none name all."""
    return not globs or any(fnmatchcase(name, glob) for glob in globs)
