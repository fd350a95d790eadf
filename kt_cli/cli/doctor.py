"""`kt doctor`: looks at everything that kt needs, and says what to do about it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from kt_cli.cli import options, screen
from kt_cli.cli.options import flag, option
from kt_cli.cli.setting_options import Fields, Given, with_settings
from kt_cli.errors import KtError, UsageError
from kt_cli.settings import DataSpec, SlurmSpec
from kt_cli.settings.data import data_spec, usual_source
from kt_cli.settings.declared import by_keyword

if TYPE_CHECKING:
    from kt_cli.diagnosis.finding import Finding

IMAGES = ("source", "root", "class_map", "labels", "skip_broken")
JOBS = ("partition", "account", "qos")


@with_settings
def doctor(
    images: Annotated[Given, Fields(DataSpec, IMAGES, only=IMAGES)],
    jobs: Annotated[Given, Fields(SlurmSpec, JOBS, only=JOBS)],
    limit: Annotated[
        int,
        option(
            min=1,
            metavar="N",
            help="Images on which top-1 is compared with timm's figure, at most.",
        ),
    ] = 1000,
    slurm_test: Annotated[
        bool, flag("--slurm-test", "Submit a job of a minute, and wait for it.")
    ] = False,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Check installation, GPUs, memory, cache, disks, hub, Slurm and data.

    Each finding is green (as it should be), yellow (works, with less) or red (will fail), with
    what to do about it. Exit code 1 if one is red. With ImageNet's validation images and a
    pretrained model in the cache, its top-1 is compared with timm's published figure.
    """
    from kt_cli.diagnosis.checks import CHECKS
    from kt_cli.diagnosis.finding import Asked, diagnose

    if jobs and not slurm_test:
        raise UsageError(f"--{next(iter(jobs))} changes nothing without --slurm-test", "Add it.")
    (given,) = by_keyword(images, DataSpec)
    spec = data_spec(given) if {"source", "root"} & given.keys() or usual_source() else None
    with screen.progress() as progress:
        findings = list(diagnose(CHECKS, Asked(spec, limit, slurm_test, jobs, progress)))
    if as_json:
        screen.show_json([asdict(finding) for finding in findings])
    else:
        _show(findings)
    red = sum(finding.level == "red" for finding in findings)
    if red:
        raise KtError(
            f"{red} of {len(findings)} findings {'is' if red == 1 else 'are'} red",
            "What to do stands below each.",
        )


def _show(findings: Sequence[Finding]) -> None:
    """One line each, with what to do below; a check's name stands once."""
    width = max(len(finding.check) for finding in findings)
    room = screen.out.width - width - 10 if screen.out.is_terminal else 10**6
    before = ""
    for finding in findings:
        colour = finding.level
        name = finding.check if finding.check != before else ""
        before = finding.check
        said = [finding.message, *([f"→ {finding.advice}"] if finding.advice else [])]
        first, *rest = (line for text in said for line in textwrap.wrap(text, room))
        screen.line((f"{colour:<6}", f"bold {colour}"), f"  {name:<{width}}  {first}")
        for line in rest:
            screen.line(f"{'':{width + 10}}{line}")
