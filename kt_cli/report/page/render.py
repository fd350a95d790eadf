"""A report as one HTML file that needs nothing else, and nothing from the network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from kt_cli.errors import counted
from kt_cli.report.conclusion import conclusions
from kt_cli.report.page.blocks import Section
from kt_cli.report.page.fields import TITLES
from kt_cli.report.page.options import images, references
from kt_cli.report.page.plots import drawing_of, figure, plots_section
from kt_cli.report.page.rows import Part, pack
from kt_cli.report.page.sweeps import sweeps_section
from kt_cli.report.page.tables import tables_section
from kt_cli.report.plots import Drawn
from kt_cli.report.read import Results
from kt_cli.report.table import Table

# The page stays below 10 MB, whatever the results are.
LARGEST, TABLES, PLOTS = 9_500_000, 2_500_000, 3_000_000
SOME = {"transfer": "method == 'kl-dp'", "complementarity": "acc_diff < 0"}
FIRST, SMALLEST = "success", 0.72  # the plot at the top, which a phone shows whole
SCRIPTS = ("page.js", "columns.js", "outcome.js", "rows.js", "marks.js")
FEW = 4  # sweeps whose names stand at the top


def render_page(
    results: Results, tables: Sequence[Table], plots: Sequence[Drawn],
    served: bool = False,
) -> str:  # fmt: skip
    """The page as text: at most 10 MB of UTF-8, the same for the same results.

    Transfers and pairs are in it row by row where there are at most MAX_ROWS of them.

    Args:
        served: it comes from `report.serve.Server`, and asks that for rows.
    """
    # Failed transfers are rows too: pairs with a reason.
    frames = {table: [results.ok(table)] for table in TITLES}
    frames["transfer"].append(results.failed("transfer"))
    first = next((plot for plot in plots if plot.name == FIRST), None)
    others = [plot for plot in plots if plot is not first]
    sections = [
        _conclusion(conclusions(tables), first), tables_section(tables, TABLES),
        plots_section(others, PLOTS),
    ]  # fmt: skip
    about = sweeps_section(results.frames, results.folders)
    used = sum(len(section.markup().encode()) for section in (*sections, about))
    parts = pack(frames, LARGEST - used)
    sections += [*(_rows_section(part, results.filtered, served) for part in parts), about]
    filled = [section for section in sections if section.html]
    data = _data(parts if served else [p for p in parts if not p.refused], results)
    return _document(filled, _summary(results), data, served)


def _conclusion(sentences: Sequence[str], first: Drawn | None) -> Section:
    """What follows from all of it, and the plot that shows it."""
    said = "".join(f'<p class="said">{escape(sentence)}</p>' for sentence in sentences)
    drawn = "" if first is None else figure(drawing_of(first), first, "plot-first", least=SMALLEST)
    return Section("conclusion", "Conclusion", said + drawn)


def _rows_section(part: Part, filtered: Mapping[str, int], served: bool) -> Section:
    title, notes = TITLES[part.table], []
    count = f"{part.count:,} {title.lower()}"
    if part.refused:
        refused, choose = f"The {count} are not in this page: {part.refused}.", SOME[part.table]
        notes.append(
            f"{refused} Ask for some, such as {choose}."
            if served
            else f'{refused} Choose some with kt report --where, such as --where "{choose}".'
        )
    if part.dropped:
        notes.append(f"Columns not in this page for its size: {', '.join(part.dropped)}.")
    if filtered.get(part.table):
        notes.append(f"--where left out {filtered[part.table]:,} more.")
    text = "".join(f'<p class="caption">{escape(note)}</p>' for note in notes)
    mount = "" if part.refused else f'<div class="rows" data-rows="{part.table}"></div>'
    mount = f'<div class="ask" data-ask="{part.table}"></div>' * served + mount
    return Section(part.table, title, text + mount)


def _summary(results: Results) -> str:
    nouns = {"models": "model", "complementarity": "pair", "transfer": "transfer"}
    finished = {noun: len(results.ok(table)) for table, noun in nouns.items()}
    counts = [counted(count, noun) for noun, count in finished.items() if count]
    failed = sum(len(results.failed(table)) for table in results.frames)
    counts += [counted(failed, "failed run")] if failed else []
    counts += [counted(len(results.skipped), "unreadable file")] if results.skipped else []
    few = len(results.folders) <= FEW
    sweeps = ", ".join(results.folders) if few else f"{len(results.folders)} sweeps"
    return f"{sweeps}: {', '.join(counts) or 'no rows'}"


def _data(parts: Sequence[Part], results: Results) -> list[dict[str, Any]]:
    known = {"references": references(results.folders), "images": images(results.folders)}
    return [{**part.as_json(), **known} for part in parts]


def _document(
    sections: Sequence[Section], summary: str, data: Sequence[Mapping[str, Any]], served: bool
) -> str:
    package = files(__package__)
    template, style, *scripts = (
        package.joinpath(name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", *SCRIPTS, *("ask.js",) * served)
    )
    script = "\n".join(scripts)
    links = "".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in sections)
    return Template(template).substitute(
        policy=_policy(script, "connect-src 'self'; " * served),
        summary=escape(summary),
        style=style,
        links=links,
        body="\n".join(section.markup() for section in sections),
        data=in_script(data),
        script=script,
    )


def _policy(script: str, more: str = "") -> str:
    """Nothing is loaded beyond `more`; of scripts only the page's own runs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        f"img-src data:; {more}base-uri 'none'; form-action 'none'"
    )


def in_script(value: object) -> str:
    """JSON that ends no script element and is no markup."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
