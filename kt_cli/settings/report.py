"""What a report is to hold: of which rows, arranged how, in which form."""

from __future__ import annotations

from dataclasses import dataclass

from kt_cli.settings.declared import POSITIVE, setting

ROWS, ARRANGEMENT, PLOTTING = "Which rows", "How tables look", "Plots"
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

    where: str = setting(
        "", "Only these rows: \"method == 'kl-dp' and teacher_acc < student_acc\", for one.",
        panel=ROWS, metavar="CONDITION",
    )  # fmt: skip
    by: tuple[str, ...] = setting(
        (), "Group the summary by columns too: student_family,teacher_type, for one.", panel=ROWS,
        metavar="COLUMNS", listed=True,
    )  # fmt: skip
    sort: tuple[str, ...] = setting(
        (), "Sort by columns of the tables (as --format json names them); -delta: high first.",
        panel=ARRANGEMENT, metavar="KEYS", listed=True,
    )  # fmt: skip
    columns: tuple[str, ...] = setting(
        (), "Only these columns, in this order.", panel=ARRANGEMENT, metavar="KEYS", listed=True
    )
    top: int | None = setting(
        None, "Only the first rows of each table.", panel=ARRANGEMENT, within=POSITIVE
    )
    seed_average: bool = setting(
        False, "Average the seeds of each pair first; n then counts pairs.", panel=ROWS
    )
    against: str = setting(
        "", "Published numbers beside these.", panel=ARRANGEMENT, choices=("", "paper")
    )


@dataclass(frozen=True)
class ReportSpec:
    """What is made of the rows, and where it goes."""

    table: tuple[str, ...] = setting(
        (), "Only this table; may repeat.", choices=TABLES, usual="those with rows", listed=True
    )
    format: str = setting(
        "", "How tables are written.", choices=("", *FORMATS),
        usual="as the suffix of -o says, else table",
    )  # fmt: skip
    output: str | None = setting(
        None, "Write here instead of to stdout: .md, .tex, .csv, .json, .html or .txt.",
        flags=("-o", "--output"), metavar="FILE",
    )  # fmt: skip
    plots: str | None = setting(
        None, "Draw plots as files in this folder.", panel=PLOTTING, metavar="FOLDER"
    )
    plot: tuple[str, ...] = setting(
        (), "Only this plot; may repeat.", panel=PLOTTING, choices=PLOTS, listed=True
    )
    plot_format: tuple[str, ...] = setting(
        (), "Form of the files; may repeat.", panel=PLOTTING, choices=("pdf", "svg", "png"),
        usual="pdf", listed=True,
    )  # fmt: skip
