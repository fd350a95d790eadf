"""What is asked for, as small frozen values, and the identity of a run.

Standard library only. A `Run` is one unit of work. Its `id` is a hash over every field that can
change its result and over none that cannot: fields marked EXCLUDED (where a model lies, how it
is called, on which machine it runs) stay out of it, so moving a zoo to another folder keeps its
finished runs, and retraining a model does not.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

EXCLUDED = {"identity": False}
HOW_TO_NAME_DATA = (
    "Name it with --data or the environment variable KT_DATA: a folder with train/ and val/ class "
    "folders, a folder of class folders, a timm source such as hfds/NAME, or 'digits' to try."
)


@dataclass(frozen=True)
class Model:
    """A model by what it is (`key`), where it comes from (`ref`) and how it is called (`name`).

    key: the timm or hub name with its tag; for weights of the user's own, a hash of their content.
    ref: what `kt_cli.zoo.load.load` takes; see the grammar in `kt_cli.zoo.names`.
    name: short and unique within a command; shown in tables, stored in rows.
    """

    key: str
    ref: str = field(default="", metadata=EXCLUDED)
    name: str = field(default="", metadata=EXCLUDED)

    @property
    def untrained(self) -> bool:
        """Whether it is randomly initialised: a baseline that only ever teaches."""
        return self.key.startswith("random:")


@dataclass(frozen=True)
class DataSpec:
    """Which images: what `--data` and its companions say.

    Attributes:
        source: `digits`, a folder, or a timm source (`hfds/…`, `torch/…`).
        root: where a timm source keeps its files (`--data-dir`).
        train_split, val_split: names of the splits of a timm source.
        fraction: share of the training images used, stratified by class, drawn with `seed`.
        guard: share of the training images that no model trains on, fixed for a data set.
        limit: at most so many evaluation images, stratified by class; None for all.
        class_map: file with the class names in label order; None for sorted folder names.
        labels: ground-truth file of evaluation images that lie in a flat folder.
        valid_labels: file that tells which outputs of a model the classes are.
        by_position: outputs are in the classes' order, whatever the names that a model carries.
        real_labels: file with several right labels an image (ReaL), or "timm" for timm's copy.
        unlabelled: folder of images without labels that transfers use as training images.
        guard_data: folder of class folders that the guard judges on, in place of the slice `guard`.
    """

    source: str
    root: str | None = None
    train_split: str = "train"
    val_split: str = "validation"
    fraction: float = 1.0
    seed: int = 0
    guard: float = 0.0
    limit: int | None = None
    class_map: str | None = None
    labels: str | None = None
    valid_labels: str | None = None
    by_position: bool = False
    real_labels: str | None = None
    unlabelled: str | None = None
    guard_data: str | None = None

    def part(self, fraction: float) -> DataSpec:
        """The same images, with `fraction` of these training images."""
        return replace(self, fraction=self.fraction * fraction)


NO_DATA = DataSpec("")
GUARDED = "+guard"
TOGETHER = " + "  # between the names of several teachers in a row
_MCL = {"lr": 0.01, "distil_on": "not-negative"}
# Settings that the authors chose for each method; those of all others under "".
PUBLISHED: dict[str, dict[str, Any]] = {
    "": {"lr": 1e-4, "kd_lambda": 0.5, "kd_topk": 0, "distil_on": "all"},
    "kl-mcl": _MCL,
    "xekl-mcl": {**_MCL, "kd_lambda": 0.68},
}
LEFT_TO_THE_METHOD = (*PUBLISHED[""], "mcl_every")


@dataclass(frozen=True)
class EvalSpec:
    """How a model is evaluated.

    Attributes:
        size: "test" as timm's validate.py, or "train".
        amp: type of mixed precision, "float16" or "bfloat16"; "" for full precision.
    """

    size: str = "test"
    amp: str = ""


@dataclass(frozen=True)
class PairsSpec:
    """Statistics of all ordered pairs; what does not change ρ⁺ and its kin is no identity.

    Attributes:
        size, amp: as in `EvalSpec`.
        embedding: what classes are compared by, "head", "clip" or "none".
        by_class: also keep the flips of each class.
    """

    size: str = "test"
    amp: str = ""
    embedding: str = field(default="head", metadata=EXCLUDED)
    by_class: bool = field(default=False, metadata=EXCLUDED)

    @property
    def evaluation(self) -> EvalSpec:
        return EvalSpec(self.size, self.amp)


@dataclass(frozen=True)
class TransferSpec:
    """How knowledge is moved. Defaults are the paper's (see docs/methods.md).

    Where a value is None, it is the one published for the method (PUBLISHED); `settled` fills it.

    Attributes:
        method: a name of `kt_cli.transfer.methods.METHODS`, with `+guard` where the guard decides
            how far the student goes.
        lr: learning rate at an effective batch of 256; scaled by batch_size / 256.
        batch_size: samples per update, by accumulation over micro-batches.
        micro_batch: samples per forward pass, at most those of an update; batch normalisation sees
            it.
        temperature: T of the distillation loss.
        kd_lambda: λ, the weight of distillation against cross-entropy in `xekl`.
        kd_topk: distil over the target's K most probable classes, renormalised; 0 for all.
        distil_on: "all" samples, "positive" flips only, or all but negative ones ("not-negative").
        label_smoothing: of the cross-entropy.
        mcl_tau, mcl_every: τ of the slow weights, and the updates N between two of their steps; by
            default 512 / batch_size.
        bn: running statistics of batch normalisation: "train" updates them as the paper does,
            "eval" keeps them, "recompute" estimates them anew at the end.
        teachers: several teachers teach "sequential"ly, in "parallel" or for a "soup"; "single".
        order: of sequential teachers, by accuracy: "asc", "desc", or as "given".
        augment: a name of `kt_cli.data.views.AUGMENTS`.
        crop: share of the shorter side that the canonical centre crop of a view keeps.
        side: side length in pixels at which canonical crops are kept.
        amp: mixed precision of training and its targets, "float16" or "bfloat16"; "" for none.
        target_topk: targets are kept as their K most probable classes and the mass of the rest;
            0 for all classes.
        reference_compat: as the authors' code does it where it departs from the paper.
        eval_size, eval_amp: size and precision of evaluation; see `EvalSpec`.
        keep_targets: where targets are kept between uses: "memory", "disk", or "online" for
            nowhere; "auto" as it pays.
        retry_oom: halve the micro-batch where memory is exhausted; the row says what it was.
        compile: compile the student with torch.compile.
        by_class: also record gain and loss of each class.
        force_guard: let the guard judge on images that the student may have been trained on.
    """

    method: str = "kl-dp"
    seed: int = 0
    epochs: int = 20
    lr: float | None = None
    batch_size: int = 256
    micro_batch: int = 64
    momentum: float = 0.9
    weight_decay: float = 1e-4
    temperature: float = 1.0
    kd_lambda: float | None = None
    kd_topk: int | None = None
    distil_on: str | None = None
    label_smoothing: float = 0.0
    mcl_tau: float = 0.9999
    mcl_every: int | None = None
    bn: str = "train"
    teachers: str = "single"
    order: str = "asc"
    augment: str = "paper"
    crop: float = 0.875
    side: int = 256
    amp: str = ""
    target_topk: int = 0
    reference_compat: bool = False
    eval_size: str = "test"
    eval_amp: str = ""
    keep_targets: str = field(default="auto", metadata=EXCLUDED)
    retry_oom: bool = field(default=False, metadata=EXCLUDED)
    compile: bool = field(default=False, metadata=EXCLUDED)
    by_class: bool = field(default=False, metadata=EXCLUDED)
    force_guard: bool = field(default=False, metadata=EXCLUDED)

    @property
    def evaluation(self) -> EvalSpec:
        """How the models are evaluated before and after."""
        return EvalSpec(self.eval_size, self.eval_amp)

    @property
    def base_method(self) -> str:
        """The method without its guard."""
        return self.method.removesuffix(GUARDED)

    @property
    def guarded(self) -> bool:
        return self.method.endswith(GUARDED)

    @property
    def settled(self) -> TransferSpec:
        """With the values that count: the method's published ones where none are given."""
        every = max(1, round(2 * 256 / self.batch_size))
        published = {
            **PUBLISHED[""], "mcl_every": every, **PUBLISHED.get(self.base_method, {}),
        }  # fmt: skip
        if self.reference_compat and self.base_method.endswith("-mcl"):
            published |= {"kd_topk": 100}
        unset = {k: v for k, v in published.items() if getattr(self, k) is None}
        return replace(self, **unset, micro_batch=min(self.micro_batch, self.batch_size))

    @property
    def settings(self) -> str:
        """Hash of everything but the method and the seed: rows with equal settings compare.

        It is of the values that count, however they were said. A value that is the published one
        of the method counts as that, whatever it is: methods compare as their authors ran them,
        though these chose different values (kl and kl-mcl), and `--lr 1e-4` of kl says nothing
        new. So one learning rate given to all methods parts those whose published one it is.
        """
        unset: dict[str, Any] = dict.fromkeys(LEFT_TO_THE_METHOD)
        settled, published = self.settled, replace(self, **unset).settled
        said = {k: v for k, v in signature(settled).items() if k not in ("method", "seed")}
        same = [k for k in LEFT_TO_THE_METHOD if getattr(settled, k) == getattr(published, k)]
        return digest({**said, **dict.fromkeys(same)})[:8]


