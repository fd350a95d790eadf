"""README.md of the models that kt writes: how a model came about and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kt_cli import __version__
from kt_cli.spec import DataSpec, PretrainSpec

HOW_TO_LOAD = """
```python
import timm
model = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True)
```
"""


def pretrain_card(spec: PretrainSpec, data: DataSpec, images: int, final_loss: float) -> str:
    start = f"fine-tuned from `{spec.arch}`" if spec.pretrained else f"`{spec.arch}` from scratch"
    return (
        f"# {spec.name}\n\n{start}, trained by kt {__version__} on {images} images of "
        f"`{data.source}` for {spec.epochs} epochs (augmentation `{spec.augment}`, learning rate "
        f"{spec.lr:g}, seed {spec.seed}); last training loss {final_loss:.4f}.\n"
        + (
            f"\n{data.guard:.0%} of the training images were set aside as a guard slice and "
            "never trained on.\n"
            if data.guard
            else ""
        )
        + HOW_TO_LOAD
    )


def transfer_card(row: Mapping[str, Any]) -> str:
    """Card of a student after transfer, from its row."""
    return (
        f"# {row['student']} taught by {row['teacher']} ({row['method']})\n\n"
        f"Knowledge transfer by kt {__version__} on {row['n_train']} images of `{row['data']}`.\n\n"
        "| | before | after |\n|---|---|---|\n"
        f"| top-1 (%) | {row['student_acc']:.2f} | {row['after_acc']:.2f} |\n"
        f"| teacher right, student wrong (%) | {row['pos_flips']:.2f} "
        f"| {row['pos_flips_after']:.2f} |\n\n"
        f"Transfer delta {row['delta']:+.2f} = gain {row['gain']:.2f} − loss {row['loss']:.2f} "
        f"points, on {row['n']} evaluation images (McNemar p = {row['transfer_p']:.3g}).\n"
        f"\nSettings: {row['epochs']} epochs, learning rate {row['lr']:g} × batch/256, "
        f"batch {row['batch_size']} in micro-batches of {row['micro_batch']}, "
        f"augmentation `{row['augment']}`, seed {row['seed']}.\n" + HOW_TO_LOAD
    )
