from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kt_cli.report.formats import render_csv, render_json, render_latex, render_markdown
from kt_cli.report.formats.latex import escape
from kt_cli.report.formats.latex_pages import ROWS_PER_FLOAT, pages
from kt_cli.report.query import Query
from kt_cli.report.table import NAMES, Cell, Column, Interval, MeanStd, Table
from tests.report.records import sweep_tables

NAN = float("nan")
COLUMNS = (
    Column("model", "model", "text"),
    Column("n", "n", "count"),
    Column("delta", "Δ\n(pp)", "signed"),
    Column("rate", "rate", digits=1),
    Column("raw", detail=True),
)
ROWS = (
    ("vit_b|16", 1437, MeanStd(-0.125, 1.5, 3), 1 / 3, 0.1),
    ("a&b 50% #1", 2, MeanStd(0.25, NAN, 1), NAN, None),
)
TABLE = Table(
    "summary", "By method", COLUMNS, ROWS, "On a_b", ("p < 0.05",),
    {"sweep": "demo", "limit": None}, frozenset({(1, "delta")}),
)  # fmt: skip
OTHER = Table("models", "Models", COLUMNS[:2], (("m", 1),), group={"sweep": "demo"})


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        (Column("x"), 1.005, "1.00"),
        (Column("x"), -1234.5, "−1,234.50"),
        (Column("x", kind="signed"), 0.5, "+0.50"),
        (Column("x", kind="signed"), -0.001, "0.00"),
        (Column("x", kind="signed"), MeanStd(1.0, 0.25, 2), "+1.00 ± 0.25"),
        (Column("x", kind="signed"), MeanStd(1.0, NAN, 1), "+1.00"),
        (Column("x", kind="count"), 128117, "128,117"),
        (Column("x"), None, "–"),
        (Column("x"), NAN, "–"),
        (Column("x", kind="text"), "a-b", "a-b"),
        (Column("x"), 3, "3"),
        (Column("x"), MeanStd(3, 1, 2), "3.00 ± 1.00"),
        (Column("x"), Interval(1.234, 0.98, 1.4), "1.23 [0.98, 1.40]"),
        (Column("x", kind="signed"), Interval(0.0, -1.0, 1.4), "0.00 [−1.00, +1.40]"),
        (Column("x", digits=1), Interval(100.0, NAN, NAN), "100.0"),
        (Column("x"), Interval(NAN, NAN, NAN), "–"),
        (Column("x", kind="range"), Interval(0.5, -0.25, 1.0), "[−0.25, +1.00]"),
        (Column("x", kind="range"), Interval(0.5, NAN, NAN), "–"),
        (Column("x", kind="p"), 0.04321, "0.043"),
        (Column("x", kind="p"), 0.00004, "4e-5"),
        (Column("x", kind="p"), 1.23e-13, "1e-13"),
        (Column("x", kind="p"), 0.0, "<1e-15"),
    ],
)
def test_cells_for_readers(column: Column, value: Cell, shown: str) -> None:
    assert column.show(value) == shown


def test_rows_must_fit_the_columns() -> None:
    with pytest.raises(ValueError, match="5 cells"):
        Table("summary", "t", COLUMNS, (("a", 1),))


def test_markdown() -> None:
    assert render_markdown([TABLE]).splitlines() == [
        "### By method",
        "",
        "On a_b.",
        "",
        "| model       |     n |       Δ (pp) | rate |",
        "| ----------- | ----: | -----------: | ---: |",
        r"| vit_b\|16   | 1,437 | −0.13 ± 1.50 |  0.3 |".replace("−0.13", "−0.12"),
        r"| a&b 50% \#1 |     2 |    **+0.25** |    – |",
        "",
        r"- p \< 0.05",
    ]


def test_csv_of_one_table_is_pure_and_raw() -> None:
    first, second = csv.DictReader(io.StringIO(render_csv([TABLE])))
    assert first == {
        "sweep": "demo", "limit": "", "model": "vit_b|16", "n": "1437", "delta": "-0.125",
        "delta_std": "1.5", "delta_n": "3", "rate": repr(1 / 3), "raw": "0.1",
    }  # fmt: skip
    assert (second["delta_std"], second["rate"], second["raw"]) == ("", "", "")


def test_intervals_for_machines() -> None:
    table = Table("summary", "t", (Column("x", "x"),), ((Interval(1.5, 1.25, NAN),),))
    (record,) = csv.DictReader(io.StringIO(render_csv([table])))
    assert record == {"x": "1.5", "x_low": "1.25", "x_high": ""}
    (found,) = json.loads(render_json([table]))
    assert found["rows"] == [{"x": {"value": 1.5, "low": 1.25, "high": None}}]


def test_markdown_leaves_intervals_as_they_are_but_no_links() -> None:
    rows = ((Interval(1.5, 1.25, 2.0), "[a](b) [c][d]"),)
    table = Table("summary", "t", (Column("x", "x"), Column("y", "y", "text")), rows)
    text = render_markdown([table])
    assert "1.50 [1.25, 2.00]" in text
    assert r"[a\](b) [c\][d]" in text


