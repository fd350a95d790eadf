"""The device that work runs on, and what a row says about where it came from."""

from __future__ import annotations

import os
import platform
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kt_cli.cores import memory_left
from kt_cli.errors import DeviceLost, KtError, UsageError, first_line
from kt_cli.precision import asked_device, tf32
from kt_cli.version import __version__

# Only torch's own allocator has a type for it. cuBLAS and cuDNN say so by their status, and cuDNN's
# search for an algorithm passes over those that memory does not suffice for, until none is left.
OUT_OF_MEMORY = re.compile(
    r"out of memory|_ALLOC(ATION)?_FAILED|(can't allocate|not enough) memory"
    r"|unable to find (a valid cuDNN algorithm|an engine)",
    re.IGNORECASE,
)
LIBRARIES = {"torch", "torchvision", "timm", "transformers", "open_clip", "kt_cli"}
LACKING = 10  # an exit status
JOB_VARIABLES = ("SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID")


def pick_device() -> torch.device:
    """What KT_DEVICE (--device) names, else CUDA where there is one, else the CPU.

    With algorithms that give the same numbers again, and on a GPU with products and convolutions
    in TF32 where it has it: `tf32`.

    Raises:
        UsageError: a GPU is asked for, and there is none.
    """
    torch.backends.cudnn.deterministic = True
    asked, index = asked_device()
    seen = asked != "cpu" and torch.cuda.is_available()
    if seen and (index is None or index < torch.cuda.device_count()):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32()
        if index is not None:  # asked for from Python; a command sees only the one
            torch.cuda.set_device(index)
        return torch.device("cuda")
    if asked == "cuda":
        named = os.environ["KT_DEVICE"]
        raise UsageError(f"--device {named}: torch sees no such GPU", "kt doctor looks at them.")
    return torch.device("cpu")


def lacks_bfloat16(apart: bool = False) -> bool:
    """Whether work runs on a GPU that only emulates it.

    apart: ask in a process of its own, as whoever asks has a context on the GPU from then on.
    """
    if apart and torch.cuda.device_count():
        ask = f"import sys, kt_cli.device as d; sys.exit({LACKING} * d.lacks_bfloat16())"
        return subprocess.run([sys.executable, "-c", ask]).returncode == LACKING  # noqa: S603
    return pick_device().type == "cuda" and not has_bfloat16()


def has_bfloat16(index: int | None = None) -> bool:
    """Whether a GPU, by default the one in use, has it and does not emulate it."""
    return torch.cuda.get_device_capability(index)[0] >= 8


def place(module: nn.Module, device: torch.device, amp: str = "") -> nn.Module:
    """The module on the device, and in the memory format of its precision whatever it was before.

    Convolutions in half precision need channels last to be fast; those in full precision give
    other bits there.
    """
    half = amp != "" and device.type == "cuda"
    return _ordered(module.to(device), half and _takes_any_order(module))


def _takes_any_order(module: nn.Module) -> bool:
    """Whether none of its code is the user's own, which may `view` what convolutions give."""
    return {type(part).__module__.partition(".")[0] for part in module.modules()} <= LIBRARIES


def _ordered(module: nn.Module, channels_last: bool) -> nn.Module:
    """Images and the weights of their convolutions with channels last, or as usual."""
    order = torch.channels_last if channels_last else torch.contiguous_format
    for values in (*module.parameters(), *module.buffers()):
        if values.dim() == 4:
            values.data = values.data.to(memory_format=order)
    return module


def landing(shape: Sequence[int], device: torch.device) -> Tensor:
    """Unwritten bytes on the host, from where `send` takes them at once."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")


def send(values: Tensor, device: torch.device) -> Tensor:
    """Values on the device; the host goes on before they are there.

    From pinned memory, which torch keeps until it was read: the driver copies other memory only
    after all that is queued before.
    """
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


class Meter:
    """Measures one run; `columns` are the provenance columns of its row."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._started = device, time.perf_counter()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def columns(self, samples: int = 0, earlier: float = 0.0) -> dict[str, Any]:
        """Provenance of a run that processed `samples` images, `earlier` seconds ago included."""
        seconds = earlier + time.perf_counter() - self._started
        if self._device.type == "cuda":
            name = torch.cuda.get_device_name(self._device) + ("" if tf32() else " without TF32")
            peak = torch.cuda.max_memory_allocated(self._device) / 2**20
        else:
            name = f"cpu ({platform.machine()})"
            unit = 2**20 if sys.platform == "darwin" else 2**10
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        return {
            **provenance(),
            "device": name,
            "seconds": seconds,
            "samples_per_s": samples / seconds if samples else None,
            "peak_memory_mb": peak,
        }


def provenance() -> dict[str, Any]:
    """Columns about this process and now, whichever device computes."""
    return {
        "kt_version": __version__,
        "torch_version": torch.__version__,
        "timm_version": version("timm"),
        "git_commit": _git_commit(),
        "threads": torch.get_num_threads(),
        "host": socket.gethostname(),
        "job_id": next((os.environ[v] for v in JOB_VARIABLES if v in os.environ), None),
        "created": datetime.now(timezone.utc).isoformat(timespec="microseconds"),
    }


@lru_cache(maxsize=1)
def _git_commit() -> str | None:
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return shown.stdout.strip() or None


def out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the device, or of the process, was exhausted."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error)) is not None


def memory_exhausted(micro_batch: int, otherwise: str, alone: str = "") -> KtError:
    """The error for a micro-batch that does not fit; `alone`: the tip where one image does not."""
    if micro_batch == 1:
        return KtError("one image alone exhausts the device's memory", alone)
    return KtError(
        f"micro-batches of {micro_batch} exhaust the device's memory",
        f"Try --micro-batch {micro_batch // 2}, or {otherwise}.",
    )


def require_gpu() -> None:
    """Raise DeviceLost where the GPU that this process was given does not compute."""
    try:
        torch.ones(8, device="cuda").sum().item()
    except Exception as error:
        raise DeviceLost(
            f"GPU {os.environ.get('CUDA_VISIBLE_DEVICES', '')} of {socket.gethostname()} does not "
            f"compute: {first_line(error)}",
            "kt doctor looks at it; CUDA_VISIBLE_DEVICES names those to use.",
        ) from error


def context_lost() -> bool:
    """Whether CUDA computes nothing more for this process, as after an assertion in a kernel.

    Kernels fail later than they are started, in whatever waits for the device next, and then all
    that follows fails: the error alone says neither whose it is nor that it is one of these.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


@contextmanager
def loss_named() -> Iterator[None]:
    """What is raised after the context was lost is raised as DeviceLost; also a decorator."""
    try:
        yield
    except Exception as error:
        if isinstance(error, DeviceLost) or not context_lost():
            raise
        raise DeviceLost(
            f"the GPU computes nothing more for this process: {first_line(error)}",
            "Of models that run together it may be any: kt sweep --pairs 0 tries one by one, and "
            "CUDA_LAUNCH_BLOCKING=1 shows where. kt doctor tells whether the GPU is sound.",
        ) from error


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; of the CPU's this process's share, as of the threads."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(share_of(os.cpu_count() or 1) * min(_available(), memory_left()))


def share_of(cores: int) -> float:
    """This process's part of what all on so many cores have, as of its threads."""
    return min(1.0, torch.get_num_threads() / cores)


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):  # no Linux
        return 4 * 2**30
