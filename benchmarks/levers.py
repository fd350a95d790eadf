"""What might make kt faster on a GPU, each with and without.

    python -m benchmarks.levers [--out FOLDER] [--seconds 200]

A lever that changes answers has their share beside its speed: of models trained on the spot on
scikit-learn's digits, on the digits that they have not seen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import train
from benchmarks.device import PRECISIONS, Size, Table, crops, jpegs, run, tf32, views_of
from benchmarks.measure import interleaved, medians, seconds
from benchmarks.train import Work, bare_epoch, ratio, ready, settled
from kt_cli.data.sources import open_data
from kt_cli.device import place
from kt_cli.knowledge.evaluate import Evaluator, evaluate
from kt_cli.settings import DataSpec
from kt_cli.zoo.load import build, load
from tests.gpu.zoo import trained

REPEATS = 3
Setting = Callable[[], Any]  # a context


def levers(size: Size, device: torch.device, table: Table) -> None:
    """How much each is worth; on the CPU most of them do nothing."""
    _decoding(size, device, table)
    _answers(size, device, table)
    table.head("Levers, each alone", ["", "images/s without", "images/s with", "×"])
    pixels = crops(size)[: size.batch_size]
    for arch in size.archs:
        module, config = build(arch, train.CLASSES, size.size)
        for amp, name, lever in (
            ("bfloat16", "cudnn.benchmark, bf16", searched),
            ("bfloat16", "not channels-last, bf16", nullcontext),
            ("", "cudnn.benchmark", searched),
            ("", "no TF32", partial(tf32, False)),
        ):
            spec = replace(size.spec, amp=amp)
            inputs = ready(config, train.CLASSES, views_of(pixels, spec, device), spec)
            works = _steps(module, spec, inputs, lever, contiguous=name.startswith("not"))
            table.add(f"step of {arch}: {name}", partial(_cells, works, len(pixels)))
        inputs = torch.from_numpy(pixels[:, :, : size.size, : size.size].copy())
        for amp in ("bfloat16", ""):
            works = {
                "without": _asked(module, config, device, amp, size.micro_batch, inputs),
                "with": _asked(module, config, device, amp, 4 * size.micro_batch, inputs),
            }
            name = f"{arch} asked in batches of {4 * size.micro_batch}, not {size.micro_batch}"
            table.add(f"{name}, {amp or 'fp32'}", partial(_cells, works, len(inputs)))


def _cells(works: Mapping[str, Work], n: int) -> list[str]:
    for work in works.values():
        work()
    found = interleaved(works, REPEATS)
    rates = {name: n / value for name, value in medians(found).items()}
    faster = ratio(found, "without", "with")
    return [f"{rates['without']:,.0f}", f"{rates['with']:,.0f}", f"{faster:.2f}"]


def _steps(module: nn.Module, spec: Any, inputs: Any, lever: Setting, contiguous: bool) -> Any:
    """An update, a few times over."""
    plain = bare_epoch(deepcopy(module).to(inputs[0][0][0].device), spec, inputs)
    other = deepcopy(module).to(inputs[0][0][0].device)
    changed = bare_epoch(other, spec, inputs)
    if contiguous:
        place(other, inputs[0][0][0].device, "")

    def with_it() -> None:
        with lever():
            changed()

    return {"without": settled(plain), "with": settled(with_it)}


def _asked(
    module: nn.Module, config: Any, device: torch.device, amp: str, batch: int, inputs: Tensor
) -> Work:
    evaluator = Evaluator(deepcopy(module), config, device, amp, batch)
    there = inputs.to(device)
    return settled(lambda: evaluator(there))


@contextmanager
def searched() -> Iterator[None]:
    """cuDNN tries its algorithms at the first batch of a shape."""
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = False


# --- decoding ------------------------------------------------------------------------------------


def _decoding(size: Size, device: torch.device, table: Table) -> None:
    """nvJPEG's decoder, and by how much its pixels differ."""
    if device.type != "cuda":
        return
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    table.head(
        "JPEGs of 350 to 500 pixels decoded, without resizing",
        ["", "images/s", "largest difference of a value", "mean"],
    )
    with tempfile.TemporaryDirectory() as temporary:
        jpegs(Path(temporary), size)
        paths = sorted(Path(temporary).rglob("*.jpg"))[:512]
        files = [read_file(str(path)) for path in paths]

        def by_pil(path: Path) -> Tensor:
            pixels = np.array(Image.open(path).convert("RGB"))
            return torch.from_numpy(pixels).permute(2, 0, 1)

        def by_gpu(some: Any) -> Any:
            return decode_jpeg(some, mode=ImageReadMode.RGB, device=device)

        def cells() -> list[str]:
            by_gpu(files[:32])
            some = [files[i : i + 64] for i in range(0, len(files), 64)]
            rate = len(files) / seconds(settled(lambda: [by_gpu(part) for part in some]))
            apart = [(a.cpu().int() - by_pil(path).int()).abs().float()
                     for a, path in zip(by_gpu(files[:32]), paths, strict=False)]  # fmt: skip
            largest = max(one.max().item() for one in apart)
            mean = np.mean([one.mean().item() for one in apart])
            return [f"{rate:,.0f}", f"{largest:.0f}", f"{mean:.3f}"]

        table.add("nvJPEG", cells)

        def alone() -> list[str]:
            rate = 64 / seconds(lambda: [by_pil(path) for path in paths[:64]])
            return [f"{rate:,.0f}", "0", "0"]

        table.add("PIL, one process", alone)


# --- answers -------------------------------------------------------------------------------------


def _answers(size: Size, device: torch.device, table: Table) -> None:
    """Share of top-1 answers that a precision changes."""
    lower = [name for name in PRECISIONS if name != "fp32"]
    table.head(
        "Answers that a precision changes, of models trained on digits",
        ["model", "images", "accuracy in fp32 %", *(f"{name} %" for name in lower)],
    )
    images = open_data(DataSpec("digits")).eval
    with tempfile.TemporaryDirectory() as temporary:
        for arch in ("test_resnet", "test_vit", "test_convnext", "test_efficientnet"):

            def cells(arch: str = arch) -> list[str]:
                model = trained(Path(temporary), arch)
                said = {}
                for name, (amp, allowed) in PRECISIONS.items():
                    loaded = load(model, images.classes)
                    with tf32(allowed):
                        said[name] = evaluate(loaded.module, loaded.data_config, images, device,
                                              amp=amp, workers=0).pred  # fmt: skip
                exact = said["fp32"]
                right = 100 * float(np.mean(exact == images.labels))
                return [f"{len(images):,}", f"{right:.1f}",
                        *(f"{100 * float(np.mean(said[name] != exact)):.2f}"
                          for name in lower)]  # fmt: skip

            table.add(arch, cells)


if __name__ == "__main__":
    run(levers)
