"""What the options of kt report do together, and what it says where there is nothing to show."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result

from kt_cli.cli import report
from kt_cli.errors import KtError, UsageError, WriteError
from kt_cli.rows import store
from tests.conftest import runner

Sweep = Any  # of the conftest beside this file


@pytest.fixture
def kt_report(filled: Sweep, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs kt report beside a filled folder `results`."""
    monkeypatch.chdir(filled.folder.parents[1])
    app = typer.Typer()
    app.command()(report.report)

    def run(*arguments: object) -> Result:
        return runner().invoke(app, list(map(str, arguments)))

    return run


def records(outcome: Result) -> list[dict[str, str]]:
    assert outcome.exit_code == 0, outcome.exception
    return list(csv.DictReader(io.StringIO(outcome.stdout)))


def refused(outcome: Result, error: type[KtError], code: int) -> KtError:
    assert isinstance(outcome.exception, error)
    assert outcome.exception.exit_code == code
    return outcome.exception


def test_where_by_sort_columns_and_top_make_the_table_wanted(kt_report: Any, filled: Sweep) -> None:
    found = records(kt_report(
        "--table", "summary", "--format", "csv", "--where", "method in ['kl', 'kl-dp']",
        "--by", "student_type", "--sort", "-gain,method",
        "--columns", "student_type,method,gain", "--columns", "n", "--top", "4",
    ))  # fmt: skip
    rows = store.read([filled.folder], "transfer")
    rows = rows[rows["method"].isin(["kl", "kl-dp"])]
    types = {"vit_base_patch16_224": "transformer", "mixer_50%_b16": "mlp"}
    kind = rows["student"].map(lambda name: types.get(name, "cnn"))
    gains = rows.groupby([kind, "method"])["gain"].agg(["mean", "size"]).reset_index()
    gains = gains.sort_values(["mean", "method"], ascending=[False, True]).head(4)
    assert [(r["student_type"], r["method"]) for r in found] == list(
        zip(gains["student"], gains["method"], strict=True)
    )
    assert [float(r["gain"]) for r in found] == pytest.approx(list(gains["mean"]))
    assert [int(r["n"]) for r in found] == list(gains["size"])
    assert list(found[0])[-4:] == ["student_type", "method", "gain", "n"]


def test_seed_average_counts_pairs(kt_report: Any) -> None:
    plain, averaged = (
        records(kt_report("--table", "summary", "--format", "csv", *more))
        for more in ([], ["--seed-average"])
    )
    assert {r["n"] for r in plain} == {"24"}
    assert {r["n"] for r in averaged} == {"12"}
    deltas = [[float(r["delta"]) for r in rows] for rows in (plain, averaged)]
    assert deltas[0] == pytest.approx(deltas[1])


def test_against_the_paper_marks_what_is_published(kt_report: Any) -> None:
    outcome = kt_report("--table", "summary", "--against", "paper")
    assert outcome.exit_code == 0
    assert "published" in outcome.stdout


