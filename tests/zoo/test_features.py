"""Pooled features: what a model's classifier makes its logits of."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from kt_cli.errors import UsageError
from kt_cli.zoo.features import FeatureTap, classifier, width
from kt_cli.zoo.load import Selected

CLASSES = 10
WIDTHS = {
    "test_vit": 64,
    "test_resnet": 96,
    "test_convnext": 64,
    "test_efficientnet": 256,
    "test_byobnet": 256,
    "test_nfnet": 192,
    "test_mambaout": 256,
    "test_maxvit": 128,
}


def build(arch: str) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = timm.create_model(arch, num_classes=CLASSES)
    return made.eval()


def images(n: int = 2, seed: int = 0, side: int = 160) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("arch", WIDTHS)
@torch.no_grad()
def test_the_classifier_makes_the_logits_of_the_features(arch: str) -> None:
    module = build(arch)
    tap = FeatureTap(module)
    logits = module(images())
    features = tap.take()
    assert features.shape == (2, WIDTHS[arch]) and width(module) == WIDTHS[arch]
    head = classifier(module)
    assert isinstance(head, nn.Linear)
    torch.testing.assert_close(features @ head.weight.T + head.bias, logits)


@torch.no_grad()
def test_a_classifier_that_is_a_convolution_of_one_pixel() -> None:
    module = build("resnetv2_18")
    tap = FeatureTap(module)
    logits = module(images(side=32))
    head = classifier(module)
    assert isinstance(head, nn.Conv2d) and head.bias is not None
    features = tap.take()
    assert features.shape == (2, width(module))
    torch.testing.assert_close(features @ head.weight.flatten(1).T + head.bias, logits)


@torch.no_grad()
def test_each_forward_pass_has_features_of_its_own() -> None:
    module = build("test_vit")
    tap = FeatureTap(module)
    found = []
    for seed in (0, 1, 0):
        module(images(seed=seed))
        found.append(tap.take())
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])
    with pytest.raises(AssertionError, match="no forward pass"):
        tap.take()


def test_features_carry_the_gradient_of_the_body() -> None:
    module = build("test_resnet")
    tap = FeatureTap(module)
    module(images())
    tap.take().square().mean().backward()  # type: ignore[no-untyped-call]
    head = classifier(module)
    assert head is not None and all(p.grad is None for p in head.parameters())
    assert next(module.parameters()).grad is not None


@torch.no_grad()
def test_of_a_model_with_some_outputs_selected() -> None:
    """Features are the whole model's; its classifier has all outputs."""
    inner = build("test_vit")
    columns = [7, 2, 5]
    module = Selected(inner, columns)
    tap = FeatureTap(module)
    logits = module(images())
    head = classifier(module)
    assert isinstance(head, nn.Linear) and width(module) == 64
    torch.testing.assert_close(head(tap.take())[:, columns], logits)


@torch.no_grad()
def test_of_two_classifiers_the_one_of_the_labels() -> None:
    module: Any = timm.create_model(
        "deit_tiny_distilled_patch16_224", num_classes=CLASSES, depth=1, embed_dim=24, num_heads=2
    ).eval()
    tap = FeatureTap(module)
    tokens = module.forward_features(images(side=224))
    module.forward_head(tokens)
    torch.testing.assert_close(tap.take(), tokens[:, 0])
    assert classifier(module) is module.head and width(module) == 24


@torch.no_grad()
def test_closed_or_not_wanted_it_leaves_the_module_alone() -> None:
    module = build("test_vit")
    hooks = classifier(module)._forward_pre_hooks  # type: ignore[union-attr]
    tap = FeatureTap(module)
    assert len(hooks) == 1
    tap.close()
    assert not hooks
    FeatureTap(module, wanted=False)
    assert not hooks
    FeatureTap(nn.Flatten(), wanted=False)


class Pretending(nn.Module):
    """Says that its classifier is something else than a linear layer."""

    def __init__(self, head: nn.Module | None) -> None:
        super().__init__()
        self.head = head

    def get_classifier(self) -> nn.Module | None:
        return self.head


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES)),
        timm.create_model("test_vit", num_classes=0),
        Pretending(None),
        Pretending(nn.Conv2d(4, CLASSES, 3)),
        Pretending(nn.Identity()),
    ],
    ids=["not timm's", "without classes", "none", "3x3 convolution", "identity"],
)
def test_a_model_without_a_classifier_is_refused(module: nn.Module) -> None:
    assert classifier(module) is None
    with pytest.raises(UsageError, match="no pooled features"):
        FeatureTap(module)
    with pytest.raises(UsageError, match="no pooled features"):
        width(module)
