"""README.md of the models that kt writes: how a model came about and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kt_cli.errors import counted
from kt_cli.knowledge.significance import images_changed, verdict
from kt_cli.version import __version__
from kt_cli.zoo.save import LOADED_BY_TIMM

HOW_TO_LOAD = f"\n```python\n{LOADED_BY_TIMM}```\n"  # `save` says it of other libraries' models


def pretrain_card(row: Mapping[str, Any]) -> str:
    """Card of a model of a zoo, from its row."""
    arch, frozen = f"`{row['arch']}`", min(row["freeze_epochs"], row["epochs"])
    card = (
        f"# {row['model']}\n\n"
        + (f"fine-tuned from {arch}" if row["pretrained"] else f"{arch} from scratch")
        + f", trained by kt {__version__} on {row['n_train']} images of `{row['data']}` "
        f"for {counted(row['epochs'], 'epoch')}"
    )
    if frozen:
        card += f", the first {frozen} of them its classifier alone"
    card += f"; last training loss {row['final_loss']:.4f}"
    if row["accuracy"] is not None:
        card += f", top-1 {row['accuracy']:.2f}% on {row['n']} evaluation images"
    card += ".\n"
    if row["guard_share"]:
        card += (
            f"\n{row['guard_share']:.0%} of the training images were set aside as a guard slice "
            "and never trained on.\n"
        )
    return card + (
        f"\nSettings: {row['optimizer']}, peak learning rate {row['lr']:g} ({row['schedule']}, "
        f"warm-up {row['warmup']:.0%}), batch {row['batch_size']} in micro-batches of "
        f"{row['micro_batch']}, weight decay {row['weight_decay']:g}, label smoothing "
        f"{row['label_smoothing']:g}, augmentation `{row['augment']}`, seed {row['seed']}.\n"
        + HOW_TO_LOAD
    )


def transfer_card(row: Mapping[str, Any], command: str) -> str:
    """Card of a student after transfer, from its row and the command that repeats it."""
    names = row["teacher_names"] or [row["teacher"]]
    keys = zip(names, row["teacher_keys"] or [row["teacher_key"]], strict=True)
    several = row["together"] != "single"
    card = (
        f"# {row['student']} taught by {row['teacher']} ({row['method']})\n\n"
        f"Knowledge transfer by kt {__version__} on {row['n_train']} images of `{row['data']}`.\n\n"
        "| | before | after |\n|---|---|---|\n"
        f"| top-1 (%) | {row['student_acc']:.2f} | {row['after_acc']:.2f} |\n"
        f"| {'a teacher' if several else 'teacher'} right, student wrong (%) "
        f"| {row['pos_flips']:.2f} | {row['pos_flips_after']:.2f} |\n\n"
        f"Transfer delta {row['delta']:+.2f} = gain {row['gain']:.2f} − loss {row['loss']:.2f} "
        f"points, on {row['n']} evaluation images (McNemar p = {row['transfer_p']:.3g}): "
        f"{verdict(*images_changed(row), row['n'])}.\n\n"
        "Taught by "
        + ", ".join(f"{name} (`{key}`)" for name, key in keys)
        + f"; before it was {row['student']} (`{row['student_key']}`).\n"
    )
    if row.get("worse"):
        card += f"\n**It lost more than was allowed**: {row['worse']}.\n"
    if several:
        card += _teachers(row)
    if row.get("guard_alpha") is not None:
        card += (
            f"\nThe guard let it go {row['guard_alpha']:.0%} of the way, judged on "
            f"{row['guard_n']} images; without it Δ {row['delta_unguarded']:+.2f}.\n"
        )
    return card + (
        f"\nSettings: {counted(row['epochs'], 'epoch')}, {row['schedule']} learning rate "
        f"{row['lr']:g} × batch/256, batch {row['batch_size']} in micro-batches of "
        f"{row['micro_batch']}, "
        f"temperature {row['temperature']:g}, augmentation `{row['augment']}`, batch normalisation "
        f"`{row['bn']}`, seed {row['seed']}.\n\n```\n{command}\n```\n" + HOW_TO_LOAD
    )


def _teachers(row: Mapping[str, Any]) -> str:
    columns = row["teacher_names"], row["teacher_accs"], row["teacher_shares"], row["teacher_rates"]
    lines = [
        f"| {name} | {accuracy:.2f} | {taught:.1f} | {'–' if rate is None else f'{rate:.1f}'} |\n"
        for name, accuracy, taught, rate in zip(*columns, strict=True)
    ]
    return (
        f"\nSeveral teachers: {row['together']}.\n\n"
        "| teacher | top-1 (%) | samples taught (%) | transfer rate (%) |\n|---|---|---|---|\n"
        + "".join(lines)
    )
