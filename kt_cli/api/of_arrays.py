"""Comparing what models said about samples, given as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kt_cli.errors import UsageError, warn

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from kt_cli.knowledge.comparison import Comparison


def by_name(models: Any) -> Mapping[str, ArrayLike] | None:
    """Arrays by the names of models, of a mapping or of a data frame; None of what is neither."""
    if hasattr(models, "columns") and hasattr(models, "items"):
        return dict(models.items())
    return models if isinstance(models, Mapping) else None


def of_arrays(
    models: Mapping[str, ArrayLike], labels: ArrayLike | str | None, classes: Sequence[str] | None
) -> Comparison:
    """Compare arrays: (n,) classes, or (n, C) logits or probabilities.

    Raises:
        UsageError: they, the labels and the names of classes do not go together.
    """
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
    from kt_cli.knowledge.file_columns import add_up

    if array.ndim == 1:
        return {"pred": array}
    if array.ndim != 2 or array.dtype.kind != "f" or array.shape[1] < 2:
        raise UsageError(
            f"{name} has shape {array.shape} of {array.dtype}",
            "Predictions are (n,) classes, or (n, C) logits or probabilities.",
        )
    shares = (array >= 0).all() and add_up(array).all()
    return {"probabilities" if shares else "logits": array}
