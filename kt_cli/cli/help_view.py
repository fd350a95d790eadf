"""A command's help: text that fits the terminal. rich takes longer to import than this to draw."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from kt_cli.cli.examples import EXAMPLES
from kt_cli.errors import unknown
from kt_cli.settings.shared import PANELS

WIDEST, COLUMN = 120, 26
OTHERS = "Options"
HELP_ALL = "--help-all"
Entry = tuple[str, str]  # what is typed, and what it does
FIXED = re.compile(r"\[[^]]* [^]]*\]")  # is not broken: [default: 0.1]


class Command(TyperCommand):
    """A command with the help below."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(page(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not any(parameter.name == "help_all" for parameter in self.params):
            args = ["--help" if one == HELP_ALL else one for one in args]  # nothing is left out
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """Commands with the help below, which also stands for no command at all."""

    format_help = Command.format_help

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--help"] if args[:1] in ([], [HELP_ALL]) else args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise unknown("command", args[0], self.commands)
        return super().resolve_command(ctx, args)


def page(ctx: Any) -> str:
    """The help of a command, in lines of the terminal's width."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    command = ctx.command
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    used = " ".join([ctx.command_path, "[OPTIONS]", *map(_usage, arguments)])
    groups = {"Arguments": [(_name(p), _said(p)) for p in arguments if p.help]}
    if isinstance(command, TyperGroup):
        used += " COMMAND [ARGS]..."
        groups["Commands"] = [(n, c.get_short_help_str(200)) for n, c in command.commands.items()]
    shown = [p for p in command.get_params(ctx) if p not in arguments and not p.hidden]
    for panel in sorted({_panel(p): None for p in shown}, key=[*PANELS, OTHERS].index):
        groups[panel] = [(_flags(p), _said(p)) for p in shown if _panel(p) == panel]
    entries = [entry for group in groups.values() for entry in group]
    indent = 4 + min(COLUMN, max(len(left) for left, _ in entries))
    parts = [f"{_bold('Usage:')} {used}", *_paragraphs(command.help, width)]
    for title, group in groups.items():
        if group:
            parts.append("\n".join([_bold(title), *_lines(group, indent, width)]))
    docs, *examples = EXAMPLES[ctx.command_path]
    parts.append("\n  ".join([_bold("Examples"), *examples]))
    return "\n\n".join([*parts, *_paragraphs(f"Docs: {docs}", width)]) + "\n"


def _paragraphs(text: str | None, width: int) -> list[str]:
    """Filled; those with indented lines, as examples, stay as they are."""
    parts = inspect.cleandoc(text or "").split("\n\n")
    return [part if "\n  " in part else textwrap.fill(part, width) for part in parts if part]


def _lines(group: Iterable[Entry], indent: int, width: int) -> Iterable[str]:
    """What is typed on the left, never cut; what it does beside it, or below where that is long."""
    room = width - indent
    for left, right in group:
        fixed = FIXED.sub(
            lambda it: it[0].replace(" ", "\0") if len(it[0]) <= room else it[0], right
        )
        told = textwrap.wrap(fixed, room, break_long_words=False, break_on_hyphens=False)
        beside = len(left) <= indent - 4 and told
        yield f"  {left:{indent - 2}}{told.pop(0) if beside else ''}".replace("\0", " ").rstrip()
        yield from (" " * indent + line.replace("\0", " ") for line in told)


def _usage(argument: Any) -> str:
    name = _name(argument) + "..." * (argument.nargs != 1)
    return name if argument.required else f"[{name}]"


def _name(parameter: Any) -> str:
    return str(parameter.metavar if parameter.metavar is not None else parameter.name.upper())


def _panel(option: Any) -> str:
    return getattr(option, "rich_help_panel", None) or OTHERS


def _flags(option: Any) -> str:
    short = [flag for flag in option.opts if not flag.startswith("--")]
    long = [flag for flag in option.opts if flag.startswith("--")] + option.secondary_opts
    value = "" if option.is_flag else _name(option)
    return f"{', '.join(short) + ', ' if short else '    '}{', '.join(long)} {value}".rstrip()


def _said(parameter: Any) -> str:
    """What it does, and where its value comes from when it is not given."""
    default = parameter.show_default
    if default is True:
        default = "" if parameter.default in (None, False) else str(parameter.default)
    notes = [f"[env: {parameter.envvar}]" if parameter.envvar else "",
             f"[default: {default}]" if default else ""]  # fmt: skip
    return " ".join([parameter.help or "", *filter(None, notes)])


def _bold(text: str) -> str:
    return typer.style(text, bold=True)