def test_csv_of_one_kind_in_two_groups_is_still_one_table() -> None:
    other = Table("summary", "By method", COLUMNS[:2], (("x", 9),), group={"sweep": "second"})
    rows = list(csv.DictReader(io.StringIO(render_csv([TABLE, other]))))
    assert [row["sweep"] for row in rows] == ["demo", "demo", "second"]
    assert (rows[2]["n"], rows[2]["delta"]) == ("9", "")


def test_csv_of_several_tables_is_in_blocks() -> None:
    blocks = render_csv([TABLE, OTHER]).split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == ["# By method", "# Models"]
    assert blocks[1].splitlines()[1:] == ["sweep,model,n", "demo,m,1"]


def test_csv_of_an_empty_table_has_its_header() -> None:
    assert render_csv([Table("failures", "f", COLUMNS[:2], ())]) == "model,n\n"


def test_json_has_raw_values_and_null_for_nan() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    (table,) = json.loads(render_json([TABLE]), parse_constant=refuse)
    assert table["title"] == "By method"
    assert table["columns"] == ["model", "n", "delta", "rate", "raw"]
    assert table["rows"][0]["delta"] == {"mean": -0.125, "std": 1.5, "n": 3}
    assert table["rows"][0]["rate"] == 1 / 3
    assert table["rows"][1]["rate"] is None
    assert table["rows"][1]["delta"]["std"] is None
    assert table["notes"] == ["p < 0.05"]
    assert table["group"] == {"sweep": "demo", "limit": None}


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("a_b & 5% #1 $x {y}", r"a\_b \& 5\% \#1 \$x \{y\}"),
        (r"C:\x~^", r"C:\textbackslash{}x\textasciitilde{}\textasciicircum{}"),
        ("ρ⁺ Δ κ ± −1", r"$\rho^{+}$ $\Delta$ $\kappa$ $\pm$ $-$1"),
        ("p < 0.05 > x|y", "p $<$ 0.05 $>$ x$|$y"),
        ("--limit ---", "-{}-limit -{}-{}-"),
        ("é 模", r"é \texttt{U+6A21}"),
    ],
)
def test_latex_escapes(text: str, latex: str) -> None:
    assert escape(text) == latex


