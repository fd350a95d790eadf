"""Classifiers of models, as one vector for each class."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from kt_cli.zoo.features import classifier
from kt_cli.zoo.load import Selected


def classifier_rows(module: nn.Module) -> NDArray[np.float32] | None:
    """Rows (C, d) of a timm model's linear classifier, or None where it has none such.

    Args:
        module: as `kt_cli.zoo.load.load` gives it, its outputs in the order of the classes.
    """
    head = classifier(module)
    if head is None:
        return None
    weight = cast(Tensor, head.weight)
    rows: NDArray[np.float32] = weight.detach().flatten(1).float().cpu().numpy()
    if not isinstance(module, Selected):
        return rows
    return None if module.lacking else rows[module.columns.cpu().numpy()]
