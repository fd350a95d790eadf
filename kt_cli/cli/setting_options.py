"""Settings as options: a command's options are made from the declarations in `kt_cli.settings`.

A parameter annotated `Annotated[Given, Fields(TransferSpec, …)]` stands for one option for each
field of the class; the command receives those that were given, as a table of a sweep file has them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, get_type_hints

import typer

from kt_cli.errors import UsageError
from kt_cli.settings.declared import Declared, declared

Given = dict[str, Any]
INTERNAL = ("follow",)  # options that no help shows


@dataclass(frozen=True)
class Fields:
    """The options for the settings of a class.

    Attributes:
        first: names of the fields that --help shows; --help-all shows the rest.
        only: the fields that the command has; all by default. without: those that it has not.
        usual: what the help says of a default where it is another one here.
        negatable: flags are --x and --no-x, since a file may say either.
    """

    kind: type
    first: Sequence[str] = ()
    only: Sequence[str] = ()
    without: Sequence[str] = ()
    usual: Mapping[str, str] = field(default_factory=dict)
    negatable: bool = False

    def declared(self) -> dict[str, Declared]:
        """The fields that have an option here, by the name of its parameter."""
        known = declared(self.kind)
        names = [name for name in self.only or known if name not in self.without]
        return {known[n].keyword: known[n] for n in names if known[n].said.option}

    def parameters(self) -> list[inspect.Parameter]:
        return [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None,
                              annotation=self._annotation(one))
            for name, one in self.declared().items()
        ]  # fmt: skip

    def given(self, values: Given) -> Given:
        """Takes this class's values out of all; those that were given, by keyword."""
        found = {key: (one, values.pop(key)) for key, one in self.declared().items()}
        return {
            key: _value(one, said) for key, (one, said) in found.items() if said not in (None, [])
        }

    def _annotation(self, one: Declared) -> Any:
        said = one.said
        option = typer.Option(
            *self._flags(one),
            help=said.help
            + _choices(one)
            + _default(self.usual.get(one.name, said.usual), one.field.default),
            metavar=said.metavar or _metavar(one),
            rich_help_panel=said.panel or None,
            hidden=one.name not in self.first,
            envvar=said.envvar,
            show_default=False,
        )
        return Annotated[_type(one), option]

    def _flags(self, one: Declared) -> Sequence[str]:
        if self.negatable and bool in one.types:
            dashed = one.name.replace("_", "-")
            return (f"--{dashed}/--no-{dashed}",)
        return one.said.flags or (f"--{one.name.replace('_', '-')}",)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with its `Fields` spelled out for typer, and with --help-all."""
    hints = get_type_hints(command, include_extras=True)
    groups = {
        name: mark
        for name, hint in hints.items()
        for mark in getattr(hint, "__metadata__", ())
        if isinstance(mark, Fields)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        here = groups[name].parameters() if name in groups else [
            parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        ]  # fmt: skip
        parameters += here
    parameters.append(inspect.Parameter(
        "help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=HelpAll
    ))  # fmt: skip

    @functools.wraps(command)
    def run(**values: Any) -> None:
        del values["help_all"]
        for name, fields in groups.items():
            values[name] = fields.given(values)
        command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


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
    typer.Option("--help-all", is_eager=True, callback=_show_all, help="Show all options."),
]


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
        flag = f"--{one.name.replace('_', '-')}"
        raise UsageError(f"{flag} takes numbers separated by commas, not {text!r}") from None


def _default(usual: str | None, default: Any) -> str:
    """How a help says the default; empty where there is none to say."""
    if usual is None and isinstance(default, tuple):
        usual = ", ".join(map(str, default))
    elif usual is None and isinstance(default, (str, int, float)) and not isinstance(default, bool):
        usual = f"{default:g}" if isinstance(default, float) else str(default)
    return rf" \[default: {usual}]" if usual else ""


def _metavar(one: Declared) -> str | None:
    """Choices stand for themselves: the library refuses others, and says what is near."""
    choices = [choice for choice in one.said.choices if choice]
    if not choices:
        return None
    return "NAME" if one.items else f"<{'|'.join(choices)}>"


def _choices(one: Declared) -> str:
    """How a help says the choices of an option that takes several."""
    return f" Of {', '.join(one.said.choices)}." if one.items and one.said.choices else ""