def test_latex_table() -> None:
    text = render_latex([TABLE])
    for part in (
        r"\begin{table}[t]", r"\centering", r"\caption{By method. On a\_\allowbreak{}b.}",
        r"\label{tab:demo-summary}", r"\begin{tabular}{@{}lrrr@{}}", r"\toprule",
        r"vit\_b$|$16 & 1,437 & $-$0.12\,$\pm$\,1.50 & 0.3 \\",
        r"a\&b 50\% \#1 & 2 & \textbf{+0.25} & -- \\", r"\bottomrule", "p $<$ 0.05",
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("name", ["[1, 2]", "*"])
def test_rows_are_no_options_of_the_line_before(name: str) -> None:
    column = Column("name", "name", "text")
    text = render_latex([Table("t", "T", (column, Column("n", "n", "count")), ((name, 1),))])
    assert f"    {{}}{name}" in text


def test_a_conclusion_ends_no_comment_of_latex() -> None:
    text = render_latex([replace(TABLE, conclusion="a\nb \\input{c}")])
    assert "% a b \\input{c}\n" in text


def test_latex_labels_are_unique() -> None:
    text = render_latex([TABLE, TABLE, TABLE, OTHER])
    labels = [line.strip() for line in text.splitlines() if r"\label" in line]
    assert labels == [rf"\label{{tab:demo-{x}}}"
                      for x in ("summary", "summary-2", "summary-3", "models")]  # fmt: skip


def test_long_latex_tables_are_continued() -> None:
    rows = tuple((f"m{i}", i) for i in range(ROWS_PER_FLOAT + 1))
    table = Table("models", "Models", COLUMNS[:2], rows, notes=("last",),
                  bold=frozenset({(ROWS_PER_FLOAT, "n")}))  # fmt: skip
    first, second = render_latex([table]).split(r"\end{table}")[:2]
    assert "(continued)" in second
    assert rf"m{ROWS_PER_FLOAT} & \textbf{{{ROWS_PER_FLOAT}}}" in second
    assert r"\label" not in second
    assert "last" in second
    assert "last" not in first
    assert "m0 &" in first


def test_wide_latex_tables_are_cut_into_panels_that_repeat_the_first_column() -> None:
    columns = (Column("s", "student", "text"), *(Column(f"m{i}", f"m{i}") for i in range(12)))
    table = Table("students", "t", columns, (("name", *(MeanStd(i, 1.0, 2) for i in range(12))),))
    text = render_latex([table])
    assert text.count("student &") == text.count(r"\begin{tabular}{") > 1
    assert text.count(r"\begin{table}") == 1  # few rows: below each other
    assert all(text.count(f"{i}.00\\,") == 1 for i in range(2, 10))


def test_panels_are_about_equally_wide_and_repeat_what_leads_a_row() -> None:
    columns = (
        Column("a", "a", "text", lead=True), Column("b", "b", "text", lead=True),
        *(Column(f"m{i}", f"m{i}") for i in range(12)),
    )  # fmt: skip
    cells = [MeanStd(10.0, 1.0, 2)] * 12
    table = Table("summary", "t", columns, (("x", "y", *cells), ("x", "z", *cells)))
    (page,) = pages(table)
    assert [[c.key for c in panel.columns[:2]] for panel in page.panels] == [["a", "b"]] * 2
    assert [len(panel.columns) for panel in page.panels] == [8, 8]


def test_a_block_of_rows_is_set_off_and_says_once_what_it_is_about() -> None:
    columns = (Column("a", "a", "text", lead=True), Column("b", "b", "text", lead=True))
    rows = (("x", "1"), ("x", "2"), ("y", "1"))
    lines = render_latex([Table("summary", "t", columns, rows)]).splitlines()
    place = next(i for i, line in enumerate(lines) if "addlinespace" in line)
    assert [line.strip() for line in lines[place - 2 : place]] == [r"x & 1 \\", r"& 2 \\"]
    assert "y & 1" in lines[place + 1]
    assert sum("addlinespace" in line for line in lines) == 1


def test_long_headers_are_set_in_lines() -> None:
    columns = (Column("s", "student", "text"), Column("t", "vit_base_patch16_224", "signed"))
    text = render_latex([Table("matrix", "t", columns, (("a", 1.5),))])
    assert r"{@{}r@{}}vit\_base\_\\{}patch16\_\\{}224\end{tabular}" in text


def test_a_line_of_a_header_is_no_option_of_the_one_before() -> None:
    columns = (Column("s", "student", "text"), Column("m", "mean\n[95%\ninterval]", "signed"))
    text = render_latex([Table("complementarity", "t", columns, (("a", 1.5),))])
    assert r"mean\\{}[95\%\\{}interval]" in text


def test_small_p_values_are_powers_of_ten_in_latex() -> None:
    text = render_latex([Table("compare", "t", (Column("p", "p", "p"),), ((3e-12,),))])
    assert r"$3\times10^{-12}$" in text


def test_wrapped_rows_take_several_lines_of_a_page() -> None:
    columns = (Column("m", "model", "text"), Column("e", "error", "text"))
    rows = tuple((f"m{i}", "word " * 30) for i in range(ROWS_PER_FLOAT))
    found = pages(Table("failures", "t", columns, rows))
    assert [row for page in found for row in page.panels[0].rows] == list(rows)
    assert all(len(page.panels[0].rows) <= ROWS_PER_FLOAT // 5 for page in found)


def test_many_notes_leave_fewer_rows_to_a_page() -> None:
    rows = tuple((f"m{i}", i) for i in range(ROWS_PER_FLOAT))
    table = Table("models", "Models", COLUMNS[:2], rows, notes=("word " * 300,))
    assert len(pages(table)) == 2
    assert len(pages(replace(table, notes=("word",)))) == 1


@pytest.mark.latex
def test_latex_compiles(filled: Any, tmp_path: Path) -> None:
    pdflatex = shutil.which("pdflatex")
    if pdflatex is None:
        assert os.environ.get("KT_REQUIRE_LATEX") != "1", "KT_REQUIRE_LATEX=1 without pdflatex"
        pytest.skip("pdflatex is not installed")
    error = 'OSError: "C:\\x" `y` ~ ^ {z} $HOME/<a_b>/100%_#1&2 | 模型 é — ' + "long " * 20
    filled.write("transfer", [filled.failed("transfer", error, settings="5e771465")])
    many = [f"some_very_long_name_{i}.with_100%_tag" for i in range(2 * ROWS_PER_FLOAT)]
    filled.write("models", [filled.model(name) for name in many])
    fill_teams(filled)
    tables = sweep_tables([filled.folder], NAMES, Query(against="paper"))
    tables += sweep_tables([filled.folder], ["summary"], Query(by=("student", "stronger")))
    (tmp_path / "tables.tex").write_text(render_latex(tables), encoding="utf-8")
    (tmp_path / "main.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n"
        "\\begin{document}\n\\input{tables}\n\\end{document}\n"
    )
    command = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert (tmp_path / "main.pdf").stat().st_size > 0
    for complaint in ("Float too large", "multiply defined", "Missing character", "Overfull"):
        assert complaint not in log


def fill_teams(sweep: Any) -> None:
    """Teams of four long names, and a student of a published name."""
    names = [f"vit_base_patch16_clip_224.openai_ft_in12k_in1k_{i}" for i in range(4)]
    ways = (
        {},
        {"settings": "5e9", "together": "sequential", "order": "asc", "step_accs": [81.0] * 4},
        {"settings": "50a9", "together": "soup", "step_accs": [82.0] * 4},
    )
    for student in ("mixer_b16_224.goog_in21k_ft_in1k", "resnet50"):
        sweep.write("transfer", [
            *(sweep.transfer(name, student, method=m) for name in names for m in ("kl", "xekl")),
            *(sweep.team(names, student, method=m, **way) for way in ways for m in ("kl", "xekl")),
        ])  # fmt: skip
