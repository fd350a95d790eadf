"""How knowledge is moved. Defaults are the paper's (docs/methods.md)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from kt_cli.errors import UsageError, unknown
from kt_cli.settings import shared
from kt_cli.settings.data import EvalSpec
from kt_cli.settings.declared import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Settings,
    digest,
    setting,
    signature,
)  # fmt: skip
from kt_cli.settings.shared import of_harm, of_method, of_student, of_training

BN = ("train", "eval", "recompute")
AVERAGES = ("none", "last-half")
WAYS = ("single", "sequential", "parallel", "soup")  # of several teachers to teach together
DISTIL_ON = ("all", "positive", "not-negative")

# Suffixes of methods, by the guard that decided. That of the first is older than the others.
GUARDS = {"gain": "+guard", "safe": "+safe", "shrink": "+shrink"}
GUARD_MARGIN = 0.1  # points that a student may lose under `safe`
_MCL = {"lr": 0.01, "distil_on": "not-negative"}
# Settings that the authors chose for each method; those of all others under "".
PUBLISHED: dict[str, dict[str, Any]] = {
    "": {"lr": 1e-4, "kd_lambda": 0.5, "kd_topk": 0, "distil_on": "all"},
    "kl-mcl": _MCL,
    "xekl-mcl": {**_MCL, "kd_lambda": 0.68},
}
# What a name stands for where nothing else is said: docs/science.md has what bears it out.
PRESETS: dict[str, dict[str, Any]] = {"paper": {}, "keep": {"schedule": "cosine"}}
LEFT_TO_THE_METHOD = (*PUBLISHED[""], "mcl_every")


def guard_of(method: str) -> tuple[str, float] | None:
    """The guard that decides in a method such as kl+safe:0.5, and its margin in points.

    Raises:
        UnknownName, UsageError: there is no such guard, or margin.
    """
    _, plus, said = method.partition("+")
    suffix, colon, points = said.partition(":")
    rule = next((name for name, known in GUARDS.items() if known == plus + suffix), None)
    if plus and rule is None:
        raise unknown("guard", plus + suffix, GUARDS.values())
    if rule is None:
        return None
    if not colon:
        return rule, GUARD_MARGIN
    with suppress(ValueError):
        if rule == "safe" and 0 <= float(points) < 100:
            return rule, float(points)
    raise UsageError(
        f"the guard {rule} has no margin of {points!r} in {method}",
        "Only safe has one, in points: +safe:0.5.",
    )


def canonical(method: str) -> str:
    """A method with its guard's margin said one way: kl+safe for kl+safe:0.10."""
    base, plus, said = method.partition("+")
    found = guard_of(method) if ":" in said else None
    if found is None:
        return method
    guarded = base + plus + said.partition(":")[0]
    margin = f"{abs(found[1])!r}".removesuffix(".0")
    return guarded if found[1] == GUARD_MARGIN else f"{guarded}:{margin}"


def with_guard(method: str, guard: str | None) -> str:
    """The method with a guard that was asked for, such as safe:0.5.

    Raises:
        UnknownName, UsageError: there is no such guard, or the method has another.
    """
    if guard is None:
        return method
    rule, colon, points = str(guard).partition(":")
    if rule not in GUARDS:
        raise unknown("guard", str(guard), GUARDS)
    base, plus, _ = method.partition("+")
    guarded = base + GUARDS[rule] + colon + points
    if plus and canonical(method) != canonical(guarded):
        raise UsageError(f"{method} has a guard already, not --guard {guard}", "Say one.")
    return guarded


