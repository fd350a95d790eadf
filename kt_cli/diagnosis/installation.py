"""Python, the packages that kt needs, and whether they can be imported."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement

from kt_cli.diagnosis.finding import Asked, Finding, green, red, yellow
from kt_cli.errors import first_line

PACKAGE = "kt-cli"
# What most often breaks: compiled for each other, for a version of CUDA, or of NumPy.
COMPILED = (
    "numpy", "torch", "torchvision", "timm", "pyarrow.parquet", "scipy", "safetensors.torch",
)  # fmt: skip
SHOWN = (
    "kt-cli", "torch", "torchvision", "timm", "huggingface-hub", "pyarrow", "numpy", "submitit",
)  # fmt: skip
REINSTALL = "Install kt anew into a fresh environment: make setup, or pip install kt-cli."


def python(asked: Asked) -> Finding:
    here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    try:
        needed = metadata(PACKAGE)["Requires-Python"]
    except PackageNotFoundError:
        return yellow(f"{here}; kt runs without being installed", REINSTALL)
    if Requirement(f"python{needed}").specifier.contains(platform.python_version(), True):
        return green(here)
    return red(f"{here}, but kt needs {needed}", "Make an environment with a newer Python.")


def packages(asked: Asked) -> Finding:
    """Installed versions against those that kt needs."""
    try:
        needed = [Requirement(text) for text in requires(PACKAGE) or ()]
    except PackageNotFoundError:
        return yellow("kt is not installed, so its requirements are not known", REINSTALL)
    plain = [r for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = {f"{r.name}{r.specifier}": said for r in plain if (said := _fault(r))}
    if wrong:
        quoted = " ".join(f"'{requirement}'" for requirement in wrong)
        return red("; ".join(wrong.values()), f"pip install {quoted}")
    return green(", ".join(f"{name} {version(name)}" for name in SHOWN))


def _fault(needed: Requirement) -> str:
    try:
        there = version(needed.name)
    except PackageNotFoundError:
        return f"{needed.name} is missing"
    fits = needed.specifier.contains(there, prereleases=True)
    return "" if fits else f"{needed.name} {there}, but {needed.specifier} is needed"


def libraries(asked: Asked) -> Iterator[Finding]:
    """Import what is compiled."""
    broken = {name: said for name in COMPILED if (said := _import_error(name))}
    for name, said in broken.items():
        yield red(f"import {name}: {said}", REINSTALL)
    if not broken:
        import torch

        cuda = torch.version.cuda and f"CUDA {torch.version.cuda}"
        yield green(f"all import; torch is built for {torch.version.hip or cuda or 'the CPU'}")


def _import_error(name: str) -> str:
    try:
        importlib.import_module(name)
    except Exception as error:  # a broken library raises anything
        return " ".join(f"{type(error).__name__}: {first_line(error)}".split())
    return ""
