"""Settings that several kinds of runs have, and the panels of a command's help."""

from __future__ import annotations

from functools import partial

from kt_cli.settings.declared import NOT_NEGATIVE, POSITIVE, SHARE, setting

IMAGES, METHOD, TRAINING = "Images", "Method", "Training"
NO_HARM, STUDENT = "To do no harm", "Student"
MODELS, TRANSFERS, CLUSTER = "Models", "Transfers", "On a cluster"
OUTPUT, COMPUTATION = "Output", "Computation"
ROWS, ARRANGEMENT, FIGURES = "Which rows", "How tables look", "Plots"
PANELS = (MODELS, IMAGES, TRANSFERS, METHOD, TRAINING, NO_HARM, STUDENT, OUTPUT, ROWS, ARRANGEMENT,
          FIGURES, CLUSTER, COMPUTATION)  # fmt: skip
SCHEDULES = ("cosine", "linear", "step", "constant")
AMP = ("", "float16", "bfloat16")
EVAL_SIZES = ("test", "train")
AUGMENTS = ("none", "flip", "affine", "paper")


of_images, of_method = partial(setting, panel=IMAGES), partial(setting, panel=METHOD)
of_training, of_harm = partial(setting, panel=TRAINING), partial(setting, panel=NO_HARM)
of_student, of_models = partial(setting, panel=STUDENT), partial(setting, panel=MODELS)
# Which runs there are and where, never what comes of one.
of_transfers = partial(setting, panel=TRANSFERS, identity=False)
of_cluster = partial(setting, panel=CLUSTER, identity=False)
of_output = partial(setting, panel=OUTPUT)

augment = partial(of_training, help="Augmentation of the training views.", choices=AUGMENTS)
side = partial(
    of_training, help="Side in pixels at which the canonical crops of images are kept.",
    within=POSITIVE,
)  # fmt: skip
epochs = partial(of_training, help="Times that all training images are seen.", within=POSITIVE)
batch = partial(
    of_training, help="Samples per update, by accumulation over micro-batches.",
    flags=("-b", "--batch-size"), within=POSITIVE,
)  # fmt: skip
micro_batch = partial(
    of_training, help="Samples per forward pass; batch normalisation sees them together.",
    within=POSITIVE,
)  # fmt: skip
seed = partial(of_training, 0, within=NOT_NEGATIVE)
smoothing = partial(of_training, 0.0, "Label smoothing of the cross-entropy.", within=SHARE)
amp = partial(
    of_training, "", "Mixed precision of training: float16 or bfloat16; empty for full precision.",
    choices=AMP, flags=("--amp", "--amp-dtype"), option=False,
)  # fmt: skip
eval_size = partial(
    of_images, "test", "Input size of evaluation: the test size, as timm's validate.py, or that of "
    "training.", choices=EVAL_SIZES,
)  # fmt: skip
eval_amp = partial(
    of_images, "", "Mixed precision of evaluation: float16 or bfloat16; empty for full precision.",
    choices=AMP,
)  # fmt: skip