@dataclass(frozen=True)
class TransferSpec(Settings):
    """How one transfer is done. None is the value published for the method; see `with_defaults`."""

    method: str = of_method(
        "kl-dp", "kl, xekl, kl-mcl, xekl-mcl, kl-dp, kl-dp-u; self, flip-st, flip-t, flip-avg; "
        "crd, cd. With +guard, +safe, +shrink as with --guard gain, safe, shrink.",
        flags=("-m", "--method"), column="transfer method, with `+guard` where the guard `gain` "
        "decided, `+safe` or `+shrink` where that one did",
    )  # fmt: skip
    seed: int = shared.seed("Seed of the views and of their order.")
    preset: str = of_harm(
        "paper", "keep: with what lost least in a study, a rate that decays, for what is not said "
        "otherwise.", choices=tuple(PRESETS), identity=False, column=None,
    )  # fmt: skip
    epochs: int = shared.epochs(20)
    lr: float | None = of_training(
        None, "Learning rate at batch 256; scaled by batch size / 256.", within=POSITIVE,
        usual="1e-4, of MCL 0.01",
    )  # fmt: skip
    batch_size: int = shared.batch(256)
    micro_batch: int = shared.micro_batch(64)
    momentum: float = of_training(0.9, "Momentum of SGD.", within="[0, 1)")
    weight_decay: float = of_training(1e-4, "Weight decay.", within=NOT_NEGATIVE)
    schedule: str = of_training(
        "constant", "Learning rate: constant, as in the paper; cosine or linear to zero, or step.",
        flags=("--schedule", "--sched"), choices=shared.SCHEDULES, later=True,
    )  # fmt: skip
    average: str = of_harm(
        "none", "last-half: the student is the mean of its weights over the last half of the "
        "updates, its running statistics estimated anew.", choices=AVERAGES, later=True,
    )  # fmt: skip
    subtract_drift: bool = of_harm(
        False, "Take back what as many updates towards itself change in the student; they are done "
        "once for all its teachers.", later=True,
    )  # fmt: skip
    temperature: float = of_method(1.0, "T of distillation.", within=POSITIVE)
    kd_lambda: float | None = of_method(
        None, "λ of xekl: weight of distillation against cross-entropy.", within=SHARE,
        usual="0.5, of MCL 0.68",
    )  # fmt: skip
    kd_topk: int | None = of_method(
        None, "Distil the K most probable classes, renormalised; 0 for all.", within=NOT_NEGATIVE,
        metavar="K", usual="0",
    )  # fmt: skip
    distil_on: str | None = of_method(
        None, "kl, xekl: distil on all samples, on positive flips, or on all but negative ones.",
        choices=DISTIL_ON, usual="all, of MCL not-negative",
    )  # fmt: skip
    margin: float = of_harm(
        0.0, "A teacher teaches a sample where its probability exceeds the student's by as much.",
        within="[0, 1)", later=True,
    )  # fmt: skip
    label_smoothing: float = shared.smoothing()
    mcl_tau: float = of_method(0.9999, "τ of MCL's slow weights.", within=SHARE)
    mcl_every: int | None = of_method(
        None, "Updates between two steps of MCL's slow weights.", within=POSITIVE,
        usual="512 / batch size",
    )  # fmt: skip
    bn: str = of_harm(
        "train", "Running statistics of batch normalisation: update them (as the paper), keep "
        "them, or estimate them anew at the end.", choices=BN,
    )  # fmt: skip
    together: str = of_method("single", "How several teachers teach.", choices=WAYS, was="teachers")
    order: str = of_method(
        "asc", "Of sequential teachers, by accuracy; or as given.", choices=("asc", "desc", "given")
    )
    augment: str = shared.augment("paper")
    crop: float = of_training(
        0.875, "Canonical centre crop of a view, share of the shorter side.", within="(0, 1]"
    )
    side: int = shared.side(256)
    amp: str = shared.amp()
    target_topk: int = setting(
        0, "Targets are kept as their K most probable classes and the mass of the rest; 0 for all.",
        within=NOT_NEGATIVE, option=False,
    )  # fmt: skip
    reference_compat: bool = of_method(
        False, "As the authors' code where it departs from the paper: see docs/methods.md."
    )
    eval_size: str = shared.eval_size()
    eval_amp: str = shared.eval_amp()
    keep_targets: str = setting(
        "auto", "Where targets are kept between uses: memory, disk, or nowhere (online); auto as "
        "it pays.", choices=("auto", "memory", "disk", "online"), identity=False, option=False,
        column="where targets were kept: `memory`, `disk` or `online`",
    )  # fmt: skip
    retry_oom: bool = of_training(
        False, "Halve the micro-batch where memory runs out; the row says what it was.",
        identity=False, column=None,
    )  # fmt: skip
    compile: bool = of_training(
        False, "Compile the student with torch.compile.", identity=False, column=None
    )
    by_class: bool = of_student(
        False,
        "Also record gain and loss of each class, as kt transfer does.",
        identity=False,
        column=None,
    )
    fail_if_worse: float | None = of_harm(
        None, "Mark the student where Δ is below −POINTS; kt transfer then exits with 3.",
        metavar="POINTS", within=NOT_NEGATIVE, identity=False, column=None,
    )  # fmt: skip
    fail_if_class_worse: float | None = of_harm(
        None, "The same of the Δ of any class, in points of its own images.",
        metavar="POINTS", within=NOT_NEGATIVE, identity=False, column=None,
    )  # fmt: skip
    force_guard: bool = of_harm(
        False, "Let the guard judge on images that the student may have been trained on.",
        identity=False, column=None,
    )  # fmt: skip

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> TransferSpec:
        """From the values that are given, and for others those of the preset that they name."""
        name = given.get("preset", "paper")
        if name not in PRESETS:
            raise unknown("preset", str(name), PRESETS)
        return cls(**{**PRESETS[name], **given})

    @property
    def evaluation(self) -> EvalSpec:
        """How the models are evaluated before and after."""
        return EvalSpec(self.eval_size, self.eval_amp)

    @property
    def base_method(self) -> str:
        """The method without its guard."""
        return self.method.partition("+")[0]

    @property
    def guarded(self) -> bool:
        return "+" in self.method

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """Of what the student, and each class, may lose, in points; None for none."""
        return self.fail_if_worse, self.fail_if_class_worse

    @property
    def statistics_anew(self) -> bool:
        """Whether running statistics are estimated at the end: moved weights have none."""
        moved = self.average != "none" or self.subtract_drift
        return self.bn == "recompute" or (self.bn == "train" and moved)

    @property
    def with_defaults(self) -> TransferSpec:
        """With the values that count: the method's published ones where none are given."""
        every = max(1, round(2 * 256 / (self.batch_size or 1)))
        published = PUBLISHED[""] | {"mcl_every": every} | PUBLISHED.get(self.base_method, {})
        if self.reference_compat and self.base_method.endswith("-mcl"):
            published |= {"kd_topk": 100}
        unset = {k: v for k, v in published.items() if getattr(self, k) is None}
        micro_batch, method = min(self.micro_batch, self.batch_size), canonical(self.method)
        return replace(self, **unset, micro_batch=micro_batch, method=method)

    @property
    def settings(self) -> str:
        """Hash of everything but the method and the seed: rows with equal settings compare.

        It is of the values that count, however they were said. A value that is the published one
        of the method counts as that, whatever it is: methods compare as their authors ran them,
        though these chose different values (kl and kl-mcl), and `--lr 1e-4` of kl says nothing
        new. So one learning rate given to all methods parts those whose published one it is.
        """
        unset: dict[str, Any] = dict.fromkeys(LEFT_TO_THE_METHOD)
        settled, published = self.with_defaults, replace(self, **unset).with_defaults
        said = {k: v for k, v in signature(settled).items() if k not in ("method", "seed")}
        same = [k for k in LEFT_TO_THE_METHOD if getattr(settled, k) == getattr(published, k)]
        return digest({**said, **dict.fromkeys(same)})[:8]
