"""Options that several commands share, under timm's names where timm has them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kt_cli.cli import screen
from kt_cli.errors import UsageError, unknown
from kt_cli.spec import HOW_TO_NAME_DATA, DataSpec, Model

if TYPE_CHECKING:
    from kt_cli.data.images import ImageSet

NAMED = 5
FILES = (
    "class_map", "labels", "valid_labels", "real_labels", "unlabelled", "guard_data",
)  # of DataSpec  # fmt: skip
NO_DATA = "no data is named"
IMAGES, TRAINING = "Images", "Training"  # panels of a command's help


class EvalSize(str, Enum):
    test = "test"
    train = "train"


DataOption = Annotated[
    str | None,
    typer.Option(
        "--data", rich_help_panel=IMAGES, envvar="KT_DATA", metavar="DATA",
        help="A folder with train/ and val/, a folder of class folders, hfds/NAME, torch/NAME, "
        "or digits.",
    ),
]  # fmt: skip
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        rich_help_panel=IMAGES,
        help="Where a timm source keeps its files; or the image folder itself.",
    ),
]
TrainSplit = Annotated[
    str, typer.Option(rich_help_panel=IMAGES, help="Training split of a timm source.")
]
ValSplit = Annotated[
    str, typer.Option(rich_help_panel=IMAGES, help="Evaluation split of a timm source.")
]
Limit = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=IMAGES, min=1, help="Evaluate on at most so many images (stratified)."
    ),
]
Fraction = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=IMAGES,
        help="Share of the training images to use, stratified by class (0–1].",
    ),
]
DataSeed = Annotated[
    int | None,
    typer.Option(rich_help_panel=IMAGES, min=0, help="Seed that draws subsets of the images."),
]
Workers = Annotated[
    int | None,
    typer.Option("-j", "--workers", min=0, help="Decoding processes; by default as they pay."),
]
EvalSizeOption = Annotated[
    EvalSize,
    typer.Option(
        rich_help_panel=IMAGES,
        help="Input size: test_input_size as timm's validate.py, or that of training.",
    ),
]
Seed = Annotated[
    int, typer.Option(rich_help_panel=TRAINING, min=0, help="Seed of everything random.")
]
Augment = Annotated[
    str, typer.Option(rich_help_panel=TRAINING, help="none, flip, affine or paper.")
]
Side = Annotated[
    int,
    typer.Option(rich_help_panel=TRAINING, min=1, help="Side in pixels at which crops are kept."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


ClassMap = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=IMAGES,
        metavar="FILE",
        help="Class names (of folders) in label order, one a line.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=IMAGES,
        metavar="FILE",
        help="Ground truth of evaluation images in a flat folder: file name and class, or one "
        "class a line in the order of the files.",
    ),
]
ValidLabels = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=IMAGES,
        metavar="FILE",
        help="Line i: number of class i among the outputs of models whose names do not tell.",
    ),
]
ByPosition = Annotated[
    bool | None,
    typer.Option(
        "--by-position/--no-by-position",
        rich_help_panel=IMAGES,
        help="Take outputs in the order of the classes where a model's names of them differ.",
    ),
]
RealLabels = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=IMAGES,
        metavar="FILE",
        help="ReaL labels (JSON), or timm for its copy of ImageNet's.",
    ),
]
EvalBatch = Annotated[
    int | None,
    typer.Option("-b", "--batch-size", min=1, help="Images per forward pass; by default 128."),
]
Amp = Annotated[bool, typer.Option("--amp", rich_help_panel=TRAINING, help="Mixed precision.")]
AmpType = Annotated[
    str | None,
    typer.Option(
        "--amp-dtype",
        rich_help_panel=TRAINING,
        help="float16 (default on a GPU) or bfloat16 (default on the CPU).",
    ),
]
ClassEmbedding = Annotated[
    str, typer.Option(help="What classes are compared by: head, clip or none.")
]


def data_spec(data: str | None, data_dir: Path | None, **more: Any) -> DataSpec:
    """The images that the options name.

    Args:
        more: fields of DataSpec; those that are None keep their defaults.

    Raises:
        UsageError: none are named.
    """
    source = data or (str(data_dir) if data_dir else None)
    if source is None:
        raise UsageError(NO_DATA, HOW_TO_NAME_DATA)
    given: dict[str, Any] = {
        k: file_path(v) if k in FILES else v for k, v in more.items() if v is not None
    }
    root = str(data_dir.absolute()) if data and data_dir else None
    spec = DataSpec(source=absolute(source), root=root, **given)
    from kt_cli.sweep.checks import check_data

    check_data(spec)
    return spec


def file_path(path: Path | str) -> str:
    """A file by its absolute path, since jobs may run elsewhere."""
    return str(path) if str(path) == "timm" else str(Path(path).expanduser().absolute())


def precision(amp: bool, dtype: str | None) -> str:
    """The type of mixed precision that --amp and --amp-dtype say; "" for none.

    Raises:
        UsageError: --amp-dtype alone; UnknownName: no such type.
    """
    if not amp and dtype is not None:
        raise UsageError("--amp-dtype changes nothing without --amp", "Add --amp.")
    if not amp:
        return ""
    from kt_cli.device import pick_device
    from kt_cli.sweep.checks import AMP

    chosen = dtype or ("float16" if pick_device().type == "cuda" else "bfloat16")
    if chosen not in AMP[1:]:
        raise unknown("type of mixed precision", chosen, AMP[1:])
    return chosen


def require_classes(models: Sequence[Model], images: ImageSet, source: str) -> None:
    """Refuse models without the classes of the images; say where one does not know some.

    Raises:
        ClassMismatch, UsageError: as `kt_cli.zoo.classes.require_classes`.
    """
    from kt_cli.zoo import classes

    classes.require_classes(models, images.classes, source, images.select)
    for name in classes.overruled(models, images.classes, images.select):
        screen.warn(f"{name} carries the names of these classes, and they decide.")
    for model in models:
        if lacks := classes.lacking(model, images.classes, images.select):
            screen.warn(f"{model.name} does not know {', '.join(lacks)}: there it is never right.")


def warn_of_empty_classes(images: ImageSet) -> None:
    empty = images.empty_classes
    if empty and len(images) >= len(images.classes):
        more = f" and {len(empty) - NAMED} more" if len(empty) > NAMED else ""
        screen.warn(
            f"no images of {', '.join(empty[:NAMED])}{more}: these classes keep their labels."
        )


Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a model that kt saved there before.")
]


def require_free(target: Path, overwrite: bool, models: Sequence[Model] = ()) -> None:
    """Refuse to save a model over anything but, with `overwrite`, a model that kt saved.

    Raises:
        UsageError: `target` holds something else, or is or contains one of `models`.
    """
    from kt_cli.zoo import own
    from kt_cli.zoo import target as path_of

    here = target.resolve()
    for model in models:
        folder = Path(path_of(model.ref)).resolve()
        if model.ref.startswith("local-dir:") and (here == folder or here in folder.parents):
            raise UsageError(f"{target} holds {model.name} itself", "Choose another folder: -o.")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (own.is_model(target) and "kt" in own.read_config(target)):
        raise UsageError(
            f"{target} exists and is no model that kt saved", "Choose a new folder: -o."
        )
    if not overwrite:
        raise UsageError(
            f"{target} holds a model already", "Choose another folder (-o), or --overwrite it."
        )


def absolute(source: str) -> str:
    """A folder by its absolute path, since jobs may run elsewhere; other sources as they are."""
    path = Path(source).expanduser()
    return str(path.absolute()) if path.is_dir() else source
