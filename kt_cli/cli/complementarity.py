"""`kt complementarity A B [C …]`: what each model knows that the others do not."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from kt_cli.cli import complementarity_view, options, screen
from kt_cli.cli.setting_options import Fields, Given, with_settings
from kt_cli.errors import UsageError
from kt_cli.settings import DataSpec, EvalSpec

GALLERY_SAMPLES = 12
IMAGES = (
    "source", "root", "val_split", "limit", "class_map", "labels", "valid_labels", "by_position",
    "real_labels",
)  # fmt: skip


class Baseline(str, Enum):
    none = "none"
    random = "random"


class Embedding(str, Enum):
    head = "head"
    clip = "clip"
    none = "none"


@with_settings
def complementarity(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL MODEL [MODEL…]", help="Two or more models, or selections of them."
        ),
    ],
    images: Annotated[Given, Fields(DataSpec, ("source", "limit", "real_labels"), only=IMAGES)],
    how: Annotated[Given, Fields(EvalSpec, without=("amp",))],
    arch: Annotated[
        str | None,
        typer.Option(help="timm architecture of MODELs that are checkpoint files or folders."),
    ] = None,
    amp: options.Amp = False,
    amp_dtype: options.AmpType = None,
    batch_size: options.EvalBatch = None,
    logits: Annotated[
        bool, typer.Option("--logits", help="Keep logits too: gives the mean of probabilities.")
    ] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", hidden=True, help="Predict again what the cache has.")
    ] = False,
    cached_only: Annotated[
        bool,
        typer.Option(
            "--cached-only", hidden=True, help="Predict nothing: take what the cache has."
        ),
    ] = False,
    class_embedding: Annotated[
        Embedding, typer.Option(hidden=True, help="What classes are compared by.")
    ] = Embedding.head,
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
    from kt_cli.api.complementarity import complementarity as measured
    from kt_cli.knowledge import gallery as drawing

    if gallery is not None:
        drawing.require_ending(gallery)
        if not images:
            raise UsageError("--gallery needs images", "Name them: --data, beside the predictions.")
    how["eval_amp"] = options.precision(amp, amp_dtype)
    with screen.progress() as progress:
        found = measured(
            models, arch=arch, baseline=baseline.value, class_embedding=class_embedding.value,
            batch_size=batch_size, workers=workers, logits=logits, refresh=refresh,
            cached_only=cached_only, progress=progress, **images, **how,
        )  # fmt: skip
    compared, limit = found.comparison, found.limit
    if as_json:
        about = {"data": compared.images.name, "limit": limit}
        screen.out.print_json(json.dumps({**about, **found.to_dict(top)}))
    else:
        complementarity_view.show(compared, limit, top, samples)
    if gallery is not None:
        interesting = complementarity_view.of_interest(compared)
        drawing.draw(gallery, compared, interesting, samples or GALLERY_SAMPLES)
        screen.note(f"Drew {gallery}")
