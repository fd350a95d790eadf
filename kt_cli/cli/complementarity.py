"""`kt complementarity A B [C …]`: what each model knows that the others do not."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kt_cli.cli import comparison, options, screen
from kt_cli.errors import UsageError

if TYPE_CHECKING:
    from kt_cli.data.images import ImageSet
    from kt_cli.spec import DataSpec, Model

GALLERY_SAMPLES = 12


class Baseline(str, Enum):
    none = "none"
    random = "random"


def complementarity(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL MODEL [MODEL…]", help="Two or more models, or selections of them."
        ),
    ],
    arch: Annotated[
        str | None,
        typer.Option(help="timm architecture of MODELs that are checkpoint files or folders."),
    ] = None,
    data: options.DataOption = None,
    data_dir: options.DataDir = None,
    val_split: options.ValSplit = "validation",
    class_map: options.ClassMap = None,
    labels: options.Labels = None,
    valid_labels: options.ValidLabels = None,
    by_position: options.ByPosition = None,
    real_labels: options.RealLabels = None,
    limit: options.Limit = None,
    eval_size: options.EvalSizeOption = options.EvalSize.test,
    amp: options.Amp = False,
    amp_dtype: options.AmpType = None,
    batch_size: options.EvalBatch = None,
    logits: Annotated[
        bool, typer.Option("--logits", help="Keep logits too: gives the mean of probabilities.")
    ] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Predict again what the cache has.")
    ] = False,
    cached_only: Annotated[
        bool, typer.Option("--cached-only", help="Predict nothing: take what the cache has.")
    ] = False,
    class_embedding: options.ClassEmbedding = "head",
    baseline: Annotated[
        Baseline, typer.Option(help="random: randomly initialised teachers beside the models.")
    ] = Baseline.none,
    top: Annotated[int, typer.Option(min=0, help="How many classes to list.")] = 5,
    samples: Annotated[
        int, typer.Option(min=0, help="How many images to list that one has right, one wrong.")
    ] = 0,
    gallery: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw such images into a PNG, PDF, SVG or HTML file."),
    ] = None,
    workers: options.Workers = None,
    as_json: options.Json = False,
) -> None:
    """Measure what each of two or more models knows that the others do not.

    Each model predicts the evaluation images once; the predictions are kept and reused.
    """
    if refresh and cached_only:
        raise UsageError("--refresh and --cached-only exclude each other", "Choose one of them.")
    from kt_cli.complementarity import embedding, evaluate, predict
    from kt_cli.complementarity import gallery as drawing
    from kt_cli.complementarity.comparison import compare, to_dict
    from kt_cli.device import pick_device
    from kt_cli.spec import EvalSpec

    embedding.require_kind(class_embedding)
    if gallery is not None:
        drawing.require_ending(gallery)
    resolved = _resolve(models, arch, baseline)
    if data is None and data_dir is None and _only_predictions(resolved):
        if limit or gallery:
            raise UsageError(
                "--limit and --gallery need images", "Name them: --data, beside the predictions."
            )
        images = _predicted_images(resolved)
    else:
        spec = options.data_spec(
            data, data_dir, val_split=val_split, limit=limit, class_map=class_map, labels=labels,
            valid_labels=valid_labels, by_position=by_position, real_labels=real_labels,
        )  # fmt: skip
        images = _images(resolved, spec, cached_only)
    device = pick_device()
    how = predict.How(
        EvalSpec(eval_size.value, options.precision(amp, amp_dtype)),
        device,
        logits=logits,
        mode=predict.REFRESH if refresh else predict.CACHED_ONLY if cached_only else predict.REUSE,
        batch_size=batch_size or evaluate.BATCH,
        workers=workers,
    )
    with screen.progress() as progress:
        found = compare(resolved, images, how, class_embedding, progress)
    if as_json:
        told = to_dict(found, top)
        screen.out.print_json(json.dumps({"data": images.name, "limit": limit, **told}))
    else:
        comparison.show(found, limit, top, samples)
    for warning in found.warnings:
        screen.warn(warning)
    if gallery is not None:
        drawing.draw(gallery, found, comparison.of_interest(found), samples or GALLERY_SAMPLES)
        screen.note(f"Drew {gallery}")


def _resolve(references: list[str], arch: str | None, baseline: Baseline) -> list[Model]:
    from kt_cli.zoo import names
    from kt_cli.zoo.baseline import random_twins

    resolved = names.resolve(references, arch)
    trained = [model for model in resolved if not model.untrained]
    if len(trained) < 2:
        only = (trained or resolved)[0]
        raise UsageError(
            f"one model alone has nothing to be compared with: {only.name}",
            "Name at least two different models; equal weights count once.",
        )
    if baseline is Baseline.random:
        known = {model.key for model in resolved}
        resolved += [twin for twin in random_twins(trained) if twin.key not in known]
    return resolved


def _only_predictions(models: list[Model]) -> bool:
    from kt_cli.zoo import scheme

    return all(scheme(model.ref) == "predictions" for model in models)


def _predicted_images(models: list[Model]) -> ImageSet:
    from kt_cli.complementarity.external import images_of
    from kt_cli.zoo import target

    return images_of([Path(target(model.ref)) for model in models])


def _images(models: list[Model], spec: DataSpec, cached_only: bool) -> ImageSet:
    from kt_cli.data.sources import open_data
    from kt_cli.zoo import load

    images = open_data(spec).eval
    options.warn_of_empty_classes(images)
    options.require_classes(models, images, images.name)
    if not cached_only:
        load.require_weights(models)
    return images