@dataclass(frozen=True)
class PretrainSpec:
    """How a model of the user's own zoo is trained.

    Attributes:
        name: what the trained model is called; its folder's name.
        arch: a timm architecture, or with `pretrained` any model reference to fine-tune.
        lr: peak learning rate.
        batch_size: samples per update, by accumulation over micro-batches.
        micro_batch: samples per forward pass; batch normalisation sees it.
        optimizer, schedule: names of `kt_cli.transfer.schedules`.
        warmup: share of the updates over which the learning rate rises to its peak.
        freeze_epochs: epochs at the start that train the classifier alone.
        crop: share of the shorter side that the centre crop keeps; also the model's `crop_pct`.
        img_size: input side length in pixels; None for the architecture's own.
        fraction: share of the training images this model sees, stratified by class.
        amp: type of mixed precision, "float16" or "bfloat16"; "" for none.
    """

    name: str
    arch: str
    pretrained: bool = False
    epochs: int = 20
    lr: float = 1e-3
    batch_size: int = 64
    micro_batch: int = 64
    weight_decay: float = 0.05
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup: float = 0.1
    freeze_epochs: int = 0
    label_smoothing: float = 0.0
    augment: str = "none"
    crop: float = 1.0
    side: int = 256
    img_size: int | None = None
    fraction: float = 1.0
    amp: str = ""
    seed: int = 0


