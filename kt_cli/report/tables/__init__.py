"""The tables of a report, each for one group of comparable rows; nothing is averaged across."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kt_cli.errors import DataError
from kt_cli.report.query import Query
from kt_cli.report.read import Results, read_results
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
from kt_cli.rows import store
from kt_cli.settings.report import TABLES as NAMES


@dataclass(frozen=True)
class Builder:
    """A kind of table.

    Attributes:
        title: what it shows, for readers.
        needs: by table of rows the columns that it reads beside those always read.
        build: its tables, one for each group of rows; none where there is nothing to show.
    """

    title: str
    needs: Mapping[str, tuple[str, ...]]
    build: Callable[[Results, Query], list[Table]]


TABLES: dict[str, Builder] = {
    "summary": Builder(summary.TITLE, summary.NEEDS, summary.summary_tables),
    "students": Builder(students.TITLE, students.NEEDS, students.student_tables),
    "matrix": Builder(matrix.TITLE, matrix.NEEDS, matrix.matrix_tables),
    "teams": Builder(teams.TITLE, teams.NEEDS, teams.team_tables),
    "complementarity": Builder(
        complementarity.TITLE, complementarity.NEEDS, complementarity.complementarity_tables
    ),
    "influence": Builder(influence.TITLE, influence.NEEDS, influence.influence_tables),
    "compare": Builder(compare.TITLE, compare.NEEDS, compare.compare_tables),
    "models": Builder(models.TITLE, models.NEEDS, models.model_tables),
    "failures": Builder(failures.TITLE, failures.NEEDS, failures.failure_tables),
}


FROM_TRANSFERS = "It needs finished transfers: `kt sweep` and `kt transfer` write them."
NEEDED = {
    **dict.fromkeys(("summary", "students", "matrix", "influence"), FROM_TRANSFERS),
    "teams": "It needs transfers from several teachers: `kt transfer --together`, or a sweep’s.",
    "compare": "It needs finished transfers of two methods for the same pair.",
    "complementarity": "It needs compared pairs: `kt sweep` writes them.",
    "models": "It needs evaluated models: `kt sweep` writes them.",
}


def sweep_tables(
    paths: Iterable[Path],
    names: Sequence[str] | None = None,
    query: Query = Query(),
    on_skip: store.OnSkip | None = None,
) -> list[Table]:
    """The tables `names`, or those shown by default, of the sweeps in `paths`.

    Raises:
        DataError: a path is missing or has no readable rows, or a table that was asked for has
            no rows (failures may be empty). All default tables are more than one asks for: then
            those without rows are left out.
    """
    used = needs(names or DEFAULT_NAMES, query)
    return build(read_results(paths, used, query, on_skip), names, query)


def needs(names: Iterable[str], query: Query = Query()) -> dict[str, Collection[str]]:
    """By table of rows the columns that these tables read, and that the query groups by."""
    found: dict[str, set[str]] = {}
    for name in names:
        for table, columns in TABLES[name].needs.items():
            found.setdefault(table, set()).update(columns)
    for table, used in found.items():
        used |= query.needs(table)
    return dict(found)


def build(
    results: Results, names: Sequence[str] | None = None, query: Query = Query()
) -> list[Table]:
    """As `sweep_tables`, from rows that are read already."""
    wanted = [name for name in NAMES if name in (names or DEFAULT_NAMES)]
    found = {name: TABLES[name].build(results, query) for name in wanted}
    if not set(DEFAULT_NAMES) <= set(wanted):
        for name in wanted:
            if not found[name] and name != "failures":
                raise DataError(f"the results have no table {name!r}", NEEDED[name])
        if wanted == ["failures"] and not found["failures"]:
            return [failures.no_failures()]
    return [table for name in wanted for table in found[name]]
