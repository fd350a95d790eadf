"""What befalls a device, by what torch and the libraries below it raise."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from kt_cli import device
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


class Own(nn.Module):
    """As many users write them: `view` needs what a convolution gives in the usual format."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).view(len(images), -1)


@pytest.mark.parametrize("channels_last", [False, True])
def test_kernels_of_three_dimensions_stay_as_they_are(channels_last: bool) -> None:
    """timm's lambda layers have some, and torch refuses to order them by channels."""
    module = timm.create_model("lambda_resnet26t").eval()
    images = torch.rand(1, 3, 256, 256)
    with torch.inference_mode():
        before = module(images)
        device._ordered(module, channels_last)
        torch.testing.assert_close(module(images), before, rtol=1e-4, atol=1e-4)
    orders = {v.is_contiguous(memory_format=torch.channels_last)
              for v in module.parameters() if v.dim() == 4 and min(v.shape) > 1}  # fmt: skip
    assert orders == {channels_last}


def test_a_users_own_code_gets_images_in_the_usual_order() -> None:
    assert device._takes_any_order(timm.create_model("test_resnet"))
    for module in (Own(), nn.Sequential(Own(), nn.Linear(256, 2))):
        assert not device._takes_any_order(module)
    with pytest.raises(RuntimeError, match="view"):
        device._ordered(Own(), True)(torch.rand(2, 3, 8, 8))


def test_whether_a_gpu_has_bfloat16_is_asked_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where whoever asks should have no context there; here the answer is that of a CPU."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(device, "pick_device", None)
    monkeypatch.setenv("KT_DEVICE", "cpu")
    assert device.lacks_bfloat16(apart=True) is False
    monkeypatch.setattr(device, "LACKING", 0)  # as if it were the answer
    assert device.lacks_bfloat16(apart=True) is True
