"""Documentation that cannot drift."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from kt_cli.cli.commands import app
from kt_cli.distillation.methods import METHODS
from kt_cli.report.derived import KINDS
from kt_cli.settings import report


def test_the_readme_shows_every_room(repository: Path) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    tree = readme.split("## What is where")[1].split("```")[1]
    inside = tree.split("sweeps/           sweep files")[0].replace("kt_cli/", "")
    named = sorted(re.findall(r"^  (\w+)/(?:  (\w+)/)?", inside, re.MULTILINE))
    there = sorted(
        p.name for p in (repository / "kt_cli").iterdir() if (p / "__init__.py").exists()
    )
    assert sorted(name for pair in named for name in pair if name) == there
    assert len(readme.splitlines()) <= 200


def test_what_shows_that_faults_are_met_is_there(repository: Path) -> None:
    page = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| [A-Z]", line)]
    shown = re.findall(r"`([\w/]+\.py)::(test_\w+)`", page)
    assert len(shown) >= len(rows) >= 40 and all("::test_" in row for row in rows)
    for file, name in shown:
        assert f"\ndef {name}(" in (repository / "tests" / file).read_text(encoding="utf-8"), name


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_defined_in_the_docs(repository: Path, name: str) -> None:
    text = (repository / "docs" / "methods.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in text and METHODS[name].summary


def test_commands_of_the_readme_exist(repository: Path) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name for group in app.registered_groups if group.name}
    used = set(re.findall(r"(?:^|`|\$ )kt ([a-z]+)", readme, re.MULTILINE))
    assert used and used <= known


def test_every_option_and_choice_of_reports_is_in_the_docs(repository: Path) -> None:
    text = (repository / "docs" / "reports.md").read_text(encoding="utf-8")
    options = [
        flag
        for parameter in get_command(app).commands["report"].params  # type: ignore[attr-defined]
        for flag in parameter.opts
        if flag.startswith("--") and flag not in ("--help", "--help-all", "--output")
    ]
    assert options and not [flag for flag in options if f"`{flag}" not in text]
    for choices in (report.TABLES, report.FORMATS):
        assert not [choice for choice in choices if f"| `{choice}` |" not in text]
    assert not [name for name in KINDS if f"`{name}`" not in text]


@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/guide.md",
        "docs/python.md",
        "docs/reports.md",
        "docs/plots.md",
        "docs/page.md",
    ],
)
def test_links_lead_somewhere(repository: Path, file: str) -> None:
    text = (repository / file).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert ((repository / file).parent / target).exists(), target
