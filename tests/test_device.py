"""What befalls a device, by what torch and the libraries below it raise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kt_cli.device import out_of_memory, place


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        MemoryError(),
    ],
)
def test_memory_is_exhausted_in_many_words(error: Exception) -> None:
    assert out_of_memory(error)


def test_the_cpu_says_so_too() -> None:
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(found.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 5x2)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
        RuntimeError("CUDA error: device-side assert triggered"),
        ValueError("out of memory"),
    ],
)
def test_other_errors_are_not_memory(error: Exception) -> None:
    assert not out_of_memory(error)


def test_a_module_is_placed_in_the_memory_format_of_its_precision() -> None:
    """Whatever it was before: kernels of one pixel too, which are in both formats at once."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1), nn.Linear(5, 2))
    formats = {name: value.stride() for name, value in module.state_dict().items()}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    place(module.to(memory_format=torch.channels_last), torch.device("cpu"), "bfloat16")
    for name, value in module.state_dict().items():
        assert value.stride() == formats[name] and torch.equal(value, before[name])
