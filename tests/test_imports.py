"""The house's rules: who imports whom, and what `kt --help` costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kt_cli"
# From top to bottom; a room imports only from rooms below it.
ROOMS = ["cli", "diagnosis", "report", "sweep", "transfer", "complementarity", "data", "zoo"]
ONLY = {
    "typer": {"cli"},
    "rich": {"cli"},
    "submitit": {"sweep/execute.py", "sweep/slurm.py", "diagnosis/slurm_job.py"},
    "pyarrow": {"store.py", "scan.py", "arrays.py"},
    "timm": {"zoo", "data"},
}
NEVER = {"report": {"torch", "timm"}}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules() -> list[tuple[str, set[str]]]:
    return [(path.relative_to(PACKAGE).as_posix(), imports(path)) for path in PACKAGE.rglob("*.py")]


def test_rooms_import_downward_only() -> None:
    for name, imported in modules():
        room = name.split("/")[0]
        above = ROOMS[: ROOMS.index(room)] if room in ROOMS else ROOMS
        for other in above:
            if name != "__main__.py":
                assert not any(
                    i == f"kt_cli.{other}" or i.startswith(f"kt_cli.{other}.") for i in imported
                ), f"{name} imports {other}"


@pytest.mark.parametrize("library", ONLY)
def test_some_libraries_have_one_importer(library: str) -> None:
    for name, imported in modules():
        if any(i.split(".")[0] == library for i in imported):
            assert {name, name.split("/")[0]} & ONLY[library], f"{name} imports {library}"


def test_the_report_needs_no_torch() -> None:
    for name, imported in modules():
        forbidden = NEVER.get(name.split("/")[0], set())
        assert not {i.split(".")[0] for i in imported} & forbidden, name


def test_plan_and_execute_never_meet() -> None:
    found = dict(modules())
    assert not any("sweep.execute" in i for i in found["sweep/plan.py"])
    assert not any("sweep.plan" in i for i in found["sweep/execute.py"])


@pytest.mark.parametrize(
    "command",
    [
        [],
        *(
            [c]
            for c in (
                "complementarity",
                "transfer",
                "sweep",
                "report",
                "models",
                "pretrain",
                "status",
                "doctor",
            )
        ),
    ],
)
def test_help_is_quick(command: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['kt', *{command!r}, '--help']\n"
        "from kt_cli.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as done: assert not done.code\n"
        "heavy = {'torch', 'pandas', 'pyarrow', 'timm', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "Usage" in shown.stdout
