"""Tables, plots and a page from the rows of finished runs, which are read once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kt_cli.api import Reference
from kt_cli.api.results import paths_of, require_met, say_unplanned
from kt_cli.errors import KtError, UsageError, counted
from kt_cli.progress import Listener
from kt_cli.settings.declared import by_keyword, check
from kt_cli.settings.report import QuerySpec, ReportSpec

if TYPE_CHECKING:
    from kt_cli.report.plots import Drawn
    from kt_cli.report.query import Query
    from kt_cli.report.read import Results
    from kt_cli.report.serve import Server
    from kt_cli.report.table import Table

Needs = Mapping[str, Collection[str]]
SUFFIXES = {
    ".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json", ".html": "html",
    ".txt": "table",
}  # fmt: skip
FEW = 3  # errors that a message names


@dataclass(frozen=True)
class Request:
    """What one report is to hold."""

    paths: tuple[Path, ...]
    query: Query
    form: ReportSpec

    @property
    def output(self) -> Path | None:
        return None if self.form.output is None else Path(self.form.output)

    @property
    def folder(self) -> Path | None:
        """Of the plots."""
        return None if self.form.plots is None else Path(self.form.plots)

    @property
    def written_as(self) -> str:
        """The format asked for, or the one that the file's suffix says.

        Raises:
            UsageError: the suffix says none.
        """
        if self.form.serve:
            return "html"
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
        page, output, folder = self.written_as == "html", self.output, self.folder
        if self.form.serve and (self.form.format not in ("", "html") or output is not None):
            raise UsageError("--serve writes no file", "Leave -o and --format out.")
        if self.form.port and not self.form.serve:
            raise UsageError("--port is for --serve", "Add --serve.")
        tip = "Name a folder with --plots too."
        if self.form.plot and folder is None and not page:
            raise UsageError("--plot draws nothing by itself", tip)
        if self.form.plot_format and folder is None:
            raise UsageError("--plot-format needs plots", tip)
        if output is not None and output.is_dir():
            raise UsageError(f"-o: {output} is a folder", "Name a file in it.")
        if folder is not None and folder.is_file():
            raise UsageError(f"--plots: {folder} is a file", "Name a folder.")


class OnlyFailures(KtError):
    """Runs failed and none succeeded. report: how they failed."""

    report: Report


@dataclass(frozen=True)
class Report:
    """What was asked for: tables as values, and what plots and the page are made of."""

    request: Request
    results: Results
    tables: Sequence[Table]

    def each(self, output: Path) -> dict[Path, Report]:
        """What goes to which file: CSV has one for each kind of table, as it can hold no more."""
        from kt_cli.report.formats.csv_json import by_name

        if self.request.written_as != "csv" or len(kinds := by_name(self.tables)) < 2:
            return {output: self}
        return {
            output.with_name(f"{output.stem}-{name}{output.suffix}"): replace(self, tables=tables)
            for name, tables in kinds.items()
        }

    def text(self) -> str:
        """All in the format asked for, other than for the screen."""
        if self.request.written_as == "html":
            from kt_cli.report.page import render_page

            drawn = list(self._drawn())
            return render_page(self.results, self.tables, drawn, self.request.form.serve)
        from kt_cli.report.formats import FORMATS

        return FORMATS[self.request.written_as](self.tables)

    def server(self) -> Server:
        """What shows the page at its `address`, by `serve_forever` until `server_close`.

        Raises:
            UsageError: the port cannot be had.
        """
        from kt_cli.report.ask import Asker
        from kt_cli.report.serve import Server

        asker = Asker(self.request.paths, self.request.query)
        return Server(self.text(), asker, self.request.form.port)

    def draw(self, folder: Path) -> Iterator[Path]:
        """Draw the plots; yields the files.

        Raises:
            KtError: there is nothing to draw.
        """
        from kt_cli.report.plots import save

        empty = True
        for drawn in self._drawn():
            for suffix in self.request.form.plot_format or ("pdf",):
                yield save(drawn, folder, suffix)
                empty = False
        if empty:
            names = ", ".join(self.request.form.plot)
            raise KtError(
                f"nothing to plot{': no rows for ' + names if names else ''}",
                "Plots need finished transfers, or pairs that were compared; class-flips those of "
                "--flips-by-class.",
            )

    def _drawn(self) -> Iterator[Drawn]:
        if self.results.only_failed:
            return iter(())
        from kt_cli.report.plots import draw_all

        return draw_all(self.results, self.request.form.plot or None, self.request.query)


def report(
    *folders: Reference | Iterable[Reference], tell: Listener = Listener(), **settings: Any
) -> Report:
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
    request = Request(paths_of(folders), Query(**asked), ReportSpec(**form))
    check(request.form)
    request.check()
    from kt_cli.report import tables
    from kt_cli.report.arrange import arrange

    results = _read(request, tell)
    say_unplanned(results)
    require_met(results, request.paths, request.query)
    if all(results.ok(table).empty for table in results.frames):
        _refuse_failures(request, tell)
    built = tables.build(results, _wanted(request, results), request.query)
    if not built:
        raise KtError("there are no results to report yet", "Models are trained, but not used yet.")
    return Report(request, results, arrange(built, request.query))


def _read(request: Request, tell: Listener) -> Results:
    from kt_cli.report import tables
    from kt_cli.report.read import read_results
    from kt_cli.report.table import DEFAULT_NAMES

    needs: list[Needs] = [tables.needs(request.form.table or DEFAULT_NAMES, request.query)]
    page = request.written_as == "html"
    if page:
        from kt_cli.report.page import needs as of_page

        needs.append(of_page(_counts(request)))
    if page or request.folder is not None:
        from kt_cli.report.plots import PLOTS

        needs += [PLOTS[name].needs for name in request.form.plot or PLOTS]
    every = {table: {c for some in needs for c in some.get(table, ())}
             for table in dict.fromkeys(table for some in needs for table in some)}  # fmt: skip
    return read_results(request.paths, every, request.query, tell.skipped)


def _counts(request: Request) -> dict[str, int]:
    """Rows of each table, at most: of those that meet the condition where there is one."""
    from kt_cli.report.read import count_rows, read_results

    if not request.query.where:
        return count_rows(request.paths)
    found = read_results(request.paths, {"transfer": (), "complementarity": ()}, request.query)
    return {table: len(rows) for table, rows in found.frames.items()}


def _wanted(request: Request, results: Results) -> Sequence[str] | None:
    """Tables by name; the page also compares methods, of as many transfers as it has rows of."""
    if request.form.table or request.written_as != "html":
        return request.form.table or None
    from kt_cli.report.page import MAX_ROWS
    from kt_cli.report.table import DEFAULT_NAMES

    few = len(results.ok("transfer")) <= MAX_ROWS
    return (*DEFAULT_NAMES, "compare") if few else None


def _refuse_failures(request: Request, tell: Listener) -> None:
    from kt_cli.report import tables
    from kt_cli.report.read import read_results

    wanted = ["failures"]
    query = replace(request.query, where="")
    results = read_results(request.paths, tables.needs(wanted), query, tell.skipped)
    if not results.only_failed:
        return
    built = tables.build(results, wanted)
    errors = dict.fromkeys(row[2] for table in built for row in table.texts())
    said = "; ".join(list(errors)[:FEW]) + "; …" * (len(errors) > FEW)
    count = sum(len(results.failed(table)) for table in results.frames)
    failed = OnlyFailures(
        f"no results: {counted(count, 'run')} failed and none succeeded: {said}",
        "Remove the cause and run `kt sweep` again: it repeats what failed.",
    )
    failed.report = Report(request, results, built)
    raise failed
