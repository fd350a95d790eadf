"""Measure what each of two or more models knows that the others do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kt_cli.api import Reference
from kt_cli.api.of_arrays import by_name, of_arrays
from kt_cli.errors import ClassMismatch, UsageError, readable, some_of, unknown, warn
from kt_cli.progress import Progress, silent
from kt_cli.settings import DataSpec, EvalSpec, PairsSpec
from kt_cli.settings.data import data_spec
from kt_cli.settings.declared import by_keyword, check, declared
from kt_cli.settings.sweep import BASELINES
from kt_cli.settings.values import texts

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from kt_cli.data.images import ImageSet
    from kt_cli.knowledge.comparison import Comparison
    from kt_cli.knowledge.predict import How
    from kt_cli.spec import Model


@dataclass(frozen=True)
class Complementarity:
    """What models know together, alone, and of each other.

    Attributes:
        comparison: everything that was computed, as `kt complementarity` shows it.
        limit: that was asked for.
    """

    comparison: Comparison
    limit: int | None = None

    @cached_property
    def models(self) -> pd.DataFrame:
        """One row for each model: top-1 and top-5 in percent, its interval, what it alone knows."""
        import pandas as pd

        return pd.DataFrame(self.to_dict(0)["models"])

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """One row for each ordered pair, with the columns of the table `complementarity`."""
        import pandas as pd

        return pd.DataFrame(self.to_dict(0)["pairs"]).drop(columns=["classes", "areas"])

    def knows(self, teacher: str, student: str) -> NDArray[Any]:
        """Indices of the samples that the teacher has right and the student wrong.

        Raises:
            UnknownName: no such model.
        """
        import numpy as np

        names = self.comparison.names
        for name in (teacher, student):
            if name not in names:
                raise unknown("model", name, names)
        right = self.comparison.right
        return np.flatnonzero(right[names.index(teacher)] & ~right[names.index(student)])

    def to_dict(self, classes: int = 10) -> dict[str, Any]:
        """All of it as plain values, for JSON. classes: so many of each pair at most."""
        from kt_cli.knowledge.comparison import to_dict

        return to_dict(self.comparison, classes)

    def __repr__(self) -> str:
        return f"{self._size}\n{self.models.round(2).to_string(index=False)}"

    def _repr_html_(self) -> str:
        shown = ["teacher", "student", "acc_diff", "pos_flips", "neg_flips", "agreement", "kappa"]
        return (
            f"<p>{self._size} · any right (oracle) {self.comparison.oracle:.2f}%</p>"
            f"{self.models.round(2).to_html(index=False)}"
            f"{self.pairs[shown].round(2).to_html(index=False)}"
        )

    @property
    def _size(self) -> str:
        return f"{self.comparison.n:,} images of {len(self.comparison.classes):,} classes"


def complementarity(
    models: Sequence[Reference] | Mapping[str, ArrayLike],
    *,
    labels: ArrayLike | str | None = None,
    classes: Sequence[str] | None = None,
    arch: str | None = None,
    baseline: str = "none",
    class_embedding: str = "head",
    batch_size: int | None = None,
    workers: int | None = None,
    logits: bool = False,
    refresh: bool = False,
    cached_only: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> Complementarity:
    """Compare models on images, or arrays of what models said about samples.

    Args:
        models: as on the command line; or by name what each says: (n,) predicted classes (also as
            a data frame), or (n, C) logits or probabilities.
        labels: for arrays the (n,) true classes; for images the file of `--labels`.
        classes: names of the classes of arrays.
        arch: timm architecture of models that are checkpoint files.
        baseline: "random" adds randomly initialised teachers.
        class_embedding: what classes are compared by: "head", "clip" or "none".
        logits: keep logits too, which gives the mean of probabilities.
        refresh, cached_only: predict again what the cache has; or nothing at all.
        settings: as the options of `kt complementarity` (docs/settings.md): data=…, limit=…

    Raises:
        UsageError: the models, the settings and the data do not go together.
    """
    if (arrays := by_name(models)) is not None:
        _refuse_for_arrays(
            **settings, arch=arch, baseline=baseline != "none", refresh=refresh,
            class_embedding=class_embedding != "head", batch_size=batch_size, workers=workers,
            logits=logits, cached_only=cached_only,
        )  # fmt: skip
        return Complementarity(of_arrays(arrays, labels, classes))
    references = texts(models)
    _refuse_for_images(classes, refresh and cached_only)
    how, given = by_keyword({**settings, "labels": labels}, EvalSpec, DataSpec)
    check(spec := EvalSpec(**how))
    check(PairsSpec(embedding=class_embedding))
    resolved = _resolved(references, arch, baseline)  # before anything heavy is imported
    from kt_cli.device import pick_device
    from kt_cli.knowledge import predict
    from kt_cli.knowledge.comparison import compare
    from kt_cli.knowledge.predictions import BATCH

    asked = predict.How(
        spec, pick_device(), logits=logits,
        mode=predict.REFRESH if refresh else predict.CACHED_ONLY if cached_only else predict.REUSE,
        batch_size=batch_size or BATCH, workers=workers,
    )  # fmt: skip
    found = compare(resolved, images_of(resolved, given, asked), asked, class_embedding, progress)
    for warning in (*found.warnings, *found.failures):
        warn(warning)
    return Complementarity(found, given.get("limit"))


def _resolved(references: Sequence[str], arch: str | None, baseline: str) -> list[Model]:
    from kt_cli.zoo import names, scheme

    if baseline not in BASELINES:
        raise unknown("baseline", baseline, BASELINES)
    resolved = names.resolve(references, arch, needed=2)
    trained = [model for model in resolved if not model.untrained]
    if len(trained) < 2:
        name = (trained or resolved)[0].name
        if len(resolved) > 1:
            untrained = some_of([model.name for model in resolved if model.untrained], 3)
            raise UsageError(
                f"{untrained} has learned nothing: a baseline beside models that have",
                "Name at least two trained models.",
            )
        if len(references) > 1:
            file = scheme(resolved[0].ref) == "predictions"
            same = "" if file else ": their weights are the same"
            raise UsageError(
                f"{' and '.join(references)} are one model, {name}{same}",
                "Name at least two different models.",
            )
        raise UsageError(
            f"one model alone has nothing to be compared with: {name}", "Name at least two."
        )
    if baseline == "random":
        known = {model.key for model in resolved}
        resolved += [twin for twin in names.random_twins(trained) if twin.key not in known]
    return resolved


def images_of(models: Sequence[Model], given: Mapping[str, Any], how: How) -> ImageSet:
    from kt_cli.data.remembered import forget
    from kt_cli.data.sources import open_data
    from kt_cli.knowledge import predict
    from kt_cli.zoo import classes, scheme, target, timm_registry

    files = all(scheme(model.ref) == "predictions" for model in models)
    if files and not {"source", "root"} & given.keys():
        from kt_cli.knowledge import external, file_images

        if given:
            option = declared(DataSpec)[next(iter(given))].keyword.replace("_", "-")
            raise UsageError(f"--{option} needs images", "Name them: --data, beside the files.")
        return file_images.images_of(
            readable(models, lambda model: external.read_external(Path(target(model.ref))))
        )
    forget()
    images = open_data(data_spec(given)).eval
    images.warn_of_empty_classes()
    fit = _fitting(models, images)
    classes.warn_of_classes(fit, images.classes, images.select)
    if how.mode != predict.CACHED_ONLY:
        timm_registry.require_weights(models)
    return images


def _fitting(models: Sequence[Model], images: ImageSet) -> Sequence[Model]:
    """Models without those that lack the classes of the images, which fail one by one.

    Raises:
        ClassMismatch: fewer than two are left. UsageError: of what is said about outputs.
    """
    from kt_cli.zoo import classes

    required = images.classes, images.name, images.select

    def lacks(outputs: classes.Outputs) -> bool:
        try:
            classes.match(outputs, images.classes, images.select)
        except LookupError:
            return True
        return False

    try:
        classes.require_classes(models, *required)
    except ClassMismatch:
        lacking = [model for model, outputs in classes.told(models) if lacks(outputs)]
        found = [model for model in models if model not in lacking]
        if len(found) < 2:
            raise
        classes.require_classes(found, *required)
        return found
    return models


def _refuse_for_arrays(**settings: Any) -> None:
    if given := [name for name, value in settings.items() if value not in (None, False)]:
        raise UsageError(f"arrays take no {', '.join(given)}", "Those are for images.")


def _refuse_for_images(classes: Sequence[str] | None, both: bool) -> None:
    if classes is not None:
        raise UsageError("classes are named for arrays", "Images have --class-map (class_map=…).")
    if both:
        raise UsageError("--refresh and --cached-only exclude each other", "Choose one of them.")
