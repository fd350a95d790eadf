"""One transfer -> its row, and the student where it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kt_cli.data.guard_images import require_guard, unseen_share
from kt_cli.data.images import ImageSet
from kt_cli.data.sources import Data, open_data
from kt_cli.data.training import views_of
from kt_cli.data.views import Views, preprocess
from kt_cli.device import Meter, loss_named, out_of_memory, pick_device
from kt_cli.distillation import batch_norm, checkpoint, guard, methods, target_cache, teachers
from kt_cli.distillation.cards import transfer_card
from kt_cli.distillation.deltas import flips_by_class, transfer_outcome
from kt_cli.distillation.distil import Curve
from kt_cli.distillation.targets import Opened
from kt_cli.distillation.train import NotFinite, memory_exhausted
from kt_cli.distillation.weight_averaging import copied, load
from kt_cli.errors import DataError, KtError
from kt_cli.knowledge.evaluate import Evaluator
from kt_cli.knowledge.predict import How, predict_all
from kt_cli.knowledge.predictions import Predictions, evaluate
from kt_cli.progress import Progress, silent
from kt_cli.rows import schema
from kt_cli.runs.columns import Row, course_columns, data_columns, guard_columns, pair_columns
from kt_cli.runs.kind import Kind, Rows
from kt_cli.runs.measured import Measured
from kt_cli.runs.target_plan import keep_targets
from kt_cli.settings import TransferSpec
from kt_cli.settings.declared import digest
from kt_cli.spec import TOGETHER, Model, RunOf
from kt_cli.zoo import features
from kt_cli.zoo import load as zoo
from kt_cli.zoo.identity import Traits, differences

TARGET_CACHES: dict[str, target_cache.TargetCache | None] = {
    target_cache.MEMORY: target_cache.Memory(),
    target_cache.DISK: target_cache.Disk(),
    target_cache.ONLINE: None,
}


@loss_named()
def transfer_run(run: RunOf[TransferSpec], folder: Path, progress: Progress = silent) -> list[Row]:
    """Transfer from the teachers into the student and measure what changed.

    Goes on from its checkpoint, where an earlier try left one. Where `run.out` names a folder,
    the student is saved there.

    Raises:
        UsageError: the models, the method and the data do not go together.
        KtError: the loss is not finite, or memory is exhausted.
    """
    spec: TransferSpec = run.settings.with_defaults
    while True:
        try:
            row = _Transfer(run, spec, folder, progress).row()
            break
        except NotFinite:
            # It would only happen again.
            checkpoint.remove_all(folder, run.id)
            raise
        except Exception as error:
            if not out_of_memory(error):
                raise
            if not spec.retry_oom or spec.micro_batch == 1:
                raise memory_exhausted(spec.micro_batch, "--retry-oom") from None
        spec = replace(spec, micro_batch=spec.micro_batch // 2)
        checkpoint.remove_all(folder, run.id)
        torch.cuda.empty_cache()
    checkpoint.remove_all(folder, run.id)
    return [row]


class _Transfer:
    """What a transfer consists of. spec: settled."""

    def __init__(
        self, run: RunOf[TransferSpec], spec: TransferSpec, folder: Path, progress: Progress
    ) -> None:
        self.run, self.spec, self.folder, self.progress = run, spec, folder, progress
        self.device = pick_device()
        self.meter = Meter(self.device)
        self.data: Data = open_data(run.data, training=True)
        self.images = self.data.training()
        *self.teachers, self.student = run.models
        methods.require_possible(spec, len(self.teachers), self.images.labelled)
        if spec.guarded:
            require_guard(run.data, self.data.guard, self.student, spec.force_guard)
            _require_judge(spec, self.data)
        distils_features = methods.find(spec.method).features
        self.widths = {m.key: self._width(m) if distils_features else 0 for m in run.models}
        self.how = How(spec.evaluation, self.device)
        if spec.keep_targets == "auto":
            alone = replace(run, settings=spec)
            (kept,), _ = keep_targets([alone], len(self.images), len(self.data.classes), budget=0)
            self.spec = kept.settings

    def row(self) -> Row:
        told = self._predictions(self.teachers, self.data.eval)
        self._require_the_same(told)
        order = _order([said.accuracy for said in told], self.spec)
        module = self.loaded.module.to(self.device)
        start = copied(module)
        before, *judged = self._before(module, start)
        steps: list[float] = []
        curves = self._teach(module, [self.teachers[i] for i in order], steps)
        full = self._evaluate(module)
        drifted = self._statistics_alone(module, start, before)
        choice = self._guarded(module, start, *judged) if self.spec.guarded else None
        after = self._evaluate(module) if choice else full
        right = np.stack([said.right for said in told])
        classes = len(self.data.classes)
        labels = self.data.eval.labels
        row = {
            **self._settings(),
            "teacher_matching": TOGETHER.join(said.about["class_matching"] for said in told),
            "student_matching": self.loaded.matching,
            **transfer_outcome(right, before.right, after.right, labels, classes),
            **(
                flips_by_class(before.right, after.right, labels, classes)
                if self.spec.by_class
                else {}
            ),
            **course_columns(curves, order, self.images.labelled),
            "step_accs": steps or None,
            "delta_statistics": drifted,
            **guard_columns(choice, before.right, full.right),
            "path": self.run.out or None,
            **self.meter.columns(
                self.spec.epochs * len(self.images) * len(curves),
                earlier=sum(curve.earlier for curve in curves),
            ),
        }
        if self.run.out:
            self._save(module, row)
        return row

    def _open(self, model: Model) -> zoo.Loaded:
        return zoo.load(model, classes=self.data.classes, select=self.data.eval.select)

    def _width(self, model: Model) -> int:
        module = (self.loaded if model is self.student else self._open(model)).module
        if features.classifier(module) is None:
            raise KtError(f"{model.name} has no pooled features before a classifier to distil")
        return features.width(module)

    @cached_property
    def loaded(self) -> zoo.Loaded:
        """The student, which changes."""
        return self._open(self.student)

    def _require_the_same(self, told: Sequence[Predictions]) -> None:
        """Note what the models are, as loaded or measured, and refuse others than those of a sweep.

        Raises:
            DataError: they changed since the sweep measured them.
        """
        taught_by = {m: said.traits for m, said in zip(self.teachers, told, strict=True)}
        mine = self.loaded.traits(self.spec.eval_size)
        self.traits: dict[Model, Traits] = {**taught_by, self.student: mine}
        Measured(self.folder, self.data.eval, self.spec.evaluation).require(self.traits)

    def _predictions(self, models: Sequence[Model], images: ImageSet) -> list[Predictions]:
        found = predict_all(models, images, self.how, self.progress)
        return [_raised(said) for said in found]

    @cached_property
    def views(self) -> Views:
        spec = self.spec
        return views_of(self.run.data, spec.crop, spec.side, spec.augment, spec.seed)

    def _teach(
        self, module: nn.Module, ordered: Sequence[Model], steps: list[float]
    ) -> list[Curve]:
        student, *others = (
            teachers.Asked(
                digest([m.key, self.traits[m]]), partial(self._opened, m), self.widths[m.key]
            )
            for m in (self.student, *ordered)
        )
        models = [[m.key, self.traits[m]] for m in (*ordered, self.student)]
        identity = digest([models, self.images.fingerprint])
        job = teachers.TransferJob(
            module, self.loaded.config("train"), self.views, student, others, self.spec,
            cache=TARGET_CACHES[self.spec.keep_targets],
            checkpoint=partial(checkpoint.of_run, self.folder, self.run.id, identity),
            after_step=lambda taught: steps.append(self._evaluate(taught).accuracy),
            on_epoch=lambda done, total: self.progress(done, total, "transfer"),
        )  # fmt: skip
        return teachers.teach(job)

    def _opened(self, model: Model) -> Opened:
        loaded = self._open(model)
        changed = differences(self.traits[model], loaded.traits(self.spec.eval_size))
        if changed:
            raise DataError(
                f"{model.name} changed while it was in use: {'; '.join(changed)}",
                "Run the command again; a function of your own must give the same model each time.",
            )
        return loaded.module, loaded.config("train")

    def _before(self, module: nn.Module, start: Mapping[str, torch.Tensor]) -> list[Predictions]:
        """About the evaluation images, and the guard's. What passes leave in it is taken back."""
        images = [self.data.eval, *([self.data.guard] if self.spec.guarded else [])]
        found = [self._evaluate(module, each) for each in images]
        load(module, start)
        return found

    def _evaluate(self, module: nn.Module, images: ImageSet | None = None) -> Predictions:
        """Before and after alike, so that a difference is one of weights. Nothing is cached."""
        config = self.loaded.config(self.spec.eval_size)
        images = self.data.eval if images is None else images
        return evaluate(module, config, images, self.device, amp=self.spec.eval_amp)

    def _statistics_alone(
        self, module: nn.Module, start: Mapping[str, torch.Tensor], before: Predictions
    ) -> float | None:
        """Δ of the student before transfer with the running statistics after it."""
        names = batch_norm.statistics(module)
        if not names:
            return None
        end = copied(module)
        if all(torch.equal(start[name], end[name]) for name in names):
            return 0.0
        load(module, {**start, **{name: end[name] for name in names}})
        found = self._evaluate(module).accuracy - before.accuracy
        load(module, end)
        return found

    def _guarded(
        self, module: nn.Module, start: Mapping[str, torch.Tensor], student: Predictions
    ) -> guard.Choice:
        assert self.data.guard is not None
        prepare = preprocess(self.loaded.config("train"), self.device)
        if judged_without_labels(self.spec):
            others = self._predictions(self.teachers, self.data.guard)
            judge = guard.Judge.without_labels(student, others)
        else:
            judge = guard.Judge(self.data.guard, student.right)
        config = self.loaded.config(self.spec.eval_size)
        return guard.choose(
            Evaluator(module, config, self.device, self.spec.eval_amp), start, copied(module),
            judge, lambda m: batch_norm.recompute(m, self.views, prepare),
        )  # fmt: skip

    def _settings(self) -> Row:
        run, spec = self.run, self.spec
        return {
            **{k: v for k, v in asdict(spec).items() if k in schema.TABLES["transfer"]},
            **pair_columns(run.models),
            **data_columns(run.data, spec.evaluation),
            "micro_batch_asked": run.settings.with_defaults.micro_batch,
            "settings": spec.settings,
            "train_data": self.images.fingerprint,
            "n_train": len(self.images),
            "fraction": run.data.fraction,
            "subset_seed": run.data.seed,
            "guard_share": run.data.guard,
        }

    def _save(self, module: nn.Module, row: Row) -> None:
        loaded, run = self.loaded, self.run
        zoo.save(
            zoo.unwrapped(module), self.folder / run.out, data_config=loaded.config("train"),
            num_classes=loaded.outputs.count, label_names=loaded.outputs.names,
            card=transfer_card(row),
            extra={
                "run_id": run.id, "spec": asdict(self.spec), "guard": run.data.guard,
                "unseen": min(run.data.guard, unseen_share(self.student, run.data)),
                "train_data": self.images.fingerprint,
            },
        )  # fmt: skip


