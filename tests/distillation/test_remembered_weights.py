"""Models that remember their weights in evaluation mode answer with those that they have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from kt_cli.data.loading import batches
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.guard import Judge, choose
from kt_cli.distillation.guard_rules import ALPHAS
from kt_cli.distillation.order import Order
from kt_cli.distillation.train import Loop, fit
from kt_cli.distillation.weight_averaging import between, load
from kt_cli.knowledge.evaluate import Evaluator
from tests.distillation.test_guard import FULL, by_gain, image_set
from tests.distillation.toys import CPU, N, make_views, prepare

CLASSES = 3
# Side in pixels; each looks its attention biases up once.
ARCHS = {
    "levit_128s": 64, "levit_conv_128s": 64, "efficientvit_m0": 64, "efficientformerv2_s0": 64,
    "efficientformer_l1": 224, "tiny_vit_5m_224": 224,
}  # fmt: skip


def build(arch: str = "levit_128s", seed: int = 0) -> nn.Module:
    """Attention that matters, where a new model has none; `seed` is of the biases alone."""
    side: dict[str, Any] = {} if ARCHS[arch] == 224 else {"img_size": ARCHS[arch]}
    torch.manual_seed(0)
    module: nn.Module = timm.create_model(arch, num_classes=CLASSES, **side).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.add_(0.2 * torch.randn_like(value) if value.ndim == 1 else 0)
            if "attention_biases" in name:
                value.copy_(4 * torch.randn(value.shape, generator=generator(seed)))
    return module


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def said(module: nn.Module, arch: str = "levit_128s") -> Tensor:
    images = torch.rand(2, 3, ARCHS[arch], ARCHS[arch], generator=generator(7))
    out: Tensor = module(images)
    return out


@pytest.mark.parametrize("arch", ARCHS)
def test_what_is_loaded_is_what_answers(arch: str) -> None:
    module, other = build(arch), build(arch, seed=1)
    before, wanted = said(module, arch), said(other, arch)
    load(module, other.state_dict())
    assert not module.training
    assert torch.equal(said(module, arch), wanted) and not torch.allclose(before, wanted)
    module.train()
    load(module, other.state_dict())
    assert module.training


class Recording(Evaluator):
    """Keeps what it says."""

    logits: tuple[Tensor, ...] = ()

    def __call__(self, images: Tensor) -> Tensor:
        self.logits += (super().__call__(images),)
        return self.logits[-1]


def test_the_guard_judges_each_place_of_the_line_by_its_own_weights() -> None:
    config, labels = {**FULL, "input_size": (3, 64, 64)}, np.zeros(8, np.int64)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
    images = image_set(pixels, labels)
    start, end = build().state_dict(), build(seed=1).state_dict()
    evaluator = Recording(build(), config, CPU)
    choose(evaluator, start, end, Judge(images, labels > 0), lambda module: None, by_gain)
    ((shown,),) = batches(images, [evaluator.geometry.transform()], 8)
    for alpha, found in zip(ALPHAS, evaluator.logits, strict=True):
        fresh = build()
        fresh.load_state_dict(between(start, end, alpha))
        assert torch.equal(found, Evaluator(fresh, config, CPU)(shown)), alpha
    assert not torch.allclose(evaluator.logits[0], evaluator.logits[-1])


class Remembering(nn.Linear):
    """Remembers its product as LeViT does its biases, until it trains again."""

    def __init__(self) -> None:
        super().__init__(48, CLASSES)
        self.product: Tensor | None = None

    def train(self, mode: bool = True) -> Remembering:
        self.product = None if mode else self.product
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x.flatten(1))
        self.product = self.weight.T.clone() if self.product is None else self.product
        return x.flatten(1) @ self.product + self.bias


def test_a_training_that_was_finished_answers_with_what_it_came_to(tmp_path: Path) -> None:
    views, found = make_views(), []
    for _ in range(2):
        module = Remembering().eval()
        module(prepare(views.batch(0, torch.arange(N))))

        def loss_of(
            epoch: int, indices: Tensor, images: Tensor, module: nn.Module = module
        ) -> tuple[Tensor, Tensor]:
            return module(prepare(images)).square().mean(), torch.zeros(0)

        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        kept = Checkpoint(tmp_path / "state", seconds=0)
        fit(module, optimizer, views, loss_of, 0, Order(N, 1, 16, 16, 0), Loop(checkpoint=kept))
        found.append(module(prepare(views.batch(0, torch.arange(N)))))
    assert torch.equal(*found)


def test_weights_in_use_are_replaced_in_one_place(repository: Path) -> None:
    """Besides it, a model that was just built gets those of a file."""
    loading = re.compile(r"(?<!optimizer)(?<!scaler)\.load_state_dict\(")
    found = {
        path.name for path in (repository / "kt_cli").rglob("*.py")
        if loading.search(path.read_text())
    }  # fmt: skip
    built = {"checkpoints.py", "torchvision_models.py", "zero_shot.py"}
    assert found == {"weight_averaging.py", *built}