def test_the_footnote_says_what_where_left_out(kt_report: Any) -> None:
    outcome = kt_report("--table", "summary", "--where", "seed == 0 and method == 'kl'")
    assert "leaves out 108 transfers" in " ".join(outcome.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "metod == 'kl'"], "unknown column 'metod'"),
        (["--where", "delta > "], "--where: not understood"),
        (["--by", "student_famly"], "unknown column 'student_famly'"),
        (["--sort", "-detla"], "'detla'"),
        (["--columns", "zzz"], "'zzz'"),
        (["-o", "table.xlsx"], "table.xlsx says no format"),
        (["-o", "table"], "table says no format"),
        (["-o", "results/demo.tex"], "is a folder"),
        (["--plot", "delta"], "--plot draws nothing by itself"),
        (["--plot-format", "png"], "--plot-format needs plots"),
        (["--plots", "file"], "is a file"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_written(
    kt_report: Any, arguments: list[str], message: str
) -> None:
    Path("results/demo.tex").mkdir()
    Path("file").write_text("")
    outcome = kt_report(*arguments)
    assert message in refused(outcome, UsageError, 2).message
    assert outcome.stdout == ""


@pytest.mark.parametrize("arguments", [["--top", "0"], ["--against", "us"], ["--plot", "pie"]])
def test_choices_that_do_not_exist_are_refused(kt_report: Any, arguments: list[str]) -> None:
    outcome = kt_report(*arguments)
    assert outcome.exit_code == 2 or isinstance(outcome.exception, UsageError)


def test_a_method_that_nobody_ran(kt_report: Any) -> None:
    outcome = kt_report("--where", "method == 'crd'")
    error = refused(outcome, KtError, 1)
    assert "leaves out all 120 rows" in error.message
    assert "There is method kl, kl-dp, kl-dp+guard, kl-dp-u, xekl." in error.tip
    assert outcome.stdout == ""


def test_only_failures_under_a_condition(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep.write("transfer", [sweep.failed("transfer", "no memory")])
    monkeypatch.chdir(sweep.folder.parents[1])
    app = typer.Typer()
    app.command()(report.report)
    for more in (["--table", "summary"], ["--where", "delta > 0"], ["-o", "r.html"]):
        error = refused(runner().invoke(app, more), KtError, 1)
        assert error.message == "no results: 1 run failed and none succeeded: no memory"
    assert "no memory" in Path("r.html").read_text(encoding="utf-8")


def test_trained_but_never_used_models(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = {**sweep.outcome(), "model": "vit", "data": "digits"}
    sweep.write("pretrain", [trained])
    monkeypatch.chdir(sweep.folder.parents[1])
    app = typer.Typer()
    app.command()(report.report)
    error = refused(runner().invoke(app, []), KtError, 1)
    assert error.message == "there are no results to report yet"


def test_one_pair_and_no_delta_are_tables_too(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.write("transfer", [
        sweep.transfer("resnet50", "convnext_tiny"),
        sweep.transfer("resnet50", "convnext_tiny", method="kl", delta=None, transfer_p=None),
    ])  # fmt: skip
    monkeypatch.chdir(sweep.folder.parents[1])
    app = typer.Typer()
    app.command()(report.report)
    outcome = runner().invoke(app, [])
    assert outcome.exit_code == 0, outcome.exception
    assert "1 transfer without Δ" in outcome.stdout
    assert "nan" not in outcome.stdout.lower()


def test_what_cannot_be_written_is_named(kt_report: Any) -> None:
    Path("file").write_text("")
    error = refused(kt_report("-o", "file/table.tex"), WriteError, 1)
    assert "file/table.tex" in error.message


def test_plots_are_files_beside_the_tables(kt_report: Any, tmp_path: Path) -> None:
    outcome = kt_report(
        "--table", "summary", "--plots", tmp_path / "plots", "--plot", "success",
        "--plot-format", "svg", "--plot-format", "png",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.exception
    assert "Transfer by method" in outcome.stdout
    written = sorted(path.suffix for path in (tmp_path / "plots").iterdir())
    assert written == [".png", ".svg"]
    assert outcome.stderr.count("Wrote ") == 2


def test_nothing_to_plot_is_said(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep.write("models", [sweep.model("resnet50")])
    monkeypatch.chdir(sweep.folder.parents[1])
    app = typer.Typer()
    app.command()(report.report)
    outcome = runner().invoke(app, ["--plots", "plots", "--plot", "curves"])
    error = refused(outcome, KtError, 1)
    assert error.message == "nothing to plot: no rows for curves"
    assert "Models" in outcome.stdout  # the tables are shown all the same


def test_the_page_has_tables_and_the_plots_named(kt_report: Any) -> None:
    outcome = kt_report("-o", "r.html", "--table", "summary", "--plot", "success")
    assert outcome.exit_code == 0, outcome.exception
    page = Path("r.html").read_text(encoding="utf-8")
    assert page.startswith(("<!doctype html>", "<!DOCTYPE html>"))
    assert "Transfer by method" in page
    assert page.count("<svg") >= 1
    assert outcome.stderr == "Wrote r.html\n"


def test_tables_of_all_formats_agree(kt_report: Any) -> None:
    chosen = ["--table", "students", "--columns", "student,kl-dp", "--sort", "-kl-dp"]
    (table,) = json.loads(kt_report(*chosen, "--format", "json").stdout)
    found = records(kt_report(*chosen, "--format", "csv"))
    assert [row["student"] for row in table["rows"]] == [row["student"] for row in found]
    assert [row["kl-dp"]["mean"] for row in table["rows"]] == sorted(
        (float(row["kl-dp"]) for row in found), reverse=True
    )