Settings = EvalSpec | PairsSpec | TransferSpec | PretrainSpec


@dataclass(frozen=True)
class Run:
    """One unit of work of a sweep.

    Attributes:
        kind: "pretrain", "predict", "pairs" or "transfer".
        models: predict: the model; pairs: all of them; transfer: the teachers, then the student.
        data_id: fingerprint of the images that the run reads (evaluation and, where it trains,
            training images after subsetting).
        settings: the spec of the kind.
        data: where the images are.
        out: folder that receives what the run saves (models).
        attempt: how many times it was tried, this time included.
    """

    kind: str
    models: tuple[Model, ...]
    data_id: str
    settings: Settings
    data: DataSpec = field(default=NO_DATA, metadata=EXCLUDED)
    out: str = field(default="", metadata=EXCLUDED)
    attempt: int = field(default=1, metadata=EXCLUDED)

    @property
    def table(self) -> str:
        """The table that receives the run's rows."""
        return TABLE_OF[self.kind]

    @cached_property
    def id(self) -> str:
        settings = self.settings
        settled = settings.settled if isinstance(settings, TransferSpec) else settings
        return digest(signature(replace(self, settings=settled)))[:16]

    def row_ids(self) -> list[str]:
        """The ids of the rows that the run writes when it succeeds."""
        if not isinstance(self.settings, PairsSpec):
            return [self.id]
        return [
            pair_id(teacher, student, self.data_id, self.settings)
            for teacher in self.models
            for student in self.models
            if teacher is not student and not student.untrained
        ]

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Run:
        raw = json.loads(text)
        return cls(
            kind=raw["kind"],
            models=tuple(Model(**model) for model in raw["models"]),
            data_id=raw["data_id"],
            settings=SETTINGS[raw["kind"]](**raw["settings"]),
            data=DataSpec(**raw["data"]),
            out=raw["out"],
            attempt=raw["attempt"],
        )


TABLE_OF = {
    "pretrain": "pretrain",
    "predict": "models",
    "pairs": "complementarity",
    "transfer": "transfer",
}
SETTINGS: dict[str, type[Any]] = {
    "pretrain": PretrainSpec,
    "predict": EvalSpec,
    "pairs": PairsSpec,
    "transfer": TransferSpec,
}


def pair_id(teacher: Model, student: Model, data_id: str, settings: PairsSpec) -> str:
    """Identity of one ordered pair's complementarity row."""
    return digest(["pair", teacher.key, student.key, data_id, signature(settings)])[:16]


def signature(value: Any) -> Any:
    """`value` as JSON-able data, without the fields that are excluded from identity."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: signature(getattr(value, f.name))
            for f in fields(value)
            if f.metadata.get("identity", True)
        }
    if isinstance(value, (list, tuple)):
        return [signature(item) for item in value]
    if isinstance(value, dict):
        return {key: signature(item) for key, item in value.items()}
    return value


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
