"""Which rows may be averaged together: their split into groups that agree in what matters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kt_cli.report.table import Cell
from kt_cli.rows.scan import is_one_number

OUTCOME = ["status", "error", "created"]
DATA = ["data", "eval_data", "eval_size", "eval_amp", "limit", "n", "num_classes"]
PAIR = ["teacher", "student", "teacher_key", "student_key"]
SEVERAL = ["teacher_names", "teacher_keys"]
TRAINING = ["n_train", "train_data", "fraction", "subset_seed", "guard_share", "guard_data"]
SETTINGS = [
    "together", "order", "epochs", "lr", "schedule", "batch_size", "micro_batch", "momentum",
    "weight_decay", "temperature", "kd_lambda", "kd_topk", "distil_on", "margin", "label_smoothing",
    "mcl_tau", "mcl_every", "bn", "average", "subtract_drift", "augment", "crop", "side", "amp",
    "target_topk", "reference_compat",
]  # fmt: skip
# What is always read: who, on what, with which settings, and how it ended.
KEYS = {
    "pretrain": ["model", *OUTCOME],
    "models": ["model", "model_key", *DATA, *OUTCOME],
    "complementarity": [*PAIR, *DATA, *OUTCOME],
    "transfer": [
        *PAIR, *SEVERAL, "method", "seed", *DATA, *TRAINING, "settings", *SETTINGS, *OUTCOME,
    ],
}  # fmt: skip
SAME_DATA = ("sweep", "eval_data", "eval_size", "eval_amp")
SAME_IMAGES = (*SAME_DATA, "train_data", "guard_data")  # of transfers
SAME_TRANSFER = (*SAME_IMAGES, "settings")
JOINED = ", "  # between the settings of a table that is about several


@dataclass(frozen=True)
class Group:
    """Rows that may be averaged: one sweep, one set of images, for transfers equal settings."""

    rows: pd.DataFrame
    about: dict[str, Cell]  # what the rows have in common, for machines
    differs: str  # how the group differs from the other groups of its sweep; may be empty

    def of(self, whole: Group) -> bool:
        """Whether these are some of another group's rows, by what both have in common."""
        return whole.about.items() <= self.about.items()

    def first(self, column: str) -> Cell:
        """The value of a column that is the same in all rows; None for null."""
        return native(self.rows[column].iloc[0])


def native(value: Any) -> Cell:
    """A value of a data frame as a cell: a Python value, null as None."""
    if pd.isna(value):
        return None
    cell: Cell = value.item() if hasattr(value, "item") else value
    return cell


def split(rows: pd.DataFrame, same: Sequence[str]) -> list[Group]:
    """Groups of rows that agree in all columns of `same`, sorted by these.

    Transfers without a guard stand beside those with one, unless guards judged on several sets.
    """
    if "guard_data" in same:
        rows = _with_guard(rows, [column for column in same if column != "guard_data"])
    fields = [c for c in (*DATA, *TRAINING, *SETTINGS) if c in rows.columns]
    groups = []
    for _, sweep in _parts(rows, ["sweep"]):
        differing = [c for c in fields if _varies(sweep[c])]
        for key, members in _parts(sweep, list(same)):
            known = {name: native(value) for name, value in zip(same, key, strict=True)}
            about = {"sweep": known.pop("sweep"), **_images(members), **known}
            common = [c for c in differing if not _varies(members[c])]
            differs = ", ".join(_named(c, members[c].iloc[0]) for c in common)
            groups.append(Group(members, about, differs))
    return groups


def across(rows: pd.DataFrame, but: Sequence[str]) -> pd.DataFrame:
    """Rows that agree in all settings but some get the same `settings`: their hashes together.

    Hashes that one method has so belong together for all methods: what was left to the methods is
    in columns, and not in hashes. Only those that occur on the same images are named.
    """
    same = [column for column in SETTINGS if column not in but]
    once = rows.drop_duplicates(["method", "settings"])  # which tell all settings
    said = once[["method", *same, "settings"]].astype(object)
    joined: list[set[str]] = []
    for _, hashes in said.groupby(["method", *same], dropna=False)["settings"]:
        alike = set(map(str, hashes))
        met = [others for others in joined if others & alike]
        joined = [others for others in joined if others not in met] + [alike.union(*met)]
    numbers = {one: i for i, alike in enumerate(joined) for one in alike}
    own = rows["settings"].astype(str)
    # But for the guard's, of which there may be several sets, or none.
    images = [rows[column] for column in SAME_IMAGES if column != "guard_data"]
    place = rows.groupby([*images, own.map(numbers)], dropna=False, observed=True).ngroup()
    occur = pd.DataFrame({"place": place, "settings": own}).drop_duplicates()
    named = occur.groupby("place")["settings"].agg(lambda some: JOINED.join(sorted(some)))
    return rows.assign(settings=place.map(named))


def _parts(rows: pd.DataFrame, by: list[str]) -> Iterable[tuple[Any, pd.DataFrame]]:
    """Rows by their values of `by`, sorted; where all have the same, as they are: no copy."""
    if len(rows) and not any(_varies(rows[column]) for column in by):
        return [(tuple(rows[by].iloc[0]), rows)]
    return rows.groupby(by, dropna=False, sort=True, observed=True)


def _varies(values: pd.Series[Any]) -> bool:
    """Whether not all rows have the same; quicker than to count what they have."""
    if values.empty or is_one_number(values):
        return False
    first = values.iloc[0]
    same = values.isna() if pd.isna(first) else values == first
    return not bool(same.all())


def _with_guard(rows: pd.DataFrame, same: list[str]) -> pd.DataFrame:
    """Rows without a guard's images have those of the others, if these are one set."""
    if rows["guard_data"].notna().all() or rows["guard_data"].isna().all():
        return rows
    data = rows["guard_data"].astype(object)
    sets = data.groupby([rows[c] for c in same], dropna=False, observed=True)
    return rows.assign(
        guard_data=data.fillna(sets.transform("first")[sets.transform("nunique") == 1])
    )


def _images(rows: pd.DataFrame) -> dict[str, Cell]:
    data, count, limit = (native(rows[name].iloc[0]) for name in ("data", "n", "limit"))
    limit = int(limit) if isinstance(limit, float) else limit
    return {"data": data, "images": count, "limit": limit}


def _named(column: str, value: Any) -> str:
    name = {"n": "evaluation images", "n_train": "transfer images"}.get(column, column)
    if pd.isna(value) or value == "":
        return f"{name} none"
    if column in ("eval_data", "train_data", "guard_data"):
        # A list of images and their content, of which either may differ.
        return f"{name} {'/'.join(part[-8:] for part in str(value).split('/'))}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def by_one_teacher(group: Group) -> bool:
    """Whether no transfer of the group has several teachers."""
    ways = group.rows["together"]
    return bool((ways.isna() | (ways == "single")).all())


def trained(pairs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs with a trained teacher, and those with a randomly initialised one."""
    keys = [key for key in pairs["teacher_key"].unique() if str(key).startswith("random:")]
    if not keys:
        return pairs, pairs[:0]
    untrained = pairs["teacher_key"].isin(keys)
    return pairs[~untrained], pairs[untrained]


def models_of(pairs: pd.DataFrame) -> int:
    """How many models there are in either role."""
    return len({*pairs["teacher"].unique(), *pairs["student"].unique()})