def judged_without_labels(spec: TransferSpec) -> bool:
    """Whether the guard judges by the surest answer: like the partition, it knows no labels."""
    method = methods.find(spec.method)
    return method.many and not method.labels


def _order(accuracies: Sequence[float], spec: TransferSpec) -> list[int]:
    """The teachers in the order in which they teach, as indices."""
    given = list(range(len(accuracies)))
    if spec.teachers != "sequential" or spec.order == "given":
        return given
    return sorted(given, key=lambda i: accuracies[i], reverse=spec.order == "desc")


def _require_judge(spec: TransferSpec, data: Data) -> None:
    assert data.guard is not None
    if not data.guard.labelled and not judged_without_labels(spec):
        raise KtError(f"the guard of {spec.method} needs labels, and its images have none")


def _raised(said: Predictions | Exception) -> Predictions:
    if isinstance(said, Exception):
        raise said
    return said


def _images(run: RunOf[TransferSpec]) -> tuple[Data, list[ImageSet]]:
    data = open_data(run.data, training=True)
    return data, data.of_transfer(run.settings.guarded)


def _execute(
    runs: Sequence[RunOf[TransferSpec]], folder: Path, progress: Progress
) -> list[Rows | Exception]:
    return [transfer_run(run, folder, progress) for run in runs]


TRANSFER = Kind(
    "transfer", "transfer", TransferSpec, _images, _execute,
    about=lambda run: {**pair_columns(run.models), "settings": run.settings.settings},
    seconds=lambda run, prices: prices.transfer(run.models, run.settings.epochs),
    trains_on=lambda run: (run.data, run.settings.crop, run.settings.side),
)  # fmt: skip
