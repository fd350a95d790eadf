"""What a student is taught on each view: models are asked, and a partition chooses.

Views are a function of (seed, epoch, index), so what a model says about them serves every pair
and method that it is in, as teacher or as frozen student. Where answers are kept, a training step
costs the student's forward, backward and update only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from kt_cli.data.views import Views, preprocess
from kt_cli.device import out_of_memory, place
from kt_cli.distillation import methods
from kt_cli.distillation.losses import TopK, full
from kt_cli.distillation.partition import SampleStats
from kt_cli.distillation.target_cache import TargetCache, TeacherOutputs, joined
from kt_cli.distillation.train import precision
from kt_cli.precision import arithmetic
from kt_cli.settings import TransferSpec
from kt_cli.settings.declared import digest
from kt_cli.zoo.features import FeatureTap

BATCH, BATCH_ON_GPU = 64, 256  # views that a model is asked about at once
FORMAT = 3  # of kept answers; raise it when how they are computed changes
# A module and its preprocessing at training size.
Opened = tuple[nn.Module, Mapping[str, Any]]


@dataclass(frozen=True)
class TeacherQuery:
    """How models are asked about views."""

    views: Views
    amp: str = ""  # type of mixed precision; "" for none
    topk: int = 0  # so many classes of σ(z / T) only; 0 for all logits
    temperature: float = 1.0
    features: bool = False  # also the pooled features

    @classmethod
    def by(cls, spec: TransferSpec, views: Views) -> TeacherQuery:
        features = methods.find(spec.method).features
        return cls(views, spec.amp, spec.target_topk, spec.temperature, features)

    def key(self, model: str, epoch: int) -> str:
        """Identity of a model's answers about the views of an epoch."""
        how = [self.amp, self.topk, self.temperature if self.topk else None, self.features]
        views = self.views
        return digest([FORMAT, model, views.epoch_key(epoch), arithmetic(views.device.type), *how])


class Source:
    """A model that is asked about views; loaded when it is first needed.

    Args:
        load: gives a module that is nobody else's: its parameters are frozen.
        key: identity of the model, its preprocessing and its outputs; "" where what it says is of
            use to nobody else.
    """

    def __init__(
        self, query: TeacherQuery, load: Callable[[], Opened], key: str = "",
        cache: TargetCache | None = None,
    ) -> None:  # fmt: skip
        self._query, self._load = query, load
        self._key, self._cache = key, cache if key else None
        self._epoch: TeacherOutputs | None = None

    def begin(self, epoch: int) -> None:
        """Have the answers of an epoch ready where they are kept, else the model."""
        if self._cache is not None:
            self._query.views.keep(epoch)
            key = self._query.key(self._key, epoch)
            self._epoch = self._cache.get(key, lambda: self._all(epoch))
        else:
            # Not in an update: loading draws random numbers, and dropout's depend on the update.
            _ = self._ready

    def answers(self, indices: Tensor, images: Tensor) -> TeacherOutputs:
        """About the views `images` (b, 3, S, S) of the training images `indices` (b,)."""
        if self._epoch is not None:
            return self._epoch.at(indices, self._query.views.device)
        return self._ask(indices, images)

    @torch.no_grad()
    def _ask(self, indices: Tensor, images: Tensor) -> TeacherOutputs:
        query, (tap, prepare) = self._query, self._ready
        views = query.views
        with precision(query.amp, views.device):
            logits = tap.module(prepare(images))
        kept: Tensor | TopK
        logits = kept = full(logits)
        if 0 < query.topk < logits.shape[1]:
            kept = TopK.of(logits, query.topk, query.temperature)
        said = SampleStats.of(logits, views.labels[views.here(indices)])
        return TeacherOutputs(kept, said, full(tap.take()) if query.features else None)

    def _all(self, epoch: int) -> TeacherOutputs:
        size = BATCH_ON_GPU if self._query.views.device.type == "cuda" else BATCH
        while True:
            try:
                return self._in_batches(epoch, size)
            except Exception as error:
                if size == 1 or not out_of_memory(error):
                    raise
            size //= 2
            torch.cuda.empty_cache()

    def _in_batches(self, epoch: int, size: int) -> TeacherOutputs:
        assert self._cache is not None
        views, stored = self._query.views, self._cache.stored
        batches = torch.split(torch.arange(len(views)), size)
        stream = views.stream(epoch, batches)
        return joined([stored(self._ask(*batch)) for batch in zip(batches, stream, strict=True)])

    @cached_property
    def _ready(self) -> tuple[FeatureTap, Callable[[Tensor], Tensor]]:
        device = self._query.views.device
        module, config = self._load()
        module = place(module, device, self._query.amp).eval().requires_grad_(False)
        return FeatureTap(module, self._query.features), preprocess(config, device)


