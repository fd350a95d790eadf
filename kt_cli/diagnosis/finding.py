"""What a check finds, and how checks are run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from kt_cli.errors import KtError, first_line
from kt_cli.progress import Progress, silent
from kt_cli.settings import DataSpec

FAULT = "This check itself failed; what it looks at is most likely broken."


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    level: Literal["green", "yellow", "red"]  # as it should be; works, with less; will fail
    message: str
    advice: str = ""  # what to do about it
    check: str = ""  # the name of the check, which `diagnose` fills in


@dataclass(frozen=True)
class Asked:
    """What is to be looked at."""

    data: DataSpec | None = None  # the images; None where none are named
    limit: int = 1000  # images on which accuracy is compared, at most
    slurm_test: bool = False  # submit a job, and wait for it
    sbatch: Mapping[str, str | int] | None = None  # what that job asks of Slurm
    progress: Progress = silent


Check = Callable[[Asked], Finding | Iterable[Finding]]
green, yellow, red = (partial(Finding, level) for level in ("green", "yellow", "red"))


def diagnose(checks: Mapping[str, Check], asked: Asked) -> Iterator[Finding]:
    """All findings, in the order of the checks; a check that raises is itself a red one."""
    for done, (name, check) in enumerate(checks.items(), 1):
        for finding in _findings(check, asked):
            yield replace(finding, check=name)
        asked.progress(done, len(checks), "checks")


def _findings(check: Check, asked: Asked) -> Iterator[Finding]:
    try:
        found = check(asked)
        yield from [found] if isinstance(found, Finding) else found
    except KtError as error:
        yield red(error.message, error.tip or FAULT)
    except Exception as error:  # whatever is broken, the other checks go on
        yield red(f"{type(error).__name__}: {first_line(error)}", FAULT)
