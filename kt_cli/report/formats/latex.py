"""Tables as LaTeX floats that need the package `booktabs` and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kt_cli.report.formats.escape import breakable, escape
from kt_cli.report.formats.latex_pages import Page, blocks, leads, pages
from kt_cli.report.table import Cell, Column, Table

FLOATS_PER_CLEARPAGE = 12  # LaTeX holds back only so many floats


def render_latex(tables: Sequence[Table]) -> str:
    """One float for each table, more where a table is longer or wider than a page."""
    floats = [
        _float(page, table.caption, "" if i else label)
        for table, label in zip(tables, _labels(tables), strict=True)
        for i, page in enumerate(pages(table))
    ]
    for last in range(FLOATS_PER_CLEARPAGE - 1, len(floats) - 1, FLOATS_PER_CLEARPAGE):
        floats[last] += "\\clearpage\n"
    return "% Needs \\usepackage{booktabs}.\n" + "\n".join(floats)


def _labels(tables: Sequence[Table]) -> list[str]:
    """Unique labels, such as `tab:demo-summary`."""
    labels: list[str] = []
    for table in tables:
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{table.group.get('sweep', '')}-{table.name}")
        stem = f"tab:{name.strip('-')}"
        taken = sum(
            re.fullmatch(re.escape(stem) + r"(-\d+)?", label) is not None for label in labels
        )
        labels.append(f"{stem}-{taken + 1}" if taken else stem)
    return labels


def _float(page: Page, caption: str, label: str) -> str:
    size, gap = page.size
    lines = [
        r"\begin{table}[t]",
        r"  \centering",
        *([f"  {size}"] if size else []),
        *([rf"  \setlength{{\tabcolsep}}{{{gap}}}"] if gap else []),
        r"  \setlength{\belowcaptionskip}{4pt}",
        "  " + rf"\caption{{{breakable(page.title)}. {breakable(caption)}.}}",
        *([rf"  \label{{{label}}}"] if label else []),
        "\n\n  \\medskip\n".join(_tabular(panel, page) for panel in page.panels),
        *_notes(page.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _tabular(table: Table, page: Page) -> str:
    wrapped = [column.key in page.wrapped for column in table.shown]
    end = r" \tabularnewline" if any(wrapped) else r" \\"
    types = [
        rf"p{{{page.wrapped_share}\linewidth}}" if wraps else column.align[0]
        for column, wraps in zip(table.shown, wrapped, strict=True)
    ]
    lines = [
        rf"  \begin{{tabular}}{{@{{}}{''.join(types)}@{{}}}}",
        r"    \toprule",
        "    " + " & ".join(map(_header, table.shown)) + end,
        r"    \midrule",
        *_rows(table, page.wrapped, end),
        r"    \bottomrule",
        r"  \end{tabular}",
    ]
    return "\n".join(lines)


def _rows(table: Table, wrapped: frozenset[str], end: str) -> list[str]:
    """The rows; a block of them is set off and says only once what it is about."""
    found = blocks(table)
    about = len(leads(table.columns)) - 1
    lines = []
    for i, block in enumerate(found):
        cells = _cells(table, i, wrapped)
        if i and block == found[i - 1]:
            cells = [*[""] * about, *cells[about:]]
        elif i:
            lines.append(r"    \addlinespace")
        row = " & ".join(cells)
        # The end of the row before would take them for its options.
        lines.append("    " + "{}" * row.startswith(("[", "*")) + row + end)
    return lines


def _notes(notes: Sequence[str]) -> list[str]:
    if not notes:
        return []
    text = " ".join(map(breakable, notes))
    return [r"  \par\smallskip", rf"  \parbox{{\linewidth}}{{\footnotesize {text}}}"]


def _header(column: Column) -> str:
    lines = [escape(line) for line in column.header.split("\n")]
    if len(lines) == 1:
        return lines[0]
    stacked = r"\\".join(lines)
    return rf"\begin{{tabular}}[b]{{@{{}}{column.align[0]}@{{}}}}{stacked}\end{{tabular}}"


def _cells(table: Table, index: int, wrapped: frozenset[str]) -> list[str]:
    cells = []
    for column, value in zip(table.columns, table.rows[index], strict=True):
        cell = _cell(column, value, column.key in wrapped)
        cells.append(rf"\textbf{{{cell}}}" if (index, column.key) in table.bold else cell)
    return cells


def _cell(column: Column, value: Cell, wrapped: bool) -> str:
    text = column.show(value)
    if wrapped:
        return rf"\raggedright {breakable(text)}"
    power = re.fullmatch(r"(<?\d)e-(\d+)", text) if column.kind == "p" else None
    if power:
        return rf"${power[1]}\times10^{{-{power[2]}}}$"
    return escape(text).replace(r" $\pm$ ", r"\,$\pm$\,")
