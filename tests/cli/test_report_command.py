from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from click.testing import Result
from rich.console import Console

import kt_cli
from kt_cli.cli import report as report_command
from kt_cli.cli import table_view
from kt_cli.errors import DataError, KtError, UsageError
from kt_cli.report import formats
from kt_cli.rows import store
from kt_cli.settings import report
from kt_cli.settings.declared import declared
from tests.conftest import runner

LONG_NAME = "vit_base_patch16_clip_224.openai_ft_in12k_in1k"


def row(student: str, method: str, delta: float, **changes: Any) -> dict[str, Any]:
    data = {"data": "digits", "eval_data": "e", "eval_size": "test", "n": 100, "num_classes": 10}
    return {
        **data, "run_id": f"{student}{method}", "status": "ok", "attempt": 1, "created": "2025",
        "teacher": "resnet50", "student": student, "teacher_key": "resnet50",
        "student_key": student, "method": method, "seed": 0, "settings": "5e771465",
        "train_data": "t", "n_train": 50, "student_acc": 80.0, "delta": delta,
        "gain": max(delta, 0.0), "loss": max(-delta, 0.0), "transfer_p": 0.5,
        **changes,
    }  # fmt: skip


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `results` with one sweep, in the current directory."""
    monkeypatch.chdir(tmp_path)
    rows = [row(LONG_NAME, "kl", -1.0), row(LONG_NAME, "kl-dp", 2.0), row("b", "kl", 3.0)]
    store.write(tmp_path / "results" / "demo", "transfer", rows)
    return tmp_path / "results"


def kt_report(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(report_command.report)
    return runner().invoke(app, list(map(str, arguments)))


def test_choices_are_those_of_the_library() -> None:
    from kt_cli.report.plots import PLOTS, SUFFIXES
    from kt_cli.report.tables import TABLES

    assert list(report.FORMATS) == ["table", *formats.FORMATS, "html"]
    assert set(report.TABLES) == set(TABLES)
    assert list(report.PLOTS) == list(PLOTS)
    assert declared(report.ReportSpec)["plot_format"].said.choices == SUFFIXES


@pytest.mark.parametrize("arguments", [[], ["results"], ["results/demo"]])
def test_default_is_tables_of_results(results: Path, arguments: list[str]) -> None:
    outcome = kt_report(*arguments)
    assert outcome.exit_code == 0
    assert "Transfer by method" in outcome.stdout
    assert "Transfer delta by student" in outcome.stdout
    assert LONG_NAME in outcome.stdout
    assert outcome.stderr == ""


@pytest.mark.parametrize("width", [40, 80, 140])
def test_nothing_is_cut_at_any_width(results: Path, width: int) -> None:
    text = io.StringIO()
    tables = kt_cli.results(results).tables()
    table_view.draw(tables, console=Console(file=text, width=width))
    assert LONG_NAME in text.getvalue()
    assert "…" not in text.getvalue()
    assert "+2.00" in text.getvalue()


def test_names_are_no_markup(results: Path) -> None:
    store.write(results / "demo", "transfer", [row("[red]x[/]", "kl", 1.0)])
    assert "[red]x[/]" in kt_report("--table", "students").stdout


def test_one_table_as_csv_is_pure(results: Path) -> None:
    outcome = kt_report("--format", "csv", "--table", "summary")
    rows = list(csv.DictReader(io.StringIO(outcome.stdout)))
    assert [(r["method"], r["delta"]) for r in rows] == [("kl", "1.0"), ("kl-dp", "2.0")]


def test_tables_can_be_chosen_together(results: Path) -> None:
    outcome = kt_report("--format", "json", "--table", "students", "--table", "summary")
    assert [t["name"] for t in json.loads(outcome.stdout)] == ["summary", "students"]


@pytest.mark.parametrize(
    ("name", "arguments", "start"),
    [
        ("out.tex", [], "% Needs"),
        ("out.md", [], "**"),
        ("out.csv", ["--table", "summary"], "sweep,"),
        ("out.json", [], "["),
        ("out.txt", [], "Transfer by method"),
        ("out.txt", ["--format", "latex"], "% Needs"),
    ],
)
def test_writes_to_a_file(results: Path, name: str, arguments: list[str], start: str) -> None:
    outcome = kt_report("-o", Path("new") / name, *arguments)
    assert outcome.exit_code == 0
    assert outcome.stdout == ""
    assert outcome.stderr == f"Wrote new/{name}\n"
    text = Path("new", name).read_text(encoding="utf-8")
    assert text.startswith(start)
    assert "\x1b" not in text


def test_several_tables_as_csv_are_a_file_each(results: Path) -> None:
    outcome = kt_report("-o", "new/out.csv")
    files = sorted(Path("new").iterdir())
    assert outcome.exit_code == 0 and len(files) > 1
    assert sorted(outcome.stderr.splitlines()) == [f"Wrote {path}" for path in files]
    summary = pd.read_csv("new/out-summary.csv").set_index("method")
    assert summary["delta"].to_dict() == {"kl": 1.0, "kl-dp": 2.0}
    alone = kt_report("--format", "csv", "--table", "summary").stdout
    assert Path("new/out-summary.csv").read_text() == alone


def test_unknown_format_and_table_are_usage_errors(results: Path) -> None:
    for wrong in (("--format", "word"), ("--table", "pairs")):
        error = kt_report(*wrong).exception
        assert isinstance(error, UsageError) and wrong[1] in error.message and error.tip


def test_missing_path_names_it_and_the_way_out(results: Path) -> None:
    outcome = kt_report("results/nope")
    assert isinstance(outcome.exception, DataError)
    assert outcome.exception.exit_code == 2
    assert "results/nope" in outcome.exception.message
    assert outcome.exception.tip


def test_unreadable_part_is_named_on_stderr(results: Path) -> None:
    broken = results / "demo" / "transfer" / "part-broken.parquet"
    broken.write_bytes(b"no")
    outcome = kt_report()
    assert outcome.exit_code == 0
    assert "part-broken.parquet" in outcome.stderr
    assert "Transfer by method" in outcome.stdout
    assert "part-broken" not in outcome.stdout


def test_only_failures_are_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        row(name, "kl", 0.0, status="failed", error=error)
        for name, error in (("a", "no memory"), ("b", "no memory"), ("c", "no disk"))
    ]
    store.write(tmp_path / "results" / "demo", "transfer", rows)
    outcome = kt_report()
    assert isinstance(outcome.exception, KtError)
    assert outcome.exception.exit_code == 1
    assert "3 runs failed" in outcome.exception.message
    assert outcome.exception.message.count("no memory") == 1
    assert "no disk" in outcome.exception.message
    assert "Failed runs" in outcome.stdout


def test_importing_the_command_imports_nothing_heavy() -> None:
    code = (
        "import sys, kt_cli.cli.report; "
        "print([m for m in ('torch', 'pandas', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reporting_imports_no_torch(results: Path) -> None:
    code = (
        "import sys, kt_cli, kt_cli.report.formats; "
        "kt_cli.results().tables(); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=results.parent
    )
    assert done.stdout.strip() == "False"
