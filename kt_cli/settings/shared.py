"""Settings that several kinds of runs have, and the panels of a command's help."""

from __future__ import annotations

from typing import Any

from kt_cli.settings.declared import NOT_NEGATIVE, POSITIVE, SHARE, setting

IMAGES, METHOD, TRAINING = "Images", "Method", "Training"
NO_HARM, STUDENT = "To do no harm", "Student"
MODELS, TRANSFERS, CLUSTER = "Models", "Transfers", "On a cluster"
AMP = ("", "float16", "bfloat16")
EVAL_SIZES = ("test", "train")
AUGMENTS = ("none", "flip", "affine", "paper")


def augment(default: str) -> Any:
    return setting(default, "Augmentation of the training views.", panel=TRAINING,
                   choices=AUGMENTS)  # fmt: skip


def side(default: int) -> Any:
    return setting(default, "Side in pixels at which the canonical crops of images are kept.",
                   panel=TRAINING, within=POSITIVE)  # fmt: skip


def epochs(default: int) -> Any:
    return setting(default, "Times that all training images are seen.", panel=TRAINING,
                   within=POSITIVE)  # fmt: skip


def batch(default: int) -> Any:
    return setting(default, "Samples per update, by accumulation over micro-batches.",
                   panel=TRAINING, flags=("-b", "--batch-size"), within=POSITIVE)  # fmt: skip


def micro_batch(default: int) -> Any:
    return setting(
        default, "Samples per forward pass; batch normalisation sees them together.",
        panel=TRAINING, within=POSITIVE,
    )  # fmt: skip


def seed(help: str) -> Any:
    return setting(0, help, panel=TRAINING, within=NOT_NEGATIVE)


def smoothing() -> Any:
    return setting(0.0, "Label smoothing of the cross-entropy.", panel=TRAINING, within=SHARE)


def amp() -> Any:
    return setting(
        "", "Mixed precision of training: float16 or bfloat16; empty for full precision.",
        panel=TRAINING, choices=AMP,
    )  # fmt: skip


def eval_size(**more: Any) -> Any:
    return setting(
        "test", "Input size of evaluation: the test size, as timm's validate.py, or that of "
        "training.", panel=IMAGES, choices=EVAL_SIZES, **more,
    )  # fmt: skip


def eval_amp(**more: Any) -> Any:
    return setting(
        "", "Mixed precision of evaluation: float16 or bfloat16; empty for full precision.",
        panel=IMAGES, choices=AMP, **more,
    )  # fmt: skip