@dataclass(frozen=True)
class Taught:
    """What b samples are taught, and by whom."""

    target: Tensor | TopK  # logits (b, C), or their most probable classes
    weight: Tensor | None  # (b,) of each sample; None for one
    weights: Tensor  # (b, 1 + K) of the frozen student and the teachers
    features: Tensor | None  # (b, d) of the teacher, where they are distilled

    @property
    def samples_by_teacher(self) -> Tensor:
        shares = self.weights[:, 1:]
        return (shares if self.weight is None else shares * self.weight[:, None]).sum(dim=0)


Found = Sequence[TeacherOutputs | None]  # the frozen student's and the teachers', None if not asked


class Targets:
    """The targets of one training; whom the method does not need is never asked."""

    def __init__(self, spec: TransferSpec, frozen: Source, teachers: Sequence[Source]) -> None:
        self._spec, self._method = spec, methods.find(spec.method)
        self._sources = [
            frozen if methods.needs_frozen(spec) else None,
            *(teachers if self._method.teacher else [None] * len(teachers)),
        ]
        self.count = len(self._sources)

    def begin(self, epoch: int) -> None:
        for source in self._sources:
            if source is not None:
                source.begin(epoch)

    def answers(self, indices: Tensor, images: Tensor) -> Found:
        """About the views `images` (b, 3, S, S) of the training images `indices` (b,)."""
        return [s.answers(indices, images) if s is not None else None for s in self._sources]

    def taught(self, found: Found, live: Tensor, labels: Tensor) -> Taught:
        """What answers make of samples with these labels (b,).

        With `reference_compat` the student in training, with logits `live` (b, C), takes the frozen
        student's place where flips are found, and in the mean of `flip-avg`.
        """
        said = [answers.said if answers is not None else None for answers in found]
        if self._spec.reference_compat:
            said[0] = SampleStats.of(live.detach(), labels)
        weights, distilled = self._method.sources(self._spec, said)
        frozen = found[0]
        if self._spec.reference_compat and frozen and isinstance(frozen.logits, Tensor):
            shared = weights[:, :1] % 1 > 0
            mixed = torch.where(shared, live, frozen.logits)
            found = [replace(frozen, logits=mixed), *found[1:]]
        asked = [(answers, weights[:, i]) for i, answers in enumerate(found) if answers is not None]
        return Taught(_mixed(asked), distilled, weights, asked[-1][0].features)


def _mixed(sources: Sequence[tuple[TeacherOutputs, Tensor]]) -> Tensor | TopK:
    """The target of each sample: a source's answer, or the mean of their logits by weights (b,).

    Most probable classes differ from source to source, so of them only one can be the target.
    """
    first, _ = sources[0]
    if len(sources) == 1:
        return first.logits
    if not isinstance(first.logits, TopK):
        logits = [a.logits * w[:, None] for a, w in sources if isinstance(a.logits, Tensor)]
        return torch.stack(logits).sum(dim=0)
    mixed = first.logits
    for answers, weight in sources[1:]:
        other, mine = answers.logits, weight > 0
        assert isinstance(other, TopK)
        mixed = TopK(
            torch.where(mine[:, None], other.classes, mixed.classes),
            torch.where(mine[:, None], other.log_probs, mixed.log_probs),
            torch.where(mine, other.log_rest, mixed.log_rest),
        )
    return mixed
