"""What is asked of a report: which rows, how they are grouped, how its tables are arranged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from kt_cli.errors import unknown
from kt_cli.report.derived import KINDS as DERIVED
from kt_cli.report.derived import MODEL_NEEDS, derived
from kt_cli.report.groups import DATA, PAIR, SAME_TRANSFER, SETTINGS, SEVERAL, TRAINING
from kt_cli.report.model_labels import is_label
from kt_cli.report.stats import DECIMALS
from kt_cli.rows import schema
from kt_cli.rows.condition import (
    KINDS,
    WHERE_COLUMNS_ARE,
    Condition,
    Kind,
    columns_of,
    parse,
)
from kt_cli.settings.declared import check
from kt_cli.settings.report import QuerySpec

__all__ = ["Query", "derived", "seed_average"]

PAIR_TABLES = ("complementarity", "transfer")
# Derived column: the stored columns of pairs that it follows from, beside those always read.
FOLLOWS_FROM = {"stronger": ("acc_diff",)}


@dataclass(frozen=True)
class Query(QuerySpec):
    """What is asked of a report's rows and tables.

    Raises:
        UsageError: the condition is not understood, a column does not exist, or a value is none
            that can be.
    """

    def __post_init__(self) -> None:
        check(self)
        self.conditions()
        for name in self.by:
            if kinds("transfer").get(name, "list") == "list":
                known = [c for c, kind in kinds("transfer").items() if kind != "list"]
                raise unknown("column", name, known, WHERE_COLUMNS_ARE)

    def conditions(self) -> list[Condition]:
        """What `where` says, all of which is to hold; a column of any table can be named."""
        every = {name: kind for table in schema.TABLES for name, kind in kinds(table).items()}
        return parse(self.where, every) if self.where.strip() else []

    def lacks(self, table: str) -> list[str]:
        """The columns of the condition that rows of `table` do not have: it is not applied."""
        known = kinds(table)
        return [name for name in columns_of(self.conditions()) if name not in known]

    def stored(self, table: str) -> list[Condition]:
        """What of the condition can be decided where the rows of `table` are stored."""
        return [part for part in self._applied(table) if self._is_stored(part, table)]

    def followed(self, table: str) -> list[Condition]:
        """What of it needs derived columns, or the names that models get when they are read."""
        return [part for part in self._applied(table) if not self._is_stored(part, table)]

    def _is_stored(self, condition: Condition, table: str) -> bool:
        """Nothing is where any text may be a label: those are made of all rows."""
        labels = any(is_label(text) for part in self.conditions() for text in part.texts)
        return not labels and not set(condition.columns) - schema.TABLES[table].keys()

    def _applied(self, table: str) -> list[Condition]:
        return [] if self.lacks(table) else self.conditions()

    def needs(self, table: str) -> set[str]:
        """Stored columns of `table` that grouping and derived columns of the condition need."""
        if table == "models":
            named = [c for pairs in PAIR_TABLES for c in self.derives(pairs)]
            return {stored for c in named for stored in MODEL_NEEDS.get(c, ())}
        named = [stored for c in self.derives(table) for stored in FOLLOWS_FROM.get(c, (c,))]
        return set(named) & schema.TABLES[table].keys()

    def derives(self, table: str) -> list[str]:
        """Columns that grouping and the condition on derived columns name."""
        by = self.by if table == "transfer" else ()
        return [*by, *columns_of(self.followed(table))]


def all_of(*conditions: str) -> str:
    """The condition that holds where all do; empty ones hold everywhere."""
    said = [one for one in conditions if one.strip()]
    return " and ".join(f"({one})" for one in said) if len(said) > 1 else "".join(said)


def kinds(table: str) -> Mapping[str, Kind]:
    """The columns of a table, derived ones too, and what they hold."""
    stored = {name: KINDS.get(column.type, "list") for name, column in schema.TABLES[table].items()}
    return {**stored, **DERIVED} if table in PAIR_TABLES else stored


def seed_average(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each pair, method, settings and data: numbers are means over the seeds.

    The transfer_p of several becomes null, since a mean of p-values is none; so do other lists.
    `seed` becomes 0.
    """
    same = [c for c in (*SAME_TRANSFER, *PAIR, "method") if c in rows]
    lists = [
        c
        for c, kind in kinds("transfer").items()
        if kind == "list" and c in rows and c not in SEVERAL
    ]
    grouped = rows.drop(columns=lists).groupby(same, observed=True, dropna=False, sort=False)
    given = {*same, *DATA, *TRAINING, *SETTINGS}
    results = [str(c) for c in rows if rows[c].dtype == float and c not in given]
    averaged = grouped.first()
    # Rounded, so that a mean of zero is no tiny success.
    averaged[results] = grouped[results].mean().round(DECIMALS)
    averaged["seed"] = 0
    if "transfer_p" in rows:
        averaged["transfer_p"] = averaged["transfer_p"].where(grouped.size() == 1)
    averaged = averaged.reset_index().assign(**dict.fromkeys(lists))
    return averaged[list(rows.columns)]
