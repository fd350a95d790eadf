"""Tables as LaTeX floats that need the package `booktabs` and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kt_cli.report.conclusion import conclusions
from kt_cli.report.formats.latex_pages import Page, blocks, leads, pages, wrapped_at
from kt_cli.report.table import Cell, Column, Table

FLOATS_PER_CLEARPAGE = 12  # LaTeX holds back only so many floats
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
    return PATTERN.sub(lambda m: ESCAPES.get(m[0]) or rf"\texttt{{U+{ord(m[0]):04X}}}", text)


def _breakable(text: str) -> str:
    """Escaped text that may be broken inside paths and long names."""
    return re.sub(r"(?<=\S)(/|\\_|(?<=[a-z])\.(?=[a-z]))(?=\S)", r"\1\\allowbreak{}", escape(text))


def render_latex(tables: Sequence[Table]) -> str:
    """One float for each table, more where a table is longer or wider than a page."""
    floats = [
        _float(page, table.caption, "" if i else label)
        for table, label in zip(tables, _labels(tables), strict=True)
        for i, page in enumerate(pages(table))
    ]
    for last in range(FLOATS_PER_CLEARPAGE - 1, len(floats) - 1, FLOATS_PER_CLEARPAGE):
        floats[last] += "\\clearpage\n"
    said = "".join(f"% {' '.join(sentence.split())}\n" for sentence in conclusions(tables))
    return f"% Needs \\usepackage{{booktabs}}.\n{said}" + "\n".join(floats)


def _labels(tables: Sequence[Table]) -> list[str]:
    """Unique labels, such as `tab:demo-summary`."""
    labels: list[str] = []
    for table in tables:
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{table.group.get('sweep', '')}-{table.name}")
        stem = f"tab:{name.strip('-')}"
        same = re.compile(rf"{re.escape(stem)}(-\d+)?")
        taken = sum(same.fullmatch(label) is not None for label in labels)
        labels.append(f"{stem}-{taken + 1}" if taken else stem)
    return labels


def _float(page: Page, caption: str, label: str) -> str:
    size, gap = page.size
    notes = " ".join(map(_breakable, page.notes))
    lines = [
        r"\begin{table}[t]",
        r"  \centering",
        *([f"  {size}"] if size else []),
        *([rf"  \setlength{{\tabcolsep}}{{{gap}}}"] if gap else []),
        r"  \setlength{\belowcaptionskip}{4pt}",
        rf"  \caption{{{_breakable(page.title)}. {_breakable(caption)}.}}",
        *([rf"  \label{{{label}}}"] if label else []),
        "\n\n  \\medskip\n".join(_tabular(panel, page) for panel in page.panels),
        *([r"  \par\smallskip", rf"  \parbox{{\linewidth}}{{\footnotesize {notes}}}"]
          if page.notes else []),
        r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _tabular(table: Table, page: Page) -> str:
    wrapped = [column.key in page.wrapped for column in table.shown]
    end = r" \tabularnewline" if any(wrapped) else r" \\"
    share, _ = wrapped_at(page.wrapped)
    types = [
        rf"p{{{share}\linewidth}}" if wraps else column.align[0]
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
    for i, (row, block) in enumerate(zip(table.rows, found, strict=True)):
        cells = [
            _cell(column, value, column.key in wrapped, (i, column.key) in table.bold)
            for column, value in zip(table.columns, row, strict=True)
        ]
        if i and block == found[i - 1]:
            cells[:about] = [""] * about
        elif i:
            lines.append(r"    \addlinespace")
        text = " & ".join(cells)
        # The end of the row before would take them for its options.
        lines.append("    " + "{}" * text.startswith(("[", "*")) + text + end)
    return lines


def _header(column: Column) -> str:
    lines = [escape(line) for line in column.header.split("\n")]
    if len(lines) == 1:
        return lines[0]
    stacked = r"\\{}".join(lines)  # {}: a bracket that follows is no option
    return rf"\begin{{tabular}}[b]{{@{{}}{column.align[0]}@{{}}}}{stacked}\end{{tabular}}"


def _cell(column: Column, value: Cell, wrapped: bool, bold: bool) -> str:
    text = column.show(value)
    if wrapped:
        cell = rf"\raggedright {_breakable(text)}"
    elif column.kind == "p" and (power := re.fullmatch(r"(<?\d)e-(\d+)", text)):
        cell = rf"${power[1]}\times10^{{-{power[2]}}}$"
    else:
        cell = escape(text).replace(r" $\pm$ ", r"\,$\pm$\,")
    return rf"\textbf{{{cell}}}" if bold else cell
