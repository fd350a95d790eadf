"""What a sweep writes, about: for its plan."""

from __future__ import annotations

from collections.abc import Sequence

from kt_cli.settings import SweepSpec
from kt_cli.spec import Model
from kt_cli.sweeps.config import transfer_count
from kt_cli.zoo import imagenet_facts

PREDICTION_BYTES = 50  # an image's row in the cache of predictions, its name included
TYPICAL_PARAMS_M = 50.0


def bytes_needed(
    spec: SweepSpec, models: Sequence[Model], training: int, evaluation: int
) -> dict[str, float]:
    """Bytes by what they hold, without targets: those have a budget of their own.

    Args:
        training, evaluation: how many images there are.
    """
    count = len(models) + len(spec.zoo)
    params = [published.params_m if (published := imagenet_facts.fact(m.key)) else TYPICAL_PARAMS_M
              for m in models] or [TYPICAL_PARAMS_M]  # fmt: skip
    size = 4e6 * sum(params) / len(params)
    transfers = transfer_count(spec, count)
    return {
        "predictions": PREDICTION_BYTES * count * evaluation,
        "training images": 3.0 * spec.transfer.side**2 * training * bool(transfers),
        "students": size * transfers * spec.save_students,
    }
