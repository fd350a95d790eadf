"""Which images, how models are evaluated on them, and what is measured of pairs of models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kt_cli.errors import UsageError
from kt_cli.settings import shared
from kt_cli.settings.declared import NOT_NEGATIVE, POSITIVE, Settings, check, setting
from kt_cli.settings.shared import of_harm, of_images
from kt_cli.settings.values import absolute

ENVIRONMENT = "KT_DATA"
EMBEDDINGS = ("head", "clip", "none")
# What says which images models are evaluated on, and what is right.
EVALUATED = (
    "source", "root", "val_split", "limit", "class_map", "labels", "valid_labels", "by_position",
    "real_labels", "skip_broken",
)  # fmt: skip
HOW_TO_NAME_DATA = (
    "Name it with --data or the environment variable KT_DATA: a folder with train/ and val/ class "
    "folders, a folder of class folders, a timm source such as hfds/NAME, or 'digits' to try."
)


@dataclass(frozen=True)
class DataSpec:
    """Which images: what `--data` and its companions say."""

    source: str = of_images(
        help="A folder with train/ and val/, a folder of class folders, hfds/NAME, torch/NAME, or "
        "digits.", flags=("--data",), metavar="DATA", envvar=ENVIRONMENT,
    )  # fmt: skip
    root: str | None = of_images(
        None, "Where a timm source keeps its files; or the image folder itself.",
        flags=("--data-dir",), metavar="FOLDER", path=True,
    )  # fmt: skip
    train_split: str = of_images("train", "Training split of a timm source.")
    val_split: str = of_images("validation", "Evaluation split of a timm source.")
    fraction: float = of_images(
        1.0, "Share of the training images to use, stratified by class.", within="(0, 1]",
        column="share of the training images used",
    )  # fmt: skip
    seed: int = of_images(
        0, "Seed that draws subsets of the images.", flags=("--data-seed",), within=NOT_NEGATIVE
    )
    guard: float = of_harm(
        0.0, "Share of the training images set aside, on which no model trains.",
        flags=("--guard-share",), within="[0, 1)", usual="what the models' own training set aside",
    )  # fmt: skip
    limit: int | None = of_images(
        None, "Evaluate on at most so many images, stratified by class.", within=POSITIVE
    )
    class_map: str | None = of_images(
        None, "Class names (of folders) in label order, one a line.", metavar="FILE", path=True
    )
    labels: str | None = of_images(
        None, "Ground truth of evaluation images in a flat folder: file name and class, or one "
        "class a line in the order of the files.", metavar="FILE", path=True,
    )  # fmt: skip
    valid_labels: str | None = of_images(
        None, "Line i: number of class i among the outputs of models whose names do not tell.",
        metavar="FILE", path=True,
    )  # fmt: skip
    by_position: bool = of_images(
        False, "Take outputs in the order of the classes where a model's names of them differ.",
        flags=("--by-position/--no-by-position",),
    )  # fmt: skip
    real_labels: str | None = of_images(
        None, "ReaL labels (JSON), or timm for its copy of ImageNet's.", metavar="FILE", path=True
    )
    unlabelled: str | None = of_images(
        None, "Images without labels to transfer on, in place of train/.", metavar="FOLDER",
        path=True,
    )  # fmt: skip
    guard_data: str | None = of_harm(
        None, "Class folders for the guard to judge on.", metavar="FOLDER", path=True
    )

    skip_broken: bool = of_images(
        False, "Leave out images that cannot be decoded; rows say how many.",
        flags=("--skip-broken/--no-skip-broken",),
    )  # fmt: skip

    def part(self, fraction: float) -> DataSpec:
        """The same images, with `fraction` of these training images."""
        return replace(self, fraction=self.fraction * fraction)


@dataclass(frozen=True)
class EvalSpec(Settings):
    """How a model is evaluated."""

    size: str = shared.eval_size(flags=("--eval-size",))
    amp: str = shared.eval_amp(flags=("--eval-amp",))


@dataclass(frozen=True)
class PairsSpec(Settings):
    """Statistics of all ordered pairs; what does not change ρ⁺ and its kin is no identity."""

    size: str = shared.eval_size()
    amp: str = shared.eval_amp()
    embedding: str = setting(
        "head", "What classes are compared by.", choices=EMBEDDINGS, identity=False
    )
    by_class: bool = setting(False, "Also keep the flips of each class.", identity=False)

    @property
    def evaluation(self) -> EvalSpec:
        return EvalSpec(self.size, self.amp)


NO_DATA = DataSpec("")


def data_spec(given: Mapping[str, Any]) -> DataSpec:
    """The images that the fields `given` name, else the environment; a root alone is a source.

    Raises:
        UsageError: none are named, or a value cannot be.
    """
    given = dict(given)
    source = given.pop("source", None) or given.pop("root", None) or usual_source()
    if source is None:
        raise UsageError("no data is named", HOW_TO_NAME_DATA)
    spec = DataSpec(source=whole_source(source), **given)
    check_images(spec)
    return spec


def usual_source() -> str | None:
    """The images that the environment names, for where nothing else names any."""
    return os.environ.get(ENVIRONMENT) or None


def check_images(spec: DataSpec) -> None:
    """Refuse images that there cannot be."""
    check(spec)
    if spec.by_position and spec.valid_labels:
        raise UsageError("--valid-labels and --by-position exclude each other", "Choose one.")


def whole_source(source: str) -> str:
    """A folder by its absolute path, since jobs may run elsewhere; other sources as they are."""
    return absolute(source) if Path(source).expanduser().is_dir() else source
