"""Say what changed from a model to another, as from a student before its transfer to after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kt_cli.api import Reference
from kt_cli.errors import DataError, KtError, UsageError
from kt_cli.progress import Progress, silent
from kt_cli.settings.values import texts

if TYPE_CHECKING:
    from kt_cli.knowledge.changes import Changes


def explain(
    before: Reference,
    after: Reference | None = None,
    teacher: Reference | None = None,
    *,
    progress: Progress = silent,
    **settings: Any,
) -> Changes:
    """Compare a model before and after on images: what was gained and lost, and where.

    Args:
        before, after: models as on the command line. A folder that `kt transfer` saved, alone,
            names the student before it, its teacher and the images by itself.
        teacher: whose answers are to be seen beside them.
        settings: as the options of `kt explain` (docs/settings.md): data=…, limit=…

    Raises:
        UsageError: the models, the settings and the data do not go together.
        DataError: a folder alone is no student that kt saved.
    """
    from kt_cli.api.complementarity import complementarity

    if after is None:
        folder = Path(texts(before)[0].removeprefix("local-dir:"))
        (*teachers, before), images = _origin(folder)
        after = f"local-dir:{folder}"
        teacher = teacher or (teachers[0] if len(teachers) == 1 else None)
        settings = {**images, **settings}
    named = [before, after, *([teacher] if teacher is not None else [])]
    found = complementarity(
        texts(named), class_embedding="none", progress=progress, **settings
    ).comparison
    if failed := len(found.failures):
        raise KtError(f"{failed} of the models could not be evaluated", "The notes above say why.")
    if len(found.names) != len(named):
        raise UsageError("nothing to explain: two of the models are one", "Name different models.")
    from kt_cli.knowledge.changes import Changes

    return Changes(found)


def _origin(folder: Path) -> tuple[list[str], dict[str, Any]]:
    """The teachers and, last, the student before, as `kt transfer` wrote down; and the images."""
    from kt_cli.zoo.local_models import CONFIG, ORIGIN, read_config

    tip = "Name the model before and the model after."
    try:
        said = read_config(folder.expanduser())["kt"][ORIGIN]
        return list(said["models"]), dict(said["data"])
    except DataError as error:
        missing = f"{folder} is no student that kt transfer saved: {error.message}"
        raise DataError(missing, tip) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / CONFIG} does not say what the model came from", tip) from error
