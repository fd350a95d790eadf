"""CLIP's text embeddings of class names, through the optional package open_clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from kt_cli.errors import UsageError, WeightsUnavailable, first_line

ARCHITECTURE, WEIGHTS = "ViT-B-32", "openai"
NAME = f"{ARCHITECTURE}/{WEIGHTS}"
PROMPT = "a photo of a {}."
AT_ONCE = 256


@torch.inference_mode()
def text_embeddings(names: Sequence[str]) -> NDArray[np.float32]:
    """Embeddings of C class names, (C, d); UsageError or WeightsUnavailable without open_clip."""
    try:
        import open_clip
    except ImportError as error:
        raise UsageError(
            "class similarity by CLIP needs the package open_clip",
            "Install it: pip install 'kt-cli[clip]'; or compare classes by --class-embedding head.",
        ) from error
    try:
        model, _, _ = open_clip.create_model_and_transforms(
            ARCHITECTURE,
            pretrained=WEIGHTS,
            force_quick_gelu=True,  # as these were trained
        )
    except Exception as error:  # whatever its download raises
        raise WeightsUnavailable(
            f"cannot load CLIP {NAME}: {first_line(error)}",
            "Fetch it on a machine with network, or use --class-embedding head.",
        ) from error
    model.eval()
    tokens = open_clip.get_tokenizer(ARCHITECTURE)([PROMPT.format(name) for name in names])
    parts = [model.encode_text(part).float() for part in tokens.split(AT_ONCE)]
    result: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return result
