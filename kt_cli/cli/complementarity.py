"""`kt complementarity A B [C …]`: what each model knows that the others do not."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kt_cli.cli import complementarity_view, options, screen
from kt_cli.cli.options import flag, option
from kt_cli.cli.setting_options import Fields, Given, with_settings
from kt_cli.errors import KtError, UsageError
from kt_cli.settings import DataSpec, EvalSpec, SweepSpec
from kt_cli.settings.data import EVALUATED, usual_source
from kt_cli.settings.shared import COMPUTATION, MODELS, OUTPUT

if TYPE_CHECKING:
    from kt_cli.api.complementarity import Complementarity
    from kt_cli.knowledge.comparison import Comparison


@with_settings
def complementarity(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Two or more models, or selections of them."),
    ],
    images: Annotated[Given, Fields(DataSpec, ("source", "limit", "real_labels"), only=EVALUATED)],
    how: Annotated[Given, Fields(EvalSpec, without=("amp",))],
    about: Annotated[Given, Fields(SweepSpec, ("baseline",), only=("class_embedding", "baseline"))],
    arch: Annotated[
        str | None,
        option(panel=MODELS, help="timm architecture of MODELs that are checkpoints."),
    ] = None,
    amp: options.Amp = None,
    amp_dtype: options.AmpType = None,
    device: options.Device = None,
    tf32: options.Tf32 = None,
    batch_size: options.EvalBatch = None,
    logits: Annotated[
        bool, flag("--logits", "Keep logits too: gives the mean of probabilities.", COMPUTATION)
    ] = False,
    refresh: Annotated[
        bool, flag("--refresh", "Predict again what the cache has.", COMPUTATION, hidden=True)
    ] = False,
    cached_only: options.CachedOnly = False,
    top: Annotated[
        int, option(min=0, panel=OUTPUT, metavar="N", help="How many classes to list.")
    ] = 5,
    samples: Annotated[
        int,
        option(min=0, panel=OUTPUT, metavar="N",
               help="How many images to list that one has right, one wrong."),
    ] = 0,
    gallery: options.Gallery = None,
    workers: options.Workers = None,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Measure what each of two or more models knows that the others do not.

    Each model predicts the evaluation images once; the predictions are kept and reused.
    """
    from kt_cli.api.complementarity import complementarity as measured

    if gallery is not None:
        images = _drawable(gallery, images)
    how["eval_amp"] = options.precision(amp, amp_dtype)
    with screen.progress() as progress:
        found = measured(
            models, arch=arch, batch_size=batch_size, workers=workers, logits=logits,
            refresh=refresh, cached_only=cached_only, progress=progress, **about, **images, **how,
        )  # fmt: skip
    _show(found, top, samples, as_json)
    if gallery is not None:
        _draw(gallery, found.comparison, samples)
    if failed := len(found.comparison.failures):
        raise KtError(f"{failed} of the models could not be evaluated", "The notes above say why.")


def _show(found: Complementarity, top: int, samples: int, as_json: bool) -> None:
    if as_json:
        of = {"data": found.comparison.images.name, "limit": found.limit}
        screen.show_json({**of, **found.to_dict(top), **_listed(found.comparison, samples)})
    else:
        complementarity_view.show(found.comparison, found.limit, top, samples)


def _listed(of: Comparison, count: int) -> dict[str, Any]:
    """The images that `--samples` asks for, for JSON."""
    from kt_cli.knowledge import explanation

    found = [
        {"teacher": of.names[t], "student": of.names[s],
         "images": list(map(asdict, explanation.samples(of, t, s, count)))}
        for t, s in (complementarity_view.of_interest(of) if count else ())
    ]  # fmt: skip
    return {"samples": found} if count else {}


def _drawable(gallery: Path, images: Given) -> Given:
    """The images that are named; beside predictions, too, those of the environment are drawn."""
    from kt_cli.knowledge.gallery import require_ending

    require_ending(gallery)
    if not images and not (source := usual_source()):
        raise UsageError("--gallery needs images", "Name them: --data, beside the predictions.")
    return images or {"data": source}


def _draw(gallery: Path, compared: Comparison, samples: int) -> None:
    from kt_cli.knowledge import gallery as drawing

    drawing.draw(gallery, compared, complementarity_view.of_interest(compared),
                 samples or drawing.SAMPLES)  # fmt: skip
    screen.note(f"Drew {gallery}")
