"""Which images, how models are evaluated on them, and what is measured of pairs of models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kt_cli.errors import UsageError
from kt_cli.settings import shared
from kt_cli.settings.declared import NOT_NEGATIVE, POSITIVE, Settings, absolute, check, setting
from kt_cli.settings.shared import IMAGES, NO_HARM

EMBEDDINGS = ("head", "clip", "none")
HOW_TO_NAME_DATA = (
    "Name it with --data or the environment variable KT_DATA: a folder with train/ and val/ class "
    "folders, a folder of class folders, a timm source such as hfds/NAME, or 'digits' to try."
)


@dataclass(frozen=True)
class DataSpec:
    """Which images: what `--data` and its companions say."""

    source: str = setting(
        help="A folder with train/ and val/, a folder of class folders, hfds/NAME, torch/NAME, or "
        "digits.", panel=IMAGES, flags=("--data",), metavar="DATA", envvar="KT_DATA",
    )  # fmt: skip
    root: str | None = setting(
        None, "Where a timm source keeps its files; or the image folder itself.",
        panel=IMAGES, flags=("--data-dir",), metavar="FOLDER", path=True,
    )  # fmt: skip
    train_split: str = setting("train", "Training split of a timm source.", panel=IMAGES)
    val_split: str = setting("validation", "Evaluation split of a timm source.", panel=IMAGES)
    fraction: float = setting(
        1.0, "Share of the training images to use, stratified by class.", panel=IMAGES,
        within="(0, 1]", column="share of the training images used",
    )  # fmt: skip
    seed: int = setting(
        0, "Seed that draws subsets of the images.", panel=IMAGES, flags=("--data-seed",),
        within=NOT_NEGATIVE,
    )  # fmt: skip
    guard: float = setting(
        0.0, "Share of the training images set aside, on which no model trains.",
        panel=NO_HARM, flags=("--guard-share",), within="[0, 1)",
        usual="what the models' own training set aside",
    )  # fmt: skip
    limit: int | None = setting(
        None, "Evaluate on at most so many images, stratified by class.", panel=IMAGES,
        within=POSITIVE,
    )  # fmt: skip
    class_map: str | None = setting(
        None, "Class names (of folders) in label order, one a line.", panel=IMAGES,
        metavar="FILE", path=True,
    )  # fmt: skip
    labels: str | None = setting(
        None, "Ground truth of evaluation images in a flat folder: file name and class, or one "
        "class a line in the order of the files.", panel=IMAGES, metavar="FILE", path=True,
    )  # fmt: skip
    valid_labels: str | None = setting(
        None, "Line i: number of class i among the outputs of models whose names do not tell.",
        panel=IMAGES, metavar="FILE", path=True,
    )  # fmt: skip
    by_position: bool = setting(
        False, "Take outputs in the order of the classes where a model's names of them differ.",
        panel=IMAGES, flags=("--by-position/--no-by-position",),
    )  # fmt: skip
    real_labels: str | None = setting(
        None, "ReaL labels (JSON), or timm for its copy of ImageNet's.", panel=IMAGES,
        metavar="FILE", path=True,
    )  # fmt: skip
    unlabelled: str | None = setting(
        None, "Images without labels to transfer on, in place of train/.", panel=IMAGES,
        metavar="FOLDER", path=True,
    )  # fmt: skip
    guard_data: str | None = setting(
        None, "Class folders for the guard to judge on.", panel=NO_HARM, metavar="FOLDER",
        path=True,
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
    """The images that the fields `given` name; a root alone is a source.

    Raises:
        UsageError: none are named, or a value cannot be.
    """
    given = dict(given)
    source = given.pop("source", None) or given.pop("root", None)
    if source is None:
        raise UsageError("no data is named", HOW_TO_NAME_DATA)
    spec = DataSpec(source=whole_source(source), **given)
    check_images(spec)
    return spec


def check_images(spec: DataSpec) -> None:
    """Refuse images that there cannot be."""
    check(spec)
    if spec.by_position and spec.valid_labels:
        raise UsageError("--valid-labels and --by-position exclude each other", "Choose one.")


def whole_source(source: str) -> str:
    """A folder by its absolute path, since jobs may run elsewhere; other sources as they are."""
    return absolute(source) if Path(source).expanduser().is_dir() else source
