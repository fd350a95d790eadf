"""Which device is asked for, and in which arithmetic it computes, told without torch."""

from __future__ import annotations

import os
import sys

from kt_cli.errors import unknown

DEVICES = ("cpu", "cuda")
# Of NVIDIA's driver (also in containers and below Windows), and of AMD's.
GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def tf32() -> bool:
    """Whether a GPU may round the factors of float32 to TF32: if KT_TF32 (--no-tf32) lets it."""
    return os.environ.get("KT_TF32", "1") != "0"


def arithmetic(kind: str) -> str:
    """What else than model and images decides about the last digits of answers.

    kind: of device, "cpu" or "cuda".
    """
    return kind if kind != "cuda" or tf32() else "cuda without TF32"


def asked_device() -> tuple[str, int | None]:
    """What KT_DEVICE (--device) names: "cpu", "cuda" or "" for neither; and the GPU's number.

    Raises:
        UnknownName: it names something else.
    """
    named = os.environ.get("KT_DEVICE", "")
    kind, _, index = named.partition(":")
    numbered = kind == "cuda" and index.isdigit()
    if named not in ("", *DEVICES) and not numbered:
        raise unknown("device", named, [*DEVICES, "cuda:0"])
    return kind, int(index) if index else None


def only_cpu() -> bool:
    """Whether the device to use can only be the CPU; False where torch must be asked."""
    asked, _ = asked_device()
    linux = sys.platform == "linux"
    return asked == "cpu" or (not asked and linux and not any(map(os.path.exists, GPU_FILES)))
