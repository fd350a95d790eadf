"""Python, the packages that kt needs, and whether they can be imported."""

from __future__ import annotations

import importlib
import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement

from kt_cli.diagnosis.finding import Asked, Finding, green, red, yellow
from kt_cli.errors import first_line

PACKAGE = "kt-cli"
# What most often breaks: compiled for each other, for a version of CUDA, or of NumPy.
COMPILED = (
    "numpy",
    "torch",
    "torchvision",
    "timm",
    "pyarrow.parquet",
    "scipy",
    "safetensors.torch",
)
SHOWN = (
    "kt-cli",
    "torch",
    "torchvision",
    "timm",
    "huggingface-hub",
    "pyarrow",
    "numpy",
    "submitit",
)
REINSTALL = "Install kt anew into a fresh environment: make setup, or pip install kt-cli."


def python(asked: Asked) -> Iterator[Finding]:
    here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    try:
        needed = metadata(PACKAGE)["Requires-Python"]
    except PackageNotFoundError:
        yield yellow(f"{here}; kt runs without being installed", REINSTALL)
        return
    if Requirement(f"python{needed}").specifier.contains(platform.python_version(), True):
        yield green(here)
    else:
        yield red(f"{here}, but kt needs {needed}", "Make an environment with a newer Python.")


def packages(asked: Asked) -> Iterator[Finding]:
    """Installed versions against those that kt needs."""
    try:
        needed = [Requirement(text) for text in requires(PACKAGE) or ()]
    except PackageNotFoundError:
        yield yellow("kt is not installed, so its requirements are not known", REINSTALL)
        return
    wrong = [
        said
        for requirement in needed
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if (said := _wrong(requirement))
    ]
    if wrong:
        quoted = " ".join(f"'{requirement}'" for requirement, _ in wrong)
        yield red("; ".join(said for _, said in wrong), f"pip install {quoted}")
    else:
        yield green(", ".join(f"{name} {version(name)}" for name in SHOWN))


def _wrong(requirement: Requirement) -> tuple[str, str] | None:
    """The requirement and what is wrong with it; None where it is met."""
    needed = f"{requirement.name}{requirement.specifier}"
    try:
        there = version(requirement.name)
    except PackageNotFoundError:
        return needed, f"{requirement.name} is missing"
    if requirement.specifier.contains(there, prereleases=True):
        return None
    return needed, f"{requirement.name} {there}, but {requirement.specifier} is needed"


def libraries(asked: Asked) -> Iterator[Finding]:
    """Import what is compiled."""
    broken = {name: said for name in COMPILED if (said := _import_error(name))}
    if broken:
        for name, said in broken.items():
            yield red(f"import {name}: {said}", REINSTALL)
        return
    import torch

    built = torch.version.cuda or torch.version.hip
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    yield green(f"all import; torch is built for {build if not torch.version.hip else built}")


def _import_error(name: str) -> str:
    try:
        importlib.import_module(name)
    except Exception as error:  # a broken library raises anything
        return re.sub(r"\s+", " ", f"{type(error).__name__}: {first_line(error)}")
    return ""
