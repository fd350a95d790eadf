"""The house's rules: who imports whom, and what `kt --help` costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kt_cli"
# From top to bottom; a room imports only from rooms below it.
ROOMS = [
    "cli", "api", "diagnosis", "report", "sweeps", "runs", "distillation", "knowledge", "data",
    "zoo", "rows", "settings",
]  # fmt: skip
ONLY = {
    "typer": {"cli"},
    "rich": {"cli"},
    "submitit": {"sweeps/slurm.py", "diagnosis/slurm_job.py"},
    "pyarrow": {"rows"},
    "timm": {"zoo", "data"},
}
NEVER = {"report": {"torch", "timm"}, "rows": {"torch"}, "settings": {"torch", "pandas", "numpy"}}


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
        above = ROOMS[: ROOMS.index(room) if room in ROOMS else ROOMS.index("rows")]
        for other in above:
            if name not in ("__main__.py", "__init__.py"):
                assert not any(
                    i == f"kt_cli.{other}" or i.startswith(f"kt_cli.{other}.") for i in imported
                ), f"{name} imports {other}"


@pytest.mark.parametrize("library", ONLY)
def test_some_libraries_have_one_importer(library: str) -> None:
    for name, imported in modules():
        if any(i.split(".")[0] == library for i in imported):
            assert {name, name.split("/")[0]} & ONLY[library], f"{name} imports {library}"


def test_no_circle_of_imports() -> None:
    """Lazy imports and those for type checkers count too; between files, and between rooms."""
    names = {name: name.removesuffix(".py").replace("/", ".") for name, _ in modules()}
    names = {file: f"kt_cli.{name}".removesuffix(".__init__") for file, name in names.items()}
    files = {
        names[file]: {i for i in imported if i in names.values()} - {names[file]}
        for file, imported in modules()
    }
    # `from package import module` is no import of what the package itself holds.
    packages = {names[file] for file in names if file.endswith("__init__.py")}
    edges = {name: found - packages for name, found in files.items()}
    rooms: dict[str, set[str]] = {}
    for name, found in edges.items():
        of = {other.split(".")[1] for other in found if other != "kt_cli"}
        room = name.split(".")[1] if "." in name else name
        rooms.setdefault(room, set()).update(of - {room})
    for graph in (edges, rooms):
        TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_package_is_light() -> None:
    code = (
        "import sys, kt_cli; kt_cli.complementarity; kt_cli.transfer; kt_cli.results\n"
        "heavy = {'torch', 'pandas', 'pyarrow', 'timm', 'numpy', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert callable(kt_cli.sweep) and kt_cli.KtError and kt_cli.__version__\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_report_needs_no_torch() -> None:
    for name, imported in modules():
        forbidden = NEVER.get(name.split("/")[0], set())
        assert not {i.split(".")[0] for i in imported} & forbidden, name


def test_plan_and_execute_never_meet() -> None:
    found = dict(modules())
    assert not any("sweeps.execute" in i for i in found["sweeps/plan.py"])
    assert not any("sweeps.plan" in i for i in found["sweeps/execute.py"])


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
        *(["cache", *command] for command in ([], ["ls"], ["rm"], ["verify"])),
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
