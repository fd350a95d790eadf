"""What stands around a table: which rows it is about, and what they leave out."""

from __future__ import annotations

import pandas as pd

from kt_cli.report.groups import Group
from kt_cli.report.table import Cell


def transfer_caption(group: Group) -> str:
    images = f"{_number(group.about['images'])} evaluation and {_number(group.first('n_train'))}"
    images += " transfer images"
    return _caption(group, f"{images}, settings {group.about['settings']}")


def data_caption(group: Group) -> str:
    return _caption(group, f"{_number(group.about['images'])} evaluation images")


def _number(count: Cell) -> str:
    """Rows of another version may not tell."""
    return f"{int(count):,}" if isinstance(count, (int, float)) else "unknown"


def _caption(group: Group, what: str) -> str:
    differs = f"; {group.differs}" if group.differs else ""
    return f"Sweep {group.about['sweep']} on {group.about['data']} ({what}{differs})"


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def left_out(failed: pd.DataFrame, group: Group, what: str) -> list[str]:
    """Says how many runs failed in the group's sweep and, where rows have them, settings."""
    count = int((failed["sweep"] == group.about["sweep"]).sum())
    if not count:
        return []
    where = "with these settings" if "settings" in group.about else "of this sweep"
    return [f"Left out: {counted(count, f'failed {what}')} {where}."]


def limit_note(group: Group) -> list[str]:
    limit = group.about["limit"]
    if limit is None:
        return []
    return [
        f"Evaluated with --limit {limit}, on {_number(group.about['images'])} images only: not "
        "comparable with results on all of them."
    ]
