"""Settings that several kinds of runs have, and the panels of a command's help."""

from __future__ import annotations

from functools import partial

from kt_cli.settings.declared import NOT_NEGATIVE, POSITIVE, SHARE, setting

IMAGES, METHOD, TRAINING = "Images", "Method", "Training"
NO_HARM, STUDENT = "To do no harm", "Student"
MODELS, TRANSFERS, CLUSTER = "Models", "Transfers", "On a cluster"
AMP = ("", "float16", "bfloat16")
EVAL_SIZES = ("test", "train")
AUGMENTS = ("none", "flip", "affine", "paper")


augment = partial(
    setting, help="Augmentation of the training views.", panel=TRAINING, choices=AUGMENTS
)
side = partial(
    setting, help="Side in pixels at which the canonical crops of images are kept.",
    panel=TRAINING, within=POSITIVE,
)  # fmt: skip
epochs = partial(
    setting, help="Times that all training images are seen.", panel=TRAINING, within=POSITIVE
)
batch = partial(
    setting, help="Samples per update, by accumulation over micro-batches.", panel=TRAINING,
    flags=("-b", "--batch-size"), within=POSITIVE,
)  # fmt: skip
micro_batch = partial(
    setting, help="Samples per forward pass; batch normalisation sees them together.",
    panel=TRAINING, within=POSITIVE,
)  # fmt: skip
seed = partial(setting, 0, panel=TRAINING, within=NOT_NEGATIVE)
smoothing = partial(
    setting, 0.0, "Label smoothing of the cross-entropy.", panel=TRAINING, within=SHARE
)
amp = partial(
    setting, "", "Mixed precision of training: float16 or bfloat16; empty for full precision.",
    panel=TRAINING, choices=AMP,
)  # fmt: skip
eval_size = partial(
    setting, "test", "Input size of evaluation: the test size, as timm's validate.py, or that of "
    "training.", panel=IMAGES, choices=EVAL_SIZES,
)  # fmt: skip
eval_amp = partial(
    setting, "", "Mixed precision of evaluation: float16 or bfloat16; empty for full precision.",
    panel=IMAGES, choices=AMP,
)  # fmt: skip
