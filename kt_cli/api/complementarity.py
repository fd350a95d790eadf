"""Measure what each of two or more models knows that the others do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kt_cli.errors import UsageError, readable, some_of, unknown, warn
from kt_cli.progress import Progress, silent
from kt_cli.settings import DataSpec, EvalSpec, PairsSpec
from kt_cli.settings.data import data_spec
from kt_cli.settings.declared import by_keyword, check, declared, texts
from kt_cli.settings.sweep import BASELINES

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
    models: Sequence[str | PathLike[str]] | Mapping[str, ArrayLike],
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
        models: as on the command line; or by name what each says: (n,) predicted classes, or
            (n, C) logits or probabilities; or a data frame with a column of classes for each.
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
    if hasattr(models, "columns") and hasattr(models, "items"):  # a data frame
        models = dict(models.items())
    if isinstance(models, Mapping):
        _refuse_for_arrays(
            **settings, arch=arch, baseline=baseline != "none", refresh=refresh,
            class_embedding=class_embedding != "head", batch_size=batch_size, workers=workers,
            logits=logits, cached_only=cached_only,
        )  # fmt: skip
        return Complementarity(_of_arrays(models, labels, classes))
    references = texts(models)
    _refuse_for_images(classes, refresh and cached_only)
    how, given = by_keyword({**settings, "labels": labels}, EvalSpec, DataSpec)
    spec = EvalSpec(**how)
    check(spec)
    check(PairsSpec(embedding=class_embedding))
    resolved = _resolved(references, arch, baseline)  # before anything heavy is imported
    from kt_cli.device import pick_device
    from kt_cli.knowledge import predict
    from kt_cli.knowledge.comparison import compare

    asked = predict.How(
        spec, pick_device(), logits=logits,
        mode=predict.REFRESH if refresh else predict.CACHED_ONLY if cached_only else predict.REUSE,
        batch_size=batch_size or predict.BATCH, workers=workers,
    )  # fmt: skip
    images = images_of(resolved, given, asked)
    found = compare(resolved, images, asked, class_embedding, progress)
    for warning in (*found.warnings, *found.failures):
        warn(warning)
    return Complementarity(found, given.get("limit"))


def _resolved(references: Sequence[str], arch: str | None, baseline: str) -> list[Model]:
    from kt_cli.zoo import names

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
            same = "" if names.is_prediction(resolved[0]) else ": their weights are the same"
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
    classes.require_classes(models, images.classes, images.name, images.select)
    classes.warn_of_classes(models, images.classes, images.select)
    if how.mode != predict.CACHED_ONLY:
        timm_registry.require_weights(models)
    return images


def _refuse_for_arrays(**settings: Any) -> None:
    if given := [name for name, value in settings.items() if value not in (None, False)]:
        raise UsageError(f"arrays take no {', '.join(given)}", "Those are for images.")


def _refuse_for_images(classes: Sequence[str] | None, both: bool) -> None:
    if classes is not None:
        raise UsageError("classes are named for arrays", "Images have --class-map (class_map=…).")
    if both:
        raise UsageError("--refresh and --cached-only exclude each other", "Choose one of them.")


def _of_arrays(
    models: Mapping[str, ArrayLike], labels: ArrayLike | str | None, classes: Sequence[str] | None
) -> Comparison:
    import numpy as np

    from kt_cli.knowledge import external, file_images
    from kt_cli.knowledge.comparison import compared
    from kt_cli.knowledge.file_columns import external_of
    from kt_cli.knowledge.file_tables import Table

    if labels is None or isinstance(labels, str):
        raise UsageError("arrays need labels", "Give the true classes: labels=y.")
    classes = None if classes is None else list(map(str, classes))
    if len(models) < 2:
        raise UsageError("one model alone has nothing to be compared with")
    if len(set(classes or ())) < len(classes or ()):
        raise UsageError("two of the classes have one name")
    truth = _array("labels", labels)
    if not len(truth):
        raise UsageError("arrays of no samples say nothing")
    if truth.ndim > 1:
        raise UsageError(f"labels have shape {truth.shape}", "Give one class for each sample.")
    _require_classes(truth)
    said = {}
    for name, values in models.items():
        _require_aligned(str(name), values, labels)
        outputs = _array(str(name), values)
        if len(outputs) != len(truth):
            raise UsageError(f"{name} is about {len(outputs)} samples, labels about {len(truth)}")
        columns = {"label": truth, **_outputs(str(name), outputs)}
        columns["id"] = np.arange(len(truth))  # rows are samples in one order
        said[str(name)] = external_of(Table(Path(str(name)), columns))
    images = file_images.images_of(list(said.values()), classes)
    found = [external.predictions(one, images, name) for name, one in said.items()]
    whole = all(one.logits is not None for one in found)
    comparison = compared(list(said), found, [False] * len(found), None, whole)
    for warning in comparison.warnings:
        warn(warning)
    return comparison


def _require_aligned(name: str, values: Any, labels: Any) -> None:
    """Refuse what pandas would put into another order than the labels."""
    index, wanted = (getattr(one, "index", None) for one in (values, labels))
    equals = getattr(wanted, "equals", None)
    if equals is not None and hasattr(index, "equals") and not equals(index):
        raise UsageError(
            f"{name} has another index than labels",
            "Put them into one order (.loc[labels.index]), or take them as they are: .to_numpy().",
        )


def _require_classes(labels: NDArray[Any]) -> None:
    if labels.dtype.kind == "O":
        wrong = [value for value in labels.tolist() if value is None]
    elif labels.dtype.kind in "iuf":
        wrong = labels[~((labels >= 0) & (labels % 1 == 0))].tolist()
    else:
        return
    if wrong:
        raise UsageError(
            f"labels have {wrong[0]}, which is no class, {len(wrong):,} such in all",
            "Classes are whole numbers from 0, or names.",
        )


def _array(name: str, values: Any) -> NDArray[Any]:
    """What NumPy makes of values: numbers also of objects, and of tensors wherever they are."""
    import numpy as np

    if hasattr(values, "detach"):
        values = values.detach()
        values = values.to_dense() if values.is_sparse else values
        if values.is_meta:
            raise UsageError(f"{name} is a tensor without values", "It is on the device meta.")
        values = values.cpu()
        values = values.float() if values.is_floating_point() else values
    if np.ma.is_masked(values):
        raise UsageError(f"{name} has masked values", "Each sample needs an answer.")
    array = np.asarray(values)
    if not array.ndim:
        raise UsageError(f"{name} is no array: {values!r}", "Give one value for each sample.")
    return np.array(array.tolist()) if array.dtype == object else array


def _outputs(name: str, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """As the column that they are: rows of shares that add up to one are probabilities."""
    import numpy as np

    if array.ndim == 1:
        return {"pred": array}
    if array.ndim != 2 or array.dtype.kind != "f" or array.shape[1] < 2:
        raise UsageError(
            f"{name} has shape {array.shape} of {array.dtype}",
            "Predictions are (n,) classes, or (n, C) logits or probabilities.",
        )
    shares = (array >= 0).all() and np.allclose(array.sum(axis=1, dtype=np.float64), 1, atol=1e-2)
    return {"probabilities" if shares else "logits": array}
