"""Tables, plots and a page from the rows of finished runs, which are read once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kt_cli.errors import KtError, UsageError
from kt_cli.progress import Listener
from kt_cli.settings.declared import by_keyword, check
from kt_cli.settings.report import QuerySpec, ReportSpec

if TYPE_CHECKING:
    from kt_cli.report.plots import Drawn
    from kt_cli.report.query import Query
    from kt_cli.report.read import Results
    from kt_cli.report.table import Table

Needs = Mapping[str, Collection[str]]
SUFFIXES = {
    ".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json", ".html": "html",
    ".txt": "table",
}  # fmt: skip
FEW = 12
RESULTS = Path("results")


@dataclass(frozen=True)
class Request:
    """What one report is to hold."""

    paths: tuple[Path, ...]
    query: Query
    form: ReportSpec

    @property
    def output(self) -> Path | None:
        """The file that it is written to."""
        return None if self.form.output is None else Path(self.form.output)

    @property
    def folder(self) -> Path | None:
        """The folder of the plots."""
        return None if self.form.plots is None else Path(self.form.plots)

    @property
    def written_as(self) -> str:
        """The format asked for, or the one that the file's suffix says.

        Raises:
            UsageError: the suffix says none.
        """
        if self.form.format or self.output is None:
            return self.form.format or "table"
        suffix = self.output.suffix.lower()
        if suffix not in SUFFIXES:
            raise UsageError(
                f"the suffix of {self.output} says no format",
                f"Known: {', '.join(SUFFIXES)}; or name it with --format.",
            )
        return SUFFIXES[suffix]

    def check(self) -> None:
        """Refuse what cannot be, before anything is read."""
        drawn = self.folder is not None
        if self.form.plot and not drawn and self.written_as != "html":
            raise UsageError("--plot draws nothing by itself", "Name a folder with --plots too.")
        if self.form.plot_format and not drawn:
            raise UsageError("--plot-format needs plots", "Name a folder with --plots too.")
        if self.output is not None and self.output.is_dir():
            raise UsageError(f"-o: {self.output} is a folder", "Name a file in it.")
        if drawn and self.folder is not None and self.folder.is_file():
            raise UsageError(f"--plots: {self.folder} is a file", "Name a folder.")


class OnlyFailures(KtError):
    """Runs failed and none succeeded. report: how they failed."""

    report: Report


@dataclass(frozen=True)
class Report:
    """What was asked for: tables as values, and what plots and the page are made of."""

    request: Request
    results: Results
    tables: Sequence[Table]

    def text(self) -> str:
        """All in the format asked for, other than for the screen."""
        if self.request.written_as == "html":
            from kt_cli.report.page import render_page

            return render_page(self.results, self.tables, list(self._drawn()))
        from kt_cli.report.formats import FORMATS

        return FORMATS[self.request.written_as](self.tables)

    def draw(self, folder: Path) -> Iterator[Path]:
        """Draw the plots; yields the files.

        Raises:
            KtError: there is nothing to draw.
        """
        from kt_cli.report.plots import save

        count = 0
        for drawn in self._drawn():
            for suffix in self.request.form.plot_format or ("pdf",):
                yield save(drawn, folder, suffix)
                count += 1
        if not count:
            names = ", ".join(self.request.form.plot)
            raise KtError(
                f"nothing to plot{': no rows for ' + names if names else ''}",
                "Plots need finished transfers, or pairs that were compared.",
            )

    def _drawn(self) -> Iterator[Drawn]:
        if self.results.only_failed:
            return iter(())
        from kt_cli.report.plots import draw_all

        return draw_all(self.results, self.request.form.plot or None, self.request.query)


def report(*folders: Path | str, tell: Listener = Listener(), **settings: Any) -> Report:
    """Read what is needed, and build the tables.

    Args:
        folders: of sweeps, or folders that hold some; by default results.
        settings: as the options of `kt report`: where="…", by=["student_family"], table=["summary"]

    Raises:
        UsageError: of the settings, or of a folder that holds no results.
        OnlyFailures: there are only failures. KtError: there is nothing to report.
    """
    from kt_cli.report.query import Query

    asked, form = by_keyword(settings, QuerySpec, ReportSpec)
    request = Request(tuple(map(Path, folders)) or (RESULTS,), Query(**asked), ReportSpec(**form))
    check(request.form)
    format_ = request.written_as
    request.check()
    from kt_cli.report import tables
    from kt_cli.report.arrange import arrange

    results = _read(request, format_, tell)
    if _all_left_out(results):
        raise _nothing_meets(request, results)
    if all(results.ok(table).empty for table in results.frames):
        _refuse_failures(request, tell)
    built = tables.build(results, request.form.table or None, request.query)
    if not built:
        raise KtError("there are no results to report yet", "Models are trained, but not used yet.")
    return Report(request, results, arrange(built, request.query))


def _read(request: Request, format_: str, tell: Listener) -> Results:
    from kt_cli.report import tables
    from kt_cli.report.read import count_rows, read_results
    from kt_cli.report.table import DEFAULT_NAMES

    needs: list[Needs] = [tables.needs(request.form.table or DEFAULT_NAMES, request.query)]
    if format_ == "html":
        from kt_cli.report import page

        needs.append(page.needs(count_rows(request.paths)))
    if format_ == "html" or request.folder is not None:
        from kt_cli.report.plots import PLOTS

        needs += [
            plot.needs for name, plot in PLOTS.items() if name in (request.form.plot or PLOTS)
        ]
    return read_results(request.paths, _joined(needs), request.query, tell.skipped)


def _joined(needs: Sequence[Needs]) -> dict[str, set[str]]:
    tables = dict.fromkeys(table for some in needs for table in some)
    return {table: {c for some in needs for c in some.get(table, ())} for table in tables}


# --- nothing to report --------------------------------------------------------------------------


def _all_left_out(results: Results) -> bool:
    """Whether --where leaves nothing of all that it chooses from and that tables show."""
    shown = {table: count for table, count in results.filtered.items() if table != "pretrain"}
    return any(shown.values()) and all(results.ok(table).empty for table in shown)


def _nothing_meets(request: Request, results: Results) -> KtError:
    """Says what there is of the texts that the condition names: perhaps one is misspelt."""
    from kt_cli.report.read import occurring

    there = occurring(request.paths, request.query)
    few = {name: values for name, values in there.items() if len(values) <= FEW}
    tip = " ".join(f"There is {name} {', '.join(values)}." for name, values in few.items())
    count = sum(results.filtered.values())
    return KtError(
        f"no result meets --where {request.query.where!r}: it leaves out all {count:,} rows",
        tip or "Choose others, or leave --where out.",
    )


def _refuse_failures(request: Request, tell: Listener) -> None:
    """Where runs failed and none succeeded, raise an error that says how."""
    from kt_cli.report import tables
    from kt_cli.report.read import read_results

    wanted = ["failures"]
    results = read_results(request.paths, tables.needs(wanted), on_skip=tell.skipped)
    if not results.only_failed:
        return
    built = tables.build(results, wanted)
    errors = [str(row[2]) for table in built for row in table.rows]
    count = sum(len(results.failed(table)) for table in results.frames)
    said = "; ".join(dict.fromkeys(errors))
    failed = OnlyFailures(
        f"no results: {count} run{'s' * (count > 1)} failed and none succeeded: {said}",
        "Remove the cause and run `kt sweep` again: it repeats what failed.",
    )
    failed.report = Report(request, results, built)
    raise failed
