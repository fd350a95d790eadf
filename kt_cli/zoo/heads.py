"""Classifiers of models, as one vector for each class."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from kt_cli.zoo.load import Selected, whole


def classifier_rows(module: nn.Module) -> NDArray[np.float32] | None:
    """Rows (C, d) of a timm model's linear classifier, or None where it has none such.

    Args:
        module: as `kt_cli.zoo.load.load` gives it, its outputs in the order of the classes.
    """
    find = cast(Any, getattr(whole(module), "get_classifier", None))
    head = find() if find is not None else None
    if isinstance(head, (tuple, list)):  # distilled models have two; the first is of the labels
        head = head[0]
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight[0].numel() != weight.shape[1]:
        return None
    rows: NDArray[np.float32] = weight.detach().flatten(1).float().cpu().numpy()
    if not isinstance(module, Selected):
        return rows
    return None if module.lacking else rows[module.columns.cpu().numpy()]
