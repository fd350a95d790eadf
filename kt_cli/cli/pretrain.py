"""`kt pretrain ARCH…`: train or fine-tune models on the user's own images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kt_cli.cli import options, screen
from kt_cli.cli.options import option
from kt_cli.cli.setting_options import Fields, Given, with_settings
from kt_cli.errors import counted
from kt_cli.settings import DataSpec, PretrainSpec
from kt_cli.settings.shared import OUTPUT

IMAGES = (
    "source", "root", "train_split", "val_split", "class_map", "labels", "fraction", "guard",
    "skip_broken",
)  # fmt: skip
FIRST = ("pretrained", "epochs", "freeze_epochs", "lr", "batch_size", "augment", "img_size")


@with_settings
def pretrain(
    arch: Annotated[
        list[str],
        typer.Argument(metavar="ARCH", help="timm architectures, or with --pretrained any models."),
    ],
    images: Annotated[
        Given, Fields(DataSpec, ("source", "guard"), only=IMAGES, usual={"guard": "0.1"})
    ],
    how: Annotated[Given, Fields(PretrainSpec, FIRST)],
    amp: options.Amp = None,
    amp_dtype: options.AmpType = None,
    device: options.Device = None,
    tf32: options.Tf32 = None,
    output: Annotated[
        Path, option("-o", "--output", metavar="FOLDER", panel=OUTPUT,
                     help="Folder that receives one folder per model.")
    ] = Path("zoo"),
    overwrite: options.Overwrite = False,
) -> None:  # fmt: skip
    """Train or fine-tune timm models on your images; each becomes a model that timm loads.

    A slice of the training images (--guard-share) is set aside and recorded with the model.

    What was interrupted goes on with the same command; models that it finished stay.
    """
    from kt_cli.api.pretrain import pretrain as trained

    how["amp"] = options.precision(amp, amp_dtype)
    with screen.progress() as progress:
        found = trained(
            arch, output=output, overwrite=overwrite, progress=progress, **images, **how
        )
    for one in found:
        if one.row is None:
            screen.note(f"{one.path.name} is trained already: local-dir:{one.path}")
        else:
            _show(one.row, one.path)


def _show(row: Mapping[str, Any], target: Path) -> None:
    told = f"last training loss {row['final_loss']:.4f}"
    if row["accuracy"] is not None:
        told += f", top-1 {row['accuracy']:.2f}% on {row['n']:,} evaluation images"
    epochs = counted(row["epochs"], "epoch")
    images = f"{row['n_train']:,} images"
    screen.line(f"{row['model']}: {epochs} on {images}, {told} → local-dir:{target}")
