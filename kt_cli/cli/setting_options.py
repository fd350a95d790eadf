"""Settings as options: a command's options are made from the declarations in `kt_cli.settings`.

A parameter annotated `Annotated[Given, Fields(TransferSpec, …)]` stands for one option for each
field of the class; the command receives those that were given, as a table of a sweep file has them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Annotated, Any

import typer

from kt_cli.cli.options import one_of, option
from kt_cli.errors import UsageError
from kt_cli.settings.declared import Declared, declared

Given = dict[str, Any]
INTERNAL = ("follow",)  # options that no help shows


@dataclass(frozen=True)
class Fields:
    """The options for the settings of a class."""

    kind: type
    first: Sequence[str] = ()  # names of the fields that --help shows; --help-all shows the rest
    only: Sequence[str] = ()  # the fields that the command has; all by default
    without: Sequence[str] = ()  # those that it has not
    # What the help says of a default where it is another one here.
    usual: Mapping[str, str] = field(default_factory=dict)
    negatable: bool = False  # flags are --x and --no-x, since a file may say either

    def declared(self) -> dict[str, Declared]:
        """The fields that have an option here, by the name of its parameter."""
        known = declared(self.kind)
        names = [name for name in self.only or known if name not in self.without]
        return {known[n].keyword: known[n] for n in names if known[n].said.option}

    def parameters(self) -> list[Parameter]:
        needed_first = sorted(self.declared().items(), key=lambda it: it[1].name not in self.first)
        return [_parameter(key, self._annotation(one), None) for key, one in needed_first]

    def given(self, values: Given) -> Given:
        """Takes this class's values out of all; those that were given, by keyword."""
        found = {key: (one, values.pop(key)) for key, one in self.declared().items()}
        return {
            key: _value(one, said) for key, (one, said) in found.items() if said not in (None, [])
        }

    def _annotation(self, one: Declared) -> Any:
        said, choices = one.said, [choice for choice in one.said.choices if choice]
        # Not read here: what the environment says gives way to files too (settings/data.py).
        help = f"{said.help} [env: {said.envvar}]" if said.envvar else said.help
        shown = {"metavar": said.metavar or _metavar(one)}
        if one.items and choices:
            help, shown = f"{help} Of {', '.join(choices)}.", {**one_of(choices), "metavar": "NAME"}
        elif choices:
            shown = one_of(choices)
        return Annotated[_type(one), option(
            *self._flags(one),
            help=help,
            panel=said.panel or None,
            hidden=one.name not in self.first,
            show_default=_default(self.usual.get(one.name, said.usual), one.field.default),
            **shown,
        )]  # fmt: skip

    def _flags(self, one: Declared) -> Sequence[str]:
        dashed = one.name.replace("_", "-")
        if self.negatable and bool in one.types:
            return (f"--{dashed}/--no-{dashed}",)
        return one.said.flags or (f"--{dashed}",)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with its `Fields` spelled out for typer, and with --help-all."""
    groups: dict[str, Fields] = {}
    parameters: list[Parameter] = []
    # Not get_type_hints: what is None by default is wrapped once more there by Python 3.10.
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        marks = getattr(parameter.annotation, "__metadata__", ())
        fields = next((mark for mark in marks if isinstance(mark, Fields)), None)
        if fields is not None:
            groups[name] = fields
            parameters += fields.parameters()
        else:
            parameters.append(_parameter(name, parameter.annotation, parameter.default))
    parameters.append(_parameter("help_all", HelpAll, False))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        del values["help_all"]
        for name, fields in groups.items():
            values[name] = fields.given(values)
        command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _parameter(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _show_all(context: typer.Context, wanted: bool) -> None:
    if not wanted:
        return
    for parameter in context.command.params:
        if parameter.name not in INTERNAL and hasattr(parameter, "hidden"):
            parameter.hidden = False
    typer.echo(context.get_help())
    raise typer.Exit


HelpAll = Annotated[
    bool,
    option("--help-all", is_eager=True, callback=_show_all, help="Show all options.", metavar=""),
]


def _metavar(one: Declared) -> str:
    if one.said.listed:
        return "LIST"
    return {int: "N", float: "X"}.get(one.types[0], "NAME")


def _type(one: Declared) -> Any:
    """What typer reads: text where the value is made of it later."""
    if one.items is not None:
        return list[str] | None
    return (one.types[0] if len(one.types) == 1 else str) | None


def _value(one: Declared, said: Any) -> Any:
    """An option's value as a sweep file has it."""
    if one.said.listed:
        said = [part.strip() for text in said for part in text.split(",") if part.strip()]
    if one.items is int:
        return [_number(part, one) for part in said]
    if int in one.types and isinstance(said, str) and said.lstrip("-").isdigit():
        return int(said)
    return said


def _number(text: str, one: Declared) -> int:
    try:
        return int(text)
    except ValueError:
        option = f"--{one.name.replace('_', '-')}"
        raise UsageError(f"{option} takes numbers separated by commas, not {text!r}") from None


def _default(usual: str | None, default: Any) -> str | bool:
    """How a help says the default; False where there is none to say."""
    if usual is None and isinstance(default, tuple):
        usual = ", ".join(map(str, default))
    elif usual is None and isinstance(default, (str, int, float)) and not isinstance(default, bool):
        usual = f"{default:g}" if isinstance(default, float) else str(default)
    return usual or False
