"""kt report: reads what is needed once, and brings tables, plots and the page where they go."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kt_cli.cli import screen
from kt_cli.cli.report import draw, show_tables
from kt_cli.errors import KtError, UsageError
from kt_cli.files import write_text

if TYPE_CHECKING:
    from kt_cli.report.plots import Drawn
    from kt_cli.report.query import Query
    from kt_cli.report.read import Results
    from kt_cli.report.table import Table

Needs = Mapping[str, Collection[str]]

WIDE = 160
SUFFIXES = {
    ".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json", ".html": "html",
    ".txt": "table",
}  # fmt: skip
FEW = 12


@dataclass(frozen=True)
class Request:
    """What one call of `kt report` asks for. Empty: what is usual."""

    paths: tuple[Path, ...]
    query: Query
    tables: tuple[str, ...] = ()
    format: str = ""
    output: Path | None = None
    folder: Path | None = None
    plots: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()

    @property
    def written_as(self) -> str:
        """The format asked for, or the one that the file's suffix says.

        Raises:
            UsageError: the suffix says none.
        """
        if self.format or self.output is None:
            return self.format or "table"
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
        if self.plots and not drawn and self.written_as != "html":
            raise UsageError("--plot draws nothing by itself", "Name a folder with --plots too.")
        if self.suffixes and not drawn:
            raise UsageError("--plot-format needs plots", "Name a folder with --plots too.")
        if self.output is not None and self.output.is_dir():
            raise UsageError(f"-o: {self.output} is a folder", "Name a file in it.")
        if drawn and self.folder is not None and self.folder.is_file():
            raise UsageError(f"--plots: {self.folder} is a file", "Name a folder.")


def work(request: Request) -> None:
    """Read, write, and say what is missing.

    Raises:
        UsageError: of the options, or of a path that holds no results.
        KtError: there is nothing to report, or only failures, which are shown first.
    """
    format_ = request.written_as
    request.check()
    from kt_cli.report import tables
    from kt_cli.report.arrange import arrange

    results = _read(request, format_)
    if _all_left_out(results):
        raise _nothing_meets(request, results)
    if all(results.ok(table).empty for table in results.frames):
        _refuse_failures(request, format_)
    built = tables.build(results, request.tables or None, request.query)
    if not built:
        raise KtError("there are no results to report yet", "Models are trained, but not used yet.")
    built = arrange(built, request.query)
    if format_ == "html":
        _write_page(request.output, results, built, list(_drawn(request, results)))
    else:
        _emit(built, format_, request.output)
    if request.folder is not None:
        _write_plots(request, results, request.folder)


def _read(request: Request, format_: str) -> Results:
    from kt_cli.report import tables
    from kt_cli.report.read import count_rows, read_results
    from kt_cli.report.table import DEFAULT_NAMES

    needs: list[Needs] = [tables.needs(request.tables or DEFAULT_NAMES, request.query)]
    if format_ == "html":
        from kt_cli.report import page

        needs.append(page.needs(count_rows(request.paths)))
    if format_ == "html" or request.folder is not None:
        from kt_cli.report.plots import PLOTS

        needs += [plot.needs for name, plot in PLOTS.items() if name in (request.plots or PLOTS)]
    return read_results(request.paths, _joined(needs), request.query, screen.skipped_part)


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


def _refuse_failures(request: Request, format_: str) -> None:
    """Where runs failed and none succeeded, show how, and raise an error that says it."""
    from kt_cli.report import tables
    from kt_cli.report.read import read_results

    wanted = ["failures"]
    results = read_results(request.paths, tables.needs(wanted), on_skip=screen.skipped_part)
    if not results.only_failed:
        return
    built = tables.build(results, wanted)
    if format_ == "html":
        _write_page(request.output, results, built, [])
    else:
        _emit(built, format_, request.output)
    errors = [str(row[2]) for table in built for row in table.rows]
    count = sum(len(results.failed(table)) for table in results.frames)
    said = "; ".join(dict.fromkeys(errors))
    raise KtError(
        f"no results: {count} run{'s' * (count > 1)} failed and none succeeded: {said}",
        "Remove the cause and run `kt sweep` again: it repeats what failed.",
    )


# --- where things go ----------------------------------------------------------------------------


def _emit(tables: Sequence[Table], format_: str, output: Path | None) -> None:
    if format_ == "table" and output is None:
        show_tables(tables)
        return
    _write(_text(tables, format_), output)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=False)
        return
    write_text(output, text)
    screen.note(f"Wrote {output}")


def _text(tables: Sequence[Table], format_: str) -> str:
    if format_ != "table":
        from kt_cli.report.formats import FORMATS

        return FORMATS[format_](tables)
    from rich.console import Console

    text = io.StringIO()
    draw(tables, Console(file=text, width=WIDE, highlight=False, color_system=None))
    return text.getvalue()


def _write_page(
    output: Path | None, results: Results, tables: Sequence[Table], plots: Sequence[Drawn]
) -> None:
    from kt_cli.report.page import render_page

    _write(render_page(results, tables, plots), output)


def _write_plots(request: Request, results: Results, folder: Path) -> None:
    from kt_cli.report.plots import save

    count = 0
    for drawn in _drawn(request, results):
        for suffix in request.suffixes or ("pdf",):
            screen.note(f"Wrote {save(drawn, folder, suffix)}")
            count += 1
    if not count:
        names = ", ".join(request.plots)
        raise KtError(
            f"nothing to plot{': no rows for ' + names if names else ''}",
            "Plots need finished transfers, or pairs that were compared.",
        )


def _drawn(request: Request, results: Results) -> Iterator[Drawn]:
    from kt_cli.report.plots import draw_all

    return draw_all(results, request.plots or None, request.query)
