"""Writes docs/settings.md and the tables of results/README.md from the code: make docs."""

from __future__ import annotations

import re
from pathlib import Path

from kt_cli.rows import schema
from kt_cli.settings import (
    DataSpec,
    EvalSpec,
    PretrainSpec,
    SlurmSpec,
    SweepSpec,
    TransferSpec,
)
from kt_cli.settings.declared import Declared, declared

ROOT = Path(__file__).parents[1]
SECTIONS = {
    "Images": (DataSpec, "`[data]` of a sweep file; commands that see images have those that they "
               "need."),
    "Evaluation": (EvalSpec, "Commands that evaluate models, where `--amp` says the precision."),
    "Transfers": (TransferSpec, "`kt transfer`, and `[transfer]` of a sweep file; `--eval-amp` and "
                  "`--by-class` are options of `kt sweep`, and `--guard` of `kt transfer` adds "
                  "+guard, +safe or +shrink to the method."),
    "Training": (PretrainSpec, "`kt pretrain`, and `[pretrain]` and `[[zoo]]` of a sweep file."),
    "Sweeps": (SweepSpec, "`kt sweep`; `name`, `models` and `timeout_run` at the top of a sweep "
               "file, `class_embedding`, `flips_by_class` and `baseline` in "
               "`[complementarity]`, the rest in `[transfer]`."),
    "On a cluster": (SlurmSpec, "`kt sweep`, and `[slurm]` of a sweep file."),
}  # fmt: skip
HEAD = """# Settings

Every setting, as the code declares it: its key in a sweep file and in Python, its option where that
is another name, its values and its default. A setting marked ≠ makes another run: a finished run
with another value of it is not reused. `--help-all` of a command lists its options; in a
sweep file any setting of a table can stand.
"""


def settings() -> str:
    """The text of docs/settings.md."""
    parts = [HEAD]
    for title, (kind, where) in SECTIONS.items():
        rows = [_row(one) for one in declared(kind).values()]
        parts.append(
            f"## {title}\n\n{where}\n\n"
            "| key | option | values | default | ≠ | what it is |\n|---|---|---|---|---|---|\n"
            + "\n".join(rows)
            + "\n"
        )
    return "\n".join(parts)


def _row(one: Declared) -> str:
    said = one.said
    flags = said.flags or (f"--{one.name.replace('_', '-')}",)
    option = ", ".join(f"`{flag}`" for flag in flags) if said.option or said.flags else ""
    choices = ", ".join(f"`{choice}`" for choice in said.choices if choice)
    values = choices or f"{one.kinds}{f' in {said.within}' if said.within else ''}"
    default = one.field.default
    if said.usual is not None:
        shown = said.usual
    elif one.required or default in (None, "", ()):
        shown = ""
    elif isinstance(default, tuple):
        shown = ", ".join(f"`{value}`" for value in default)
    else:
        shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
    return (
        f"| `{one.name}` | {option} | {values} | {shown} | {'≠' if said.identity else ''} "
        f"| {said.help} |"
    )


def results(text: str) -> str:
    """results/README.md with its tables of columns as the schema has them."""
    for table, columns in schema.TABLES.items():
        rows = "\n".join(f"| `{n}` | {c.type} | {c.meaning} |" for n, c in columns.items())
        new = f"## `{table}`\n\n| column | type | meaning |\n|---|---|---|\n{rows}\n"
        pattern = rf"## `{table}`\n\n(?:\|[^\n]*\n)+"
        text = re.sub(pattern, lambda _, new=new: new, text)
    return text


def main() -> None:
    (ROOT / "docs" / "settings.md").write_text(settings(), encoding="utf-8")
    readme = ROOT / "results" / "README.md"
    readme.write_text(results(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
