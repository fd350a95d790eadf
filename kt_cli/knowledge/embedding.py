"""What classes are compared by: the table EMBEDDINGS, one small function per kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kt_cli.data.images import ImageSet
from kt_cli.errors import ClassMismatch, DataError, WeightsUnavailable, WriteError, unknown
from kt_cli.files import cache_folder, cached, not_kept
from kt_cli.knowledge.class_similarity import ClassEmbedding
from kt_cli.rows import arrays
from kt_cli.settings.declared import digest
from kt_cli.spec import Model
from kt_cli.zoo import identity, scheme, zero_shot
from kt_cli.zoo import load as zoo
from kt_cli.zoo.features import classifier_rows
from kt_cli.zoo.imagenet_names import readable

FORMAT = 3  # of an entry of the cache
WITHOUT_HEAD = ("predictions", "random")


def class_embedding(kind: str, models: Sequence[Model], images: ImageSet) -> ClassEmbedding | None:
    """The embedding of the images' classes.

    Args:
        kind: a name of EMBEDDINGS.
        models: the most accurate first.

    Raises:
        UnknownName: no such kind. UsageError: the extra is missing.
        WeightsUnavailable: CLIP's weights are neither in the cache nor to be had.
    """
    if kind not in EMBEDDINGS:
        raise unknown("class embedding", kind, EMBEDDINGS)
    return EMBEDDINGS[kind](models, images)


def _head(models: Sequence[Model], images: ImageSet) -> ClassEmbedding | None:
    """Rows of the classifier of the most accurate model that has a linear one."""
    for model in models:
        if scheme(model.ref) in WITHOUT_HEAD:
            continue
        name, path = f"head:{model.name}", _entry("head", model.key, images)
        rows, source = _kept(path)
        if rows is None or not source or source != identity.source(model):
            try:
                loaded = zoo.load(model, images.classes, select=images.select)
            except WeightsUnavailable:
                pass  # its predictions come from the cache, as these rows do
            except (DataError, ClassMismatch):
                continue  # another model will do
            else:
                rows = classifier_rows(loaded.module)
                if rows is not None:
                    _keep(path, rows, name, images, loaded.source)
        if rows is not None:
            return ClassEmbedding.of(name, rows)
    return None


def _clip(models: Sequence[Model], images: ImageSet) -> ClassEmbedding | None:
    """CLIP's text embeddings of the class names, as the paper; an extra of the package."""
    name, path = f"clip:{zero_shot.NAME}", _entry("clip", zero_shot.NAME, images)
    rows, _ = _kept(path)
    if rows is None:
        rows = zero_shot.text_embeddings(readable(images.classes))
        _keep(path, rows, name, images)
    return ClassEmbedding.of(name, rows)


def _entry(kind: str, source: str, images: ImageSet) -> Path:
    key = digest([FORMAT, kind, source, images.classes, images.select])[:24]
    return cache_folder("classes") / f"{key}.parquet"


def _kept(path: Path) -> tuple[arrays.Array, str]:
    """Rows that are kept, None where they are damaged or missing, and of which source."""
    columns, about = cached(path, arrays.read) or ({}, {})
    return columns.get("vectors"), about.get("source", "")


def _keep(path: Path, rows: arrays.Array, name: str, images: ImageSet, source: str = "") -> None:
    about = {"name": name, "data": images.name, "num_classes": str(len(rows)), "source": source}
    try:
        arrays.write(path, {"id": list(images.classes), "vectors": rows}, about)
    except WriteError as error:
        not_kept(error)


EMBEDDINGS: dict[str, Callable[[Sequence[Model], ImageSet], ClassEmbedding | None]] = {
    "head": _head,
    "clip": _clip,
    "none": lambda models, images: None,
}
