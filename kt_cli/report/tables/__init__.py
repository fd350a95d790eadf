"""The tables of a report, each for one group of comparable rows; nothing is averaged across."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kt_cli.errors import DataError
from kt_cli.report.conclusion import concluded
from kt_cli.report.query import Query
from kt_cli.report.read import Results
from kt_cli.report.table import DEFAULT_NAMES, Table
from kt_cli.report.tables import (
    compare,
    complementarity,
    failures,
    influence,
    matrix,
    models,
    students,
    summary,
    teams,
)
from kt_cli.settings.report import TABLES as NAMES


@dataclass(frozen=True)
class Builder:
    """A kind of table."""

    # Its tables, one for each group of rows; none where there is nothing to show.
    build: Callable[[Results, Query], list[Table]]
    # By table of rows the columns that it reads beside those always read.
    needs: Mapping[str, tuple[str, ...]]
    tip: str  # what there must be, where there is nothing to show


FINISHED = "It needs finished transfers: `kt sweep` and `kt transfer` write them."
TEAMS = "It needs transfers from several teachers: `kt transfer --together`, or a sweep’s."
PAIRS = "It needs compared pairs: `kt sweep` writes them."
TWO = "It needs finished transfers of two methods for the same pair."
MODELS = "It needs evaluated models: `kt sweep` writes them."
TABLES = {
    "summary": Builder(summary.tables, summary.NEEDS, FINISHED),
    "students": Builder(students.tables, students.NEEDS, FINISHED),
    "matrix": Builder(matrix.tables, matrix.NEEDS, FINISHED),
    "teams": Builder(teams.tables, teams.NEEDS, TEAMS),
    "complementarity": Builder(complementarity.tables, complementarity.NEEDS, PAIRS),
    "influence": Builder(influence.tables, influence.NEEDS, FINISHED),
    "compare": Builder(compare.tables, compare.NEEDS, TWO),
    "models": Builder(models.tables, models.NEEDS, MODELS),
    "failures": Builder(failures.tables, failures.NEEDS, ""),
}


def needs(names: Iterable[str], query: Query = Query()) -> dict[str, Collection[str]]:
    """By table of rows the columns that these tables read, and that the query groups by."""
    found: dict[str, set[str]] = {}
    for name in names:
        for table, columns in TABLES[name].needs.items():
            found.setdefault(table, query.needs(table)).update(columns)
    return dict(found)


def build(
    results: Results, names: Sequence[str] | None = None, query: Query = Query()
) -> list[Table]:
    """The tables `names`, or those shown by default.

    Raises:
        DataError: a table that was asked for has no rows (failures may be empty). All default
            tables are more than one asks for: then those without rows are left out.
    """
    usual = [name for name in DEFAULT_NAMES if name != "matrix" or matrix.is_small(results)]
    wanted = [name for name in NAMES if name in (names or usual)]
    found = {name: TABLES[name].build(results, query) for name in wanted}
    if not set(usual) <= set(wanted):
        for name in wanted:
            if not found[name] and name != "failures":
                raise DataError(f"the results have no table {name!r}", TABLES[name].tip)
        if wanted == ["failures"] and not found["failures"]:
            return [failures.none(query)]
    return [concluded(table) for name in wanted for table in found[name]]
