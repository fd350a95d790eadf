"""Models in memory: loading every kind of reference, building, and preprocessing."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from kt_cli.device import out_of_memory
from kt_cli.errors import DataError, KtError, UsageError, WeightsUnavailable
from kt_cli.spec import Model
from kt_cli.zoo import identity, local_models, names, published, scheme, target, timm_registry
from kt_cli.zoo.classes import ABSENT, Columns, Outputs, Select, matched, outputs_of
from kt_cli.zoo.fingerprints import fingerprint, fingerprint_of_function
from kt_cli.zoo.loaders import FROM_FILES, opened
from kt_cli.zoo.save import TEST_ONLY, save
from kt_cli.zoo.timm_registry import HOW_TO_GET_WEIGHTS, missing_weights, require_weights
from kt_cli.zoo.wrapped import Wrapped

__all__ = [
    "Loaded", "build", "fingerprint", "for_fine_tuning", "load", "missing_weights",
    "require_weights", "save", "unwrapped",
]  # fmt: skip

LOGGERS = ("timm", "huggingface_hub", "transformers", "root")  # open_clip speaks as root
LINE = 300
_weights: dict[str, str] = {}  # fingerprints that this process computed, by source


@dataclass(frozen=True)
class Loaded:
    """A model ready for evaluation."""

    module: nn.Module  # on the CPU; gives logits (n, C) in the order of the classes
    data_config: dict[str, Any]  # preprocessing as timm's `resolve_model_data_config` gives it
    num_classes: int  # C
    outputs: Outputs  # all that it has, called as the data where names did not tell
    weights: str  # as `source`, of `kt_cli.zoo.identity`
    source: str = ""
    matching: str = ""  # how outputs were matched to classes, where these were named
    columns: Columns | None = None  # those of its outputs that are selected; None for all

    def config(self, eval_size: str) -> dict[str, Any]:
        """The preprocessing at "test" size (as timm's validate.py) or at "train" size."""
        return data_config(unwrapped(self.module), eval_size)

    def traits(self, eval_size: str) -> identity.Traits:
        """What it is, as far as that decides what it says."""
        return {
            "weights": self.weights,
            "preprocessing": identity.preprocessing(self.config(eval_size), self.config("train")),
            "outputs": identity.outputs(self.columns),
        }


class Selected(nn.Module):
    """Some of a model's outputs, in the order of the data's classes; ABSENT ones are the least."""

    columns: Tensor

    def __init__(self, inner: nn.Module, columns: Sequence[int]) -> None:
        super().__init__()
        self.inner, self.num_classes = inner, len(columns)
        self.lacking = ABSENT in columns
        self.register_buffer("columns", torch.tensor(columns), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        chosen = logits[:, self.columns.clamp_min(0)]
        if not self.lacking:
            return chosen
        return torch.where(self.columns == ABSENT, logits.amin(dim=1, keepdim=True), chosen)


def unwrapped(module: nn.Module) -> nn.Module:
    """The model with all its outputs."""
    return module.inner if isinstance(module, Selected) else module


def load(
    model: Model,
    classes: Sequence[str] | None = None,
    eval_size: str = "test",
    select: Select = None,
    drawn: bool = False,
) -> Loaded:
    """Load a model, its outputs in the order of the data's classes where these are named.

    Args:
        eval_size: "test" or "train"; see `kt_cli.settings.EvalSpec`.
        select: what the user says about outputs; see `kt_cli.zoo.classes.match`.
        drawn: draw the weights that are replaced too, so that what is drawn next stays the same.

    Raises:
        ClassMismatch: the data's classes are not among the model's.
        WeightsUnavailable: the weights are neither in the cache nor to be had.
        DataError: a file is damaged or does not fit. UsageError: a function failed.
    """
    kind = scheme(model.ref)
    if classes is not None and (known := outputs_of(model)) is not None:
        matched(model, known, classes, select)  # before its weights are read
    local_models.require_unchanged(model)
    source = identity.source(model)
    with _quiet(), _explained(model):
        module = opened(model, classes or None, drawn).eval()
        config = data_config(module, eval_size)
        count = _count_classes(module, config, model)
    now = identity.source(model)
    if source not in ("", now):
        raise DataError(f"{model.name} changed while it was in use", "Run the command again.")
    names_of_outputs = (getattr(module, "pretrained_cfg", None) or {}).get("label_names")
    if kind == "local-dir":
        names_of_outputs = local_models.label_names(Path(target(model.ref)))
    if kind == "hf":
        names_of_outputs = local_models.of_transformers(cast(Any, module).origin.config["id2label"])
    if kind == "hf-hub" and isinstance(module, Wrapped) and (stated := outputs_of(model)):
        names_of_outputs = stated.names  # beside timm's configuration
    if kind == "local-dir" and (stated := outputs_of(model)) and stated.count != count:
        raise DataError(
            f"{model.name} has {count} outputs, its config.json names {stated.count}",
            "num_classes and model_args in it contradict each other.",
        )
    outputs = Outputs.of(count, names_of_outputs)
    hashes = _weights if now and kind in FROM_FILES else {}
    hashed = fingerprint_of_function if kind == "py" else fingerprint
    if kind == "clip":
        weights = cast(Any, module).weights_id
    else:
        weights = hashes[now] = hashes.get(now) or hashed(module)
    if classes is None:
        return Loaded(module, config, count, outputs, weights, now)
    found = matched(model, outputs, classes, select)
    if found.columns is not None:
        module = Selected(module, found.columns).eval()
    outputs = found.named(outputs, classes)
    return Loaded(module, config, len(classes), outputs, weights, now, found.how, found.columns)


def data_config(module: nn.Module, eval_size: str = "test") -> dict[str, Any]:
    """Preprocessing of a module; where it is not timm's, from its `data_config` if it has one."""
    from timm.data.config import resolve_data_config

    own_config = getattr(module, "pretrained_cfg", None) or getattr(module, "data_config", None)
    # Not given the module, which timm asks for its truth: what is compiled has none.
    config = resolve_data_config(  # type: ignore[no-untyped-call]
        {"img_size": None}, pretrained_cfg=own_config, use_test_size=eval_size == "test"
    )
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}


@torch.inference_mode()
def _count_classes(module: nn.Module, config: dict[str, Any], model: Model) -> int:
    """What a model says that it has; a function's is asked about two empty images."""
    count = getattr(module, "num_classes", None)
    if isinstance(count, int) and scheme(model.ref) != "py":
        return count
    images = torch.zeros(2, *config["input_size"])
    try:
        said = module(images)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        if out_of_memory(error):
            raise
        raise UsageError(
            f"{model.ref} fails on images of shape {tuple(images.shape)}: {_one_line(error)}",
            "Its attribute data_config or pretrained_cfg names its input_size.",
        ) from error
    logits = _logits(module, images, said)
    if logits is not said:  # no hook without need: torch.compile compiles it apart
        module.register_forward_hook(_logits)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(
            f"{model.ref} returns {came} for images of shape {tuple(images.shape)}",
            "Logits of shape (2, classes) are needed; of a tuple the first counts, of a mapping "
            "or object its logits.",
        )
    return int(logits.shape[1])


def _logits(module: nn.Module, images: Any, said: Any) -> Any:
    """What counts of a mapping, as transformers' models return, or of logits and more."""
    if isinstance(said, Mapping):
        return said.get("logits", said)
    if isinstance(said, (tuple, list)) and said:
        return said[0]
    return getattr(said, "logits", said)


def build(
    arch: str, num_classes: int, img_size: int | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """An untrained timm architecture and its preprocessing at training size, `img_size` pixels.

    UsageError where the architecture does not exist, or not at this size.
    """
    import timm

    names.require_architecture(arch)
    name = timm_registry.architecture(arch)
    overlay: dict[str, Any] = dict.fromkeys(TEST_ONLY)
    if img_size is not None:
        # timm passes img_size to architectures that take it, from here; others take any size.
        overlay |= {"input_size": (3, img_size, img_size), "pool_size": None}
    try:
        with _quiet():
            module = timm.create_model(
                name, num_classes=num_classes, pretrained_cfg_overlay=overlay
            )
            _try(module, img_size)
    except Exception as error:  # architectures refuse sizes each in its own way
        raise _unfit(name, img_size, error) from error
    return module, data_config(module, "train")


def for_fine_tuning(
    reference: str, num_classes: int, img_size: int | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """A trained model with a head for `num_classes`, and its preprocessing at training size.

    Raises as `names.resolve` and `load`; UsageError where the model cannot be changed so.
    """
    model = names.single(reference)
    loaded = load(model, drawn=True)
    module = loaded.module
    stated = getattr(module, "pretrained_cfg", None) or {}
    cfg = {k: v for k, v in stated.items() if k not in TEST_ONLY}
    try:
        if loaded.num_classes != num_classes:
            cast(Any, module).reset_classifier(num_classes)
        if img_size is not None:
            if hasattr(module, "set_input_size"):
                cast(Any, module).set_input_size(img_size=(img_size, img_size))
            cfg |= {"input_size": (3, img_size, img_size), "pool_size": None}
            _try(module, img_size)
    except Exception as error:
        raise _unfit(model.name, img_size, error) from error
    if cfg:
        cast(Any, module).pretrained_cfg = cfg
    return module, {**loaded.config("train"), **({"input_size": cfg["input_size"]} if cfg else {})}


@torch.inference_mode()
def _try(module: nn.Module, img_size: int | None) -> None:
    """Run one empty image through, where a size was chosen: some fail only then."""
    if img_size is not None:
        module.eval()(torch.zeros(1, getattr(module, "in_chans", 3), img_size, img_size))
        module.train()


def _unfit(name: str, img_size: int | None, error: Exception) -> UsageError:
    size = f" with {img_size} × {img_size} pixels" if img_size else ""
    tip = "Try another input size, such as the architecture's own." if img_size else ""
    return UsageError(f"cannot build {name}{size}: {_one_line(error)}", tip)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log lines and warnings of timm and the hub's library."""
    levels = {logger: logger.level for logger in map(logging.getLogger, LOGGERS)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


@contextmanager
def _explained(model: Model) -> Iterator[None]:
    """Turn whatever goes wrong in a library into one line that names the model."""
    try:
        yield
    except KtError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise KtError(f"{model.name} exhausts the memory while it is loaded") from error
        message = f"cannot load {model.name}: {_one_line(error)}"
        if published(model.ref):
            raise WeightsUnavailable(message, HOW_TO_GET_WEIGHTS) from error
        raise DataError(message, f"Is {model.ref} damaged, or from another version?") from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LINE else f"{text[:LINE]}…"
