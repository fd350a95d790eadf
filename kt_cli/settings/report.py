"""What a report is to hold: of which rows, arranged how, in which form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from kt_cli.settings.declared import POSITIVE, setting
from kt_cli.settings.shared import ARRANGEMENT, FIGURES, ROWS, of_output

of_rows, of_arrangement = partial(setting, panel=ROWS), partial(setting, panel=ARRANGEMENT)
of_plots = partial(setting, panel=FIGURES)
TABLES = (
    "summary", "students", "matrix", "teams", "complementarity", "influence", "compare", "models",
    "failures",
)  # fmt: skip
FORMATS = ("table", "markdown", "latex", "csv", "json", "html")
PLOTS = (
    "knowledge", "entropy", "class-flips", "class-similarity", "success", "delta", "gain-loss",
    "rate-classes", "rate-size", "matrix", "curves",
)  # fmt: skip


@dataclass(frozen=True)
class QuerySpec:
    """Which rows a report is about, and how its tables are arranged."""

    where: str = of_rows(
        "", "Only these rows: \"method == 'kl-dp' and teacher_acc < student_acc\", for one.",
        metavar="CONDITION",
    )  # fmt: skip
    by: tuple[str, ...] = of_rows(
        (), "Group the summary by columns too: student_family,teacher_type, for one.",
        metavar="COLUMNS", listed=True,
    )  # fmt: skip
    sort: tuple[str, ...] = of_arrangement(
        (), "Sort by columns of the tables (as --format json names them); -delta: high first.",
        metavar="KEYS", listed=True,
    )  # fmt: skip
    columns: tuple[str, ...] = of_arrangement(
        (), "Only these columns, in this order.", metavar="KEYS", listed=True
    )
    top: int | None = of_arrangement(None, "Only the first rows of each table.", within=POSITIVE)
    all_rows: bool = of_rows(
        False, "Also rows of methods, seeds, models and pairs that a sweep no longer plans."
    )
    seed_average: bool = of_rows(
        False, "Average the seeds of each pair first; n then counts pairs."
    )
    against: str = of_arrangement("", "Published numbers beside these.", choices=("", "paper"))


@dataclass(frozen=True)
class ReportSpec:
    """What is made of the rows, and where it goes."""

    table: tuple[str, ...] = of_output(
        (), "Only this table; may repeat.", choices=TABLES, usual="those with rows", listed=True
    )
    format: str = of_output(
        "", "How tables are written.", choices=("", *FORMATS), usual="as the suffix of -o says, "
        "else table",
    )  # fmt: skip
    output: str | None = of_output(
        None, "Write here instead of to stdout: .md, .tex, .csv, .json, .html or .txt.",
        flags=("-o", "--output"), metavar="FILE",
    )  # fmt: skip
    serve: bool = of_output(
        False, "Show the page in a browser of this machine, where all rows can be asked for."
    )
    port: int = of_output(
        0, "Of --serve.", within="[0, 65535]", metavar="PORT", usual="one that is free"
    )
    plots: str | None = of_plots(None, "Draw plots as files in this folder.", metavar="FOLDER")
    plot: tuple[str, ...] = of_plots((), "Only this plot; may repeat.", choices=PLOTS, listed=True)
    plot_format: tuple[str, ...] = of_plots(
        (), "Form of the files; may repeat.", choices=("pdf", "svg", "png"), usual="pdf",
        listed=True,
    )  # fmt: skip
