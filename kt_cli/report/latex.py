"""Tables as LaTeX floats that need the package `booktabs` and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from kt_cli.report.table import Column, Table

ROWS_PER_FLOAT = 36
FLOATS_PER_CLEARPAGE = 12  # LaTeX holds back only so many floats
LONGEST_NAME, WRAPPED = 48, 27  # in characters; longer text is wrapped
# Characters that fit the text width of `article` at each size, and the space between columns.
SIZES = ((62, "", ""), (70, r"\small", ""), (86, r"\footnotesize", "4pt"))
SMALLEST = (90, r"\scriptsize", "3pt")
GAP = 2

ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": "$<$", ">": "$>$", "|": "$|$", '"': "''", "`": r"\textasciigrave{}",
    "ρ⁺": r"$\rho^{+}$", "ρ⁻": r"$\rho^{-}$", "ρ": r"$\rho$", "Δ": r"$\Delta$", "κ": r"$\kappa$",
    "λ": r"$\lambda$", "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "→": r"$\rightarrow$",
    "≤": r"$\leq$", "≥": r"$\geq$", "·": r"$\cdot$", "–": "--", "—": "---", "’": "'", "‘": "`",
    "“": "``", "”": "''", "…": r"\ldots{}", "-": "-{}", "\n": " ", "\t": " ", "\u00a0": "~",
}  # fmt: skip
# What OT1 fonts can set besides ASCII.
LATIN = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ"
SPECIAL = "|".join(re.escape(key) for key in ESCAPES if key != "-")
PATTERN = re.compile(rf"{SPECIAL}|-(?=-)|[^ -~{LATIN}]")


def escape(text: str) -> str:
    """`text` as LaTeX that sets exactly it; a character without a glyph is named by its code."""

    def replacement(match: re.Match[str]) -> str:
        found = match.group()
        return ESCAPES.get(found) or rf"\texttt{{U+{ord(found):04X}}}"

    return PATTERN.sub(replacement, text)


def render_latex(tables: Sequence[Table]) -> str:
    """One float for each table, more where a table is longer or wider than a page."""
    floats = [
        _float(piece, label if piece.title == table.title else "")
        for table, label in zip(tables, _labels(tables), strict=True)
        for piece in _pieces(table)
    ]
    for last in range(FLOATS_PER_CLEARPAGE - 1, len(floats) - 1, FLOATS_PER_CLEARPAGE):
        floats[last] += "\\clearpage\n"
    return "% Needs \\usepackage{booktabs}.\n" + "\n".join(floats)


def _pieces(table: Table) -> list[Table]:
    """The table cut into as many as fit a page each, its notes under the last."""
    pieces = [
        _piece(table, columns, range(start, min(start + ROWS_PER_FLOAT, len(table.rows))))
        for columns in _panels(table)
        for start in range(0, max(1, len(table.rows)), ROWS_PER_FLOAT)
    ]
    pieces[0] = replace(pieces[0], title=table.title)
    pieces[-1] = replace(pieces[-1], notes=table.notes)
    return pieces


def _piece(table: Table, columns: Sequence[Column], rows: range) -> Table:
    places = [table.columns.index(column) for column in columns]
    return replace(
        table,
        title=f"{table.title} (continued)",
        columns=tuple(columns),
        rows=tuple(tuple(table.rows[i][place] for place in places) for i in rows),
        notes=(),
        bold=frozenset((i - rows.start, key) for i, key in table.bold if i in rows),
    )


def _panels(table: Table) -> list[list[Column]]:
    """The columns in groups that fit the width at the smallest size; the first is in each."""
    (first, lead), *others = zip(table.shown, _widths(table), strict=True)
    panels, widths = [[first]], [lead]
    for column, width in others:
        widths.append(width)
        if _set_width(widths) > SMALLEST[0] and len(panels[-1]) > 1:
            panels.append([first])
            widths = [lead, width]
        panels[-1].append(column)
    return panels


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


def _float(table: Table, label: str) -> str:
    widths = _widths(table)
    size, gap = _size(widths)
    end = r" \tabularnewline" if max(widths) > LONGEST_NAME else r" \\"
    lines = [
        r"\begin{table}[t]",
        r"  \centering",
        *([f"  {size}"] if size else []),
        *([rf"  \setlength{{\tabcolsep}}{{{gap}}}"] if gap else []),
        r"  \setlength{\belowcaptionskip}{4pt}",
        "  " + rf"\caption{{{_breakable(table.title)}. {_breakable(table.caption)}.}}",
        *([rf"  \label{{{label}}}"] if label else []),
        rf"  \begin{{tabular}}{{@{{}}{_column_types(table, widths)}@{{}}}}",
        r"    \toprule",
        "    " + " & ".join(map(_header, table.shown)) + end,
        r"    \midrule",
        *("    " + " & ".join(_cells(table, i, widths)) + end for i in range(len(table.rows))),
        r"    \bottomrule",
        r"  \end{tabular}",
        *_notes(table),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _notes(table: Table) -> list[str]:
    if not table.notes:
        return []
    text = " ".join(map(_breakable, table.notes))
    return [r"  \par\smallskip", rf"  \parbox{{\linewidth}}{{\footnotesize {text}}}"]


def _header(column: Column) -> str:
    lines = [escape(line) for line in column.header.split("\n")]
    if len(lines) == 1:
        return lines[0]
    stacked = r"\\".join(lines)
    return rf"\begin{{tabular}}[b]{{@{{}}{column.align[0]}@{{}}}}{stacked}\end{{tabular}}"


def _cells(table: Table, index: int, widths: Sequence[int]) -> list[str]:
    cells = []
    for column, value, width in zip(table.columns, table.rows[index], widths, strict=True):
        text = column.show(value)
        if width > LONGEST_NAME:
            cell = rf"\raggedright {_breakable(text)}"
        else:
            cell = escape(text).replace(r" $\pm$ ", r"\,$\pm$\,")
        cells.append(rf"\textbf{{{cell}}}" if (index, column.key) in table.bold else cell)
    return cells


def _breakable(text: str) -> str:
    """Escaped text that may be broken inside paths and long names."""
    return re.sub(r"(?<=\S)(/|\\_|(?<=[a-z])\.(?=[a-z]))(?=\S)", r"\1\\allowbreak{}", escape(text))


def _widths(table: Table) -> list[int]:
    """Characters of the widest line of each shown column."""
    headers = [max(map(len, column.header.split("\n"))) for column in table.shown]
    rows = [list(map(len, texts)) for texts in table.texts()]
    return [max(lengths) for lengths in zip(headers, *rows, strict=True)]


def _set_width(widths: Sequence[int]) -> int:
    """Characters that columns of these widths take on the page, with the space between them."""
    taken = [WRAPPED if width > LONGEST_NAME else width for width in widths]
    return sum(taken) + GAP * (len(taken) - 1)


def _column_types(table: Table, widths: Sequence[int]) -> str:
    return "".join(
        r"p{0.38\linewidth}" if width > LONGEST_NAME else column.align[0]
        for column, width in zip(table.shown, widths, strict=True)
    )


def _size(widths: Sequence[int]) -> tuple[str, str]:
    """Font size and space between columns with which the table fits the text width."""
    total = _set_width(widths)
    return next(((size, gap) for most, size, gap in SIZES if total <= most), SMALLEST[1:])
