"""One transfer -> its row, and the student where it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kt_cli.data.guard_images import common, require_guard, unseen_share
from kt_cli.data.images import ImageSet
from kt_cli.data.sources import Data, open_data
from kt_cli.data.views import preprocess, views_of
from kt_cli.device import Meter, loss_named, memory_exhausted, out_of_memory, pick_device
from kt_cli.distillation import batch_norm, checkpoint, guard, methods, target_cache
from kt_cli.distillation.cards import transfer_card
from kt_cli.distillation.deltas import flips_by_class, lost_beyond, transfer_outcome
from kt_cli.distillation.targets import Opened
from kt_cli.distillation.teachers import Asked, TransferJob, drift_run, order_of, teach
from kt_cli.distillation.train import SMALLER_RATE, Curve, Diverged
from kt_cli.distillation.weight_averaging import copied, load
from kt_cli.errors import DataError, KtError
from kt_cli.knowledge.evaluate import Evaluator, OutputsNotFinite, evaluate
from kt_cli.knowledge.predict import How, predict_all
from kt_cli.knowledge.predictions import Predictions
from kt_cli.progress import Progress, silent
from kt_cli.runs import columns, controls
from kt_cli.runs.columns import Row
from kt_cli.runs.command import again
from kt_cli.runs.guarded import guard_columns, judged_without_labels, rule_of
from kt_cli.runs.kind import Kind, one_by_one
from kt_cli.runs.predict import require_as_measured, traits_measured
from kt_cli.runs.target_plan import keep_targets
from kt_cli.settings import TransferSpec
from kt_cli.settings.data import EVALUATED
from kt_cli.settings.declared import digest, signature, unusual
from kt_cli.spec import TOGETHER, Model, RunOf
from kt_cli.zoo import features
from kt_cli.zoo import load as zoo
from kt_cli.zoo.identity import Traits, differences
from kt_cli.zoo.local_models import ORIGIN

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
    transfer: _Transfer | None
    while True:
        try:
            transfer = _Transfer(run, spec, folder, progress)
            row = transfer.finish(teach(transfer.begin()))
            break
        except Diverged:
            # It would only happen again.
            checkpoint.remove_all(folder, run.id)
            raise
        except Exception as error:
            if not out_of_memory(error):
                raise
            if not spec.retry_oom or spec.micro_batch == 1:
                raise memory_exhausted(spec.micro_batch, "--retry-oom") from None
        transfer = None  # with all that it has on the device
        torch.cuda.empty_cache()
        checkpoint.remove_all(folder, run.id)
        spec = replace(spec, micro_batch=spec.micro_batch // 2)
    checkpoint.remove_all(folder, run.id)
    return [row]


class _Transfer:
    """A transfer before and after its training; refuses what cannot work. spec: settled."""

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
            assert self.data.guard is not None
            if not self.data.guard.labelled and not judged_without_labels(spec):
                name = spec.method
                raise KtError(f"the guard of {name} needs labels, and its images have none")
        distils_features = methods.find(spec.method).features
        self.widths = {m: self._width(m) if distils_features else 0 for m in run.models}
        if spec.keep_targets == "auto":
            alone = replace(run, settings=spec)
            (kept,), _ = keep_targets([alone], len(self.images), len(self.data.classes), budget=0)
            self.spec = kept.settings

    @cached_property
    def loaded(self) -> zoo.Loaded:
        """The student, which changes."""
        return self._open(self.student)

    def begin(self) -> TransferJob:
        """Measure all models, which have not changed (DataError), and say who learns from whom."""
        self.told = self._predictions(self.data.eval)
        self.traits: dict[Model, Traits] = {
            **{m: said.traits for m, said in zip(self.teachers, self.told, strict=True)},
            self.student: self.loaded.traits(self.spec.eval_size),
        }
        measured = traits_measured(self.folder, self.data.eval, self.spec.evaluation)
        require_as_measured(self.traits, measured)
        self.module = self.loaded.module.to(self.device)
        self.start = copied(self.module)
        self.before = self._evaluate(self.data.eval)
        if self.data.guard is not None and self.spec.guarded:
            self.judged = self._evaluate(self.data.guard)
        load(self.module, self.start)  # what passes leave in it is taken back
        self.order = order_of([said.accuracy for said in self.told], self.spec)
        ordered = [self.teachers[i] for i in self.order]
        student, *others = (
            Asked(digest([m.key, self.traits[m]]), partial(self._opened, m), self.widths[m])
            for m in (self.student, *ordered)
        )
        models = [[m.key, self.traits[m]] for m in (*ordered, self.student)]
        identity = digest([models, self.images.fingerprint])
        self.steps: list[float] = []
        spec = self.spec
        self.views = views_of(self.run.data, spec.crop, spec.side, spec.augment, spec.seed)
        return TransferJob(
            self.module, self.loaded.config("train"), self.views, student, others, self.spec,
            cache=TARGET_CACHES[self.spec.keep_targets],
            checkpoint=partial(checkpoint.of_run, self.folder, self.run.id, identity),
            after_step=lambda _: self.steps.append(self._evaluate(self.data.eval).accuracy),
            on_epoch=lambda done, total: self.progress(done, total, "transfer"),
        )  # fmt: skip

    def finish(self, curves: Sequence[Curve]) -> Row:
        """Measure what changed, and save the student where it is kept."""
        run, spec, evaluated = self.run, self.spec, self.data.eval
        try:
            full = self._evaluate(evaluated)
        except OutputsNotFinite as error:
            raise Diverged(f"after training {error.message}", SMALLER_RATE) from error
        guarded = self._guarded(full) if spec.guarded else {}
        alone = self._controls()
        after = self._evaluate(evaluated) if guarded else full
        right = np.stack([said.right for said in self.told])
        flips = self.before.right, after.right, evaluated.labels, len(self.data.classes)
        row = {
            **columns.setting_columns(spec, "transfer"),
            **columns.pair_columns(run.models),
            **columns.data_columns(run.data, spec.evaluation),
            "micro_batch_asked": run.settings.with_defaults.micro_batch,
            "settings": spec.settings,
            "train_data": self.images.fingerprint,
            "n_train": len(self.images),
            "skipped_train": self.images.skipped,
            "fraction": run.data.fraction,
            "subset_seed": run.data.seed,
            "guard_share": run.data.guard,
            "teacher_matching": TOGETHER.join(said.about["class_matching"] for said in self.told),
            "student_matching": self.loaded.matching,
            **transfer_outcome(right, *flips),
            **(flips_by_class(*flips) if spec.by_class else {}),
            **columns.course_columns(curves, self.order, self.images.labelled),
            "step_accs": self.steps or None,
            **alone,
            "worse": lost_beyond(*flips[:3], self.data.classes, *spec.limits),
            **guarded,
            "path": run.out or None,
            **self.meter.columns(
                spec.epochs * len(self.images) * len(curves),
                earlier=sum(curve.earlier for curve in curves),
            ),
        }
        if run.out:
            self._save(row)
        return row

    def _open(self, model: Model) -> zoo.Loaded:
        return zoo.load(model, classes=self.data.classes, select=self.data.eval.select)

    def _opened(self, model: Model) -> Opened:
        """A model as it is asked about views, if it still is what it was."""
        loaded = self._open(model)
        changed = differences(self.traits[model], loaded.traits(self.spec.eval_size))
        if changed:
            raise DataError(
                f"{model.name} changed while it was in use: {'; '.join(changed)}",
                "Run the command again; a function of your own must give the same model each time.",
            )
        return loaded.module, loaded.config("train")

    def _width(self, model: Model) -> int:
        module = (self.loaded if model is self.student else self._open(model)).module
        return features.width(module, model.name)

    def _predictions(self, images: ImageSet) -> list[Predictions]:
        """What the teachers say about images."""
        how = How(self.spec.evaluation, self.device)
        found = predict_all(self.teachers, images, how, self.progress)
        if error := next((said for said in found if isinstance(said, Exception)), None):
            raise error
        return [said for said in found if isinstance(said, Predictions)]

    def _evaluate(self, images: ImageSet) -> Predictions:
        """Before and after alike, so that a difference is one of weights. No answer is kept."""
        config = self.loaded.config(self.spec.eval_size)
        return evaluate(self.module, config, images, self.device, amp=self.spec.eval_amp, keep=True)

    def _controls(self) -> dict[str, float | None]:
        if not batch_norm.statistics(self.module):
            return {"delta_statistics": None, "delta_control": None}
        student = self.module, self.start, lambda: self._evaluate(self.data.eval).accuracy
        spec, before, control = self.spec, self.before.accuracy, None
        alone = controls.statistics_alone(*student, before)
        if spec.bn != "eval":
            key = digest([
                self.student.key, self.traits[self.student], self.images.fingerprint, spec.crop,
                spec.side, self.data.eval.fingerprint, signature(spec.evaluation),
            ])  # fmt: skip
            control = controls.control(*student, before, self._estimate_statistics, key)
        return {"delta_statistics": alone, "delta_control": control}

    def _estimate_statistics(self, module: nn.Module) -> None:
        prepare = preprocess(self.loaded.config("train"), self.device)
        batch_norm.recompute(module, self.views, prepare)

    def _guarded(self, full: Predictions) -> Row:
        """Leave the student where the guard puts it. full: what it says as trained."""
        assert self.data.guard is not None
        if judged_without_labels(self.spec):
            others = self._predictions(self.data.guard)
            judge = guard.Judge.without_labels(self.judged, others)
        else:
            judge = guard.Judge(self.data.guard, self.judged.right)
        config = self.loaded.config(self.spec.eval_size)
        evaluator = Evaluator(self.module, config, self.device, self.spec.eval_amp)
        rule, said = rule_of(self.run, self.spec, self.folder, self.data.guard, self.images)
        choice = guard.choose(
            evaluator, self.start, copied(self.module), judge,
            self._estimate_statistics if self.spec.bn != "eval" else lambda module: None, rule,
        )  # fmt: skip
        return {**guard_columns(choice, self.before.right, full.right), **said}

    def _save(self, row: Row) -> None:
        loaded, run = self.loaded, self.run
        zoo.save(
            zoo.unwrapped(self.module), self.folder / run.out, data_config=loaded.config("train"),
            num_classes=loaded.outputs.count, label_names=loaded.outputs.names,
            card=transfer_card(row, again(run)),
            extra={
                "run_id": run.id, "spec": asdict(self.spec), "guard": run.data.guard,
                **({"worse": row["worse"]} if row["worse"] else {}),
                "unseen": common((run.data.guard, unseen_share(self.student, run.data)), run.data),
                "train_data": self.images.fingerprint,
                ORIGIN: {
                    "models": [model.ref for model in run.models],
                    "data": unusual(run.data, EVALUATED) | {"eval_size": self.spec.eval_size},
                },
            },
        )  # fmt: skip


def _images(run: RunOf[TransferSpec]) -> tuple[Data, list[ImageSet]]:
    data = open_data(run.data, training=True)
    return data, data.of_transfer(run.settings.guarded)


TRANSFER = Kind(
    "transfer", "transfer", TransferSpec, _images, one_by_one(transfer_run),
    about=lambda run: {**columns.pair_columns(run.models), "settings": run.settings.settings},
    seconds=lambda run, prices: prices.transfer(run.models, run.settings.epochs),
    shared=drift_run, alike=lambda run: run.models[-1].key,
    chunks=lambda run: 2 if run.settings.keep_targets == target_cache.MEMORY else 4,
    trains_on=lambda run: (run.data, run.settings.crop, run.settings.side),
)  # fmt: skip
