"""Options that several commands share, under timm's names where timm has them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from kt_cli.errors import UsageError
from kt_cli.spec import HOW_TO_NAME_DATA, DataSpec, Model

NO_DATA = "no data is named"


class EvalSize(str, Enum):
    test = "test"
    train = "train"


DataOption = Annotated[
    str | None,
    typer.Option(
        "--data", envvar="KT_DATA", metavar="DATA",
        help="A folder with train/ and val/, a folder of class folders, hfds/NAME, torch/NAME, "
        "or digits.",
    ),
]  # fmt: skip
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Where a timm source keeps its files; or the image folder itself."
    ),
]
TrainSplit = Annotated[str, typer.Option(help="Training split of a timm source.")]
ValSplit = Annotated[str, typer.Option(help="Evaluation split of a timm source.")]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Evaluate on at most so many images (stratified).")
]
Fraction = Annotated[
    float | None,
    typer.Option(help="Share of the training images to use, stratified by class (0–1]."),
]
DataSeed = Annotated[int | None, typer.Option(min=0, help="Seed that draws subsets of the images.")]
Workers = Annotated[
    int | None,
    typer.Option("-j", "--workers", min=0, help="Decoding processes; by default as they pay."),
]
EvalSizeOption = Annotated[
    EvalSize,
    typer.Option(help="Input size: test_input_size as timm's validate.py, or that of training."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Augment = Annotated[str, typer.Option(help="none, flip, affine or paper.")]
Side = Annotated[int, typer.Option(min=1, help="Side in pixels at which crops are kept.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def data_spec(
    data: str | None, data_dir: Path | None, train_split: str = "train",
    val_split: str = "validation", limit: int | None = None, fraction: float | None = None,
    seed: int | None = None, guard: float = 0.0,
) -> DataSpec:  # fmt: skip
    """The images that the options name.

    Raises:
        UsageError: none are named.
    """
    source = data or (str(data_dir) if data_dir else None)
    if source is None:
        raise UsageError(NO_DATA, HOW_TO_NAME_DATA)
    spec = DataSpec(
        source=absolute(source),
        root=str(data_dir.absolute()) if data and data_dir else None,
        train_split=train_split,
        val_split=val_split,
        fraction=1.0 if fraction is None else fraction,
        seed=seed or 0,
        guard=guard,
        limit=limit,
    )
    from kt_cli.sweep.config import check_data

    check_data(spec)
    return spec


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
