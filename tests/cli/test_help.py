"""Each command's help fits the terminal: nothing is cut, and lines break where they must only."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kt_cli.cli.commands import app
from kt_cli.cli.examples import EXAMPLES

Kt = Callable[..., tuple[int, str, str]]


def commands() -> list[tuple[str, ...]]:
    from typer.main import get_command

    found: list[tuple[str, ...]] = [()]
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        found += [(name,), *((name, below) for below in getattr(command, "commands", ()))]
    return found


def shown(kt: Kt, *command: str) -> str:
    code, out, err = kt(*command)
    assert code == 0 and not err
    return out


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_a_help_fits_the_terminal(
    kt: Kt, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    pages = [shown(kt, *command, "--help")]
    if "--help-all" in pages[0] and command:
        pages.append(shown(kt, *command, "--help-all"))
    for page in pages:
        lines = page.splitlines()
        assert max(map(len, lines)) <= width
        assert "[[" not in page and "]]" not in page and "<bool>" not in page
        assert lines[0].startswith(f"Usage: {' '.join(('kt', *command))} [OPTIONS]")
        examples = lines[lines.index("Examples") + 1 :][:3]
        assert [line.startswith("  kt ") for line in examples] == [True, True, False]
        assert "\nDocs: docs/" in page
        # The first word of a line did not fit on the line before.
        for line, following in itertools.pairwise(lines):
            deep = len(following) - len(following.lstrip())
            filled = deep > 6 and line[deep - 2 : deep] == "  " and line[deep:].strip()
            if filled and not following.strip().startswith("["):
                assert len(f"{line} {following.split()[0]}") > width, following


def test_all_flags_are_whole_at_80_columns(kt: Kt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = shown(kt, "sweep", "--help-all")
    assert "--reference-compat, --no-reference-compat\n" in page
    assert "--augment <none|flip|affine|paper>\n" in page
    assert page.index("\nModels\n") < page.index("\nTransfers\n") < page.index("\nOptions\n")


def test_help_imports_little_beyond_its_libraries() -> None:
    """What its time goes to; `python -m benchmarks.overhead` measures that."""

    def modules(code: str) -> set[str]:
        told = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
        run = [sys.executable, "-c", told, "--help"]
        return set(subprocess.check_output(run, text=True).splitlines())

    theirs = modules("import typer, rich.console")
    ours = modules("from kt_cli.cli.app import main\ntry: main()\nexcept SystemExit: pass")
    more = {name for name in ours - theirs if not name.startswith("kt_cli")}
    assert not {
        name for name in more if name.startswith(("rich.ma", "rich.pr", "rich.l", "pygments"))
    }
    assert len(more) < 60, sorted(more)


@pytest.mark.parametrize("command", EXAMPLES)
def test_examples_are_commands_and_pages_that_there_are(repository: Path, command: str) -> None:
    from typer.main import get_command

    docs, *examples = EXAMPLES[command]
    file, _, part = docs.partition(";")[0].partition("#")
    titles = re.findall(r"^#+ (.*)$", (repository / file).read_text(), re.MULTILINE)
    assert not part or part in [re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles]
    for example in examples:
        _, name, *words = example.split()
        asked = get_command(app).commands[name]  # type: ignore[attr-defined]
        below = getattr(asked, "commands", {})
        asked = below.get(words[0] if words else "", below.get("list", asked))
        flags = {word for word in words if re.fullmatch(r"--[a-z-]+|-[a-z]", word)}
        assert flags <= {flag for parameter in asked.params for flag in parameter.opts}, example
        assert command == "kt" or example.startswith(command)


@pytest.mark.parametrize("command", [("status",), ("cancel",), ("cache", "ls"), ()])
def test_a_short_help_is_all_of_it(kt: Kt, command: tuple[str, ...]) -> None:
    assert shown(kt, *command, "--help-all") == shown(kt, *command, "--help")
