from __future__ import annotations

from collections.abc import Callable, Iterator

from kt_cli.diagnosis.checks import CHECKS
from kt_cli.diagnosis.finding import Asked, Finding, diagnose, green, red, yellow
from kt_cli.errors import DataError


def fine(asked: Asked) -> Iterator[Finding]:
    yield green("a")
    yield yellow("b", "do c")


def broken(asked: Asked) -> Iterator[Finding]:
    yield green("before")
    raise ZeroDivisionError("more\nlines")


def refused(asked: Asked) -> Iterator[Finding]:
    raise DataError("no folder x", "Name another.")
    yield


def test_a_check_that_raises_is_red_and_the_others_go_on() -> None:
    steps: list[tuple[int, int]] = []
    asked = Asked(progress=lambda done, total, what: steps.append((done, total)))
    found = list(diagnose({"one": broken, "two": refused, "three": fine}, asked))
    assert [(f.check, f.level, f.message) for f in found] == [
        ("one", "green", "before"),
        ("one", "red", "ZeroDivisionError: more"),
        ("two", "red", "no folder x"),
        ("three", "green", "a"),
        ("three", "yellow", "b"),
    ]
    assert found[1].advice and found[2].advice == "Name another."
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_a_finding_that_is_not_green_says_what_to_do() -> None:
    assert red("a", "b").advice == "b"
    assert all(f.advice or f.level == "green" for f in fine(Asked()))


def test_every_check_of_the_table_is_there(commands: Callable[..., None]) -> None:
    commands({})
    for name, check in CHECKS.items():
        if name not in ("hub", "token"):  # those of the network have tests of their own
            for finding in diagnose({name: check}, Asked()):
                assert "itself failed" not in finding.advice, finding
