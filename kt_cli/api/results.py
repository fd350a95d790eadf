"""The rows of finished runs, and each table of a report, as data frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kt_cli.api import Reference
from kt_cli.errors import KtError, counted, unknown, warn
from kt_cli.settings.declared import by_keyword, check, declared
from kt_cli.settings.report import QuerySpec, ReportSpec
from kt_cli.settings.values import texts

if TYPE_CHECKING:
    import pandas as pd

    from kt_cli.report.query import Query
    from kt_cli.report.read import Results as Read
    from kt_cli.report.table import Table

RESULTS = Path("results")
FEW = 12


def say_unplanned(found: Read) -> None:
    """Say how many rows are left out since their sweep plans them no more."""
    if count := found.unplanned:
        warn(
            f"{counted(count, 'row')} of images, methods, seeds, models or pairs that the "
            "sweep does not plan left out; --all-rows (all_rows=True) has them."
        )


def require_met(found: Read, paths: Sequence[Path], query: Query) -> None:
    """Where --where leaves nothing of what tables show, say what the texts that it names can be."""
    from kt_cli.report.read import occurring

    shown = {table: count for table, count in found.filtered.items() if table != "pretrain"}
    if not any(shown.values()) or not all(found.ok(table).empty for table in shown):
        return
    there = occurring(paths, query)
    few = {name: values for name, values in there.items() if len(values) <= FEW}
    tip = " ".join(f"There is {name} {', '.join(values)}." for name, values in few.items())
    count = sum(found.filtered.values())
    raise KtError(
        f"no result meets --where {query.where!r}: it leaves out all {count:,} rows",
        tip or "Choose others, or leave --where out.",
    )


def _say_skipped(path: Path, reason: str) -> None:
    warn(f"{path} is skipped: {reason}")


def _table(name: str, about: str) -> Callable[..., pd.DataFrame]:
    """A method of `Results` that gives this table; it takes the options of `kt report`."""

    def frame(self: Results, **query: Any) -> pd.DataFrame:
        return self.frame(name, **query)

    frame.__name__, frame.__doc__ = name, about
    return frame


@dataclass(frozen=True)
class Results:
    """The results in some folders of sweeps.

    Rows of finished runs are `rows("transfer")`; each table of `kt report` is a method of its name,
    which takes the options of `kt report`: `summary(by="student_family", where="delta > 0")`.
    """

    folders: tuple[Path, ...]
    query: Query

    def rows(self, table: str = "transfer") -> pd.DataFrame:
        """Finished rows of a table of results/README.md, one for each run.

        Raises:
            UnknownName: no such table. DataError: there are no results.
        """
        from kt_cli.report.read import read_results
        from kt_cli.rows import schema

        if table not in schema.TABLES:
            raise unknown("table of rows", table, schema.TABLES)
        columns = {table: [*schema.TABLES[table]]}
        found = read_results(self.folders, columns, self.query, _say_skipped)
        say_unplanned(found)
        # A copy: what all rows share is in memory once.
        return found.ok(table).reset_index(drop=True).copy()

    def tables(self, *names: str, **query: Any) -> list[Table]:
        """Tables of a report as values; those that are usual where none is named.

        Args:
            query: as the options of `kt report`: where="…", by=("student_family",), top=10, …;
                this `where` holds beside that of the results.
        """
        from kt_cli.report.arrange import arrange
        from kt_cli.report.read import read_results
        from kt_cli.report.table import DEFAULT_NAMES
        from kt_cli.report.tables import build, needs

        check(ReportSpec(table=names))
        several = {name for name, one in declared(QuerySpec).items() if one.items}
        listed = {
            k: [part.strip() for part in v.split(",") if part.strip()]
            for k, v in query.items() if k in several and isinstance(v, str)
        }  # fmt: skip
        (asked,) = by_keyword({**query, **listed}, QuerySpec)
        wanted: Query = replace(self.query, **asked)
        read = needs(names or DEFAULT_NAMES, wanted)
        wanted = replace(wanted, where=_both(self.query, wanted, read))
        found = read_results(self.folders, read, wanted, _say_skipped)
        say_unplanned(found)
        require_met(found, self.folders, wanted)
        return arrange(build(found, names or None, wanted), wanted)

    def frame(self, name: str, **query: Any) -> pd.DataFrame:
        """A table of a report: all its groups one below the other, numbers as numbers."""
        import pandas as pd

        from kt_cli.report.formats.csv_json import records

        return pd.DataFrame([row for table in self.tables(name, **query) for row in records(table)])

    summary = _table("summary", "Methods by success, Δ, gain and loss; `by` groups further.")
    students = _table("students", "Each student's mean Δ over its teachers.")
    matrix = _table("matrix", "Δ of each teacher and student.")
    teams = _table("teams", "Several teachers against each of them alone.")
    complementarity = _table("complementarity", "What pairs of models know of each other.")
    influence = _table("influence", "What Δ goes along with.")
    compare = _table("compare", "Methods on the same pairs.")
    models = _table("models", "Each model's accuracy.")
    failures = _table("failures", "Runs without a result, and why.")


def _both(given: Query, asked: Query, tables: Iterable[str]) -> str:
    """The conditions of two queries as one; without one of which no table has the columns."""
    from kt_cli.report.query import all_of

    both = {query.where: query for query in (given, asked) if query.where.strip()}
    tables = list(tables)
    met = [where for where, q in both.items() if not all(q.lacks(table) for table in tables)]
    return all_of(*(met or both))


def results(
    *folders: Reference | Iterable[Reference], where: str = "", all_rows: bool = False
) -> Results:
    """The results of sweeps, by default those in `results`.

    Args:
        folders: of sweeps, or folders that hold some.
        where: condition on rows, as `kt report --where`.
        all_rows: also those of methods, seeds and models that a sweep no longer plans.

    Raises:
        UsageError: the condition is not understood.
    """
    from kt_cli.report.query import Query

    return Results(paths_of(folders), Query(where, all_rows=all_rows))


def paths_of(folders: Iterable[Reference | Iterable[Reference]]) -> tuple[Path, ...]:
    """Folders of results, one by one or several together; by default those in `results`."""
    return tuple(Path(path) for some in folders for path in texts(some)) or (RESULTS,)
