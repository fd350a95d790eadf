"""Running statistics of batch normalisation: which they are, and estimated anew."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from kt_cli.data.views import Views
from kt_cli.distillation import batch_norm
from kt_cli.distillation.batch_norm import layers, recompute, set_training, statistics
from kt_cli.errors import UsageError
from tests.distillation.toys import CPU, Tiny, assert_same, make_views, prepare, state


class Seeing(nn.Module):
    """Keeps all batches that it is shown, and in which mode each layer was."""

    def __init__(self, momentum: float | None = 0.3) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, momentum=momentum)
        self.dropout = nn.Dropout(0.5)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        assert not self.dropout.training and not torch.is_grad_enabled()
        self.seen.append(x)
        out: Tensor = self.norm(x)
        return out


def many(n: int, augment: str = "paper") -> Views:
    """Images that tell their index."""
    pixels = np.zeros((n, 3, 1, 2), np.uint8)
    for channel in range(3):
        pixels[:, channel] = (np.arange(n) // 20**channel % 20)[:, None, None]
    return Views(pixels, np.zeros(n, np.int64), augment, 0, CPU)


def same(images: Tensor) -> Tensor:
    return images


def test_statistics_are_named_as_in_the_state() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(2),
        nn.Sequential(nn.SyncBatchNorm(4), nn.BatchNorm1d(4, track_running_stats=False)),
        nn.InstanceNorm2d(4),
    )  # fmt: skip
    module.register_buffer("position", torch.zeros(2))
    names = ("running_mean", "running_var", "num_batches_tracked")
    assert statistics(module) == {f"{place}.{name}" for place in ("1", "4.0") for name in names}
    assert [type(layer) for layer in layers(module)] == [nn.BatchNorm2d, nn.SyncBatchNorm]
    assert statistics(Tiny(0)) == set()


@pytest.mark.parametrize("arch", ["test_resnet", "test_efficientnet", "test_vit"])
def test_statistics_of_timm_models(arch: str) -> None:
    module = timm.create_model(arch)
    wanted = {n for n in module.state_dict() if n.endswith(("running_mean", "running_var"))}
    found = statistics(module)
    assert {name for name in found if not name.endswith("num_batches_tracked")} == wanted
    assert bool(found) == (arch != "test_vit")


@pytest.mark.parametrize("bn", ["train", "recompute", "eval"])
def test_training_mode(bn: str) -> None:
    module = timm.create_model("test_resnet").eval()
    before = state(module)
    set_training(module, bn)
    norms = {id(layer) for layer in layers(module)}
    assert len(norms) > 3
    for layer in module.modules():
        assert layer.training == (id(layer) not in norms or bn != "eval")
    module(torch.randn(2, 3, 32, 32))
    moved = [
        not torch.equal(before[name], module.state_dict()[name]) for name in statistics(module)
    ]
    assert not any(moved) if bn == "eval" else all(moved)
    set_training(module, "train")  # and back
    assert all(layer.training for layer in module.modules())


@pytest.mark.parametrize("n", [1, 48, 64, 96, 200, 300])
def test_recomputed_statistics_are_means_over_batches(n: int) -> None:
    """Of all images once, as they are, in batches of about 64."""
    module, views = Seeing(), many(n)
    # As after a training.
    module.state_dict()["norm.running_mean"].fill_(7)
    module.state_dict()["norm.num_batches_tracked"].fill_(100)
    recompute(module, views, same)
    sizes = [len(batch) for batch in module.seen]
    assert sum(sizes) == n and max(sizes) - min(sizes) <= 1
    assert len(sizes) == max(1, round(n / 64))
    seen = torch.cat(module.seen)
    plain = views.plain(torch.arange(n))
    assert torch.equal(*(torch.tensor(sorted(x.flatten(1).tolist())) for x in (seen, plain)))
    means = [batch.double().mean((0, 2, 3)).numpy() for batch in module.seen]
    variances = [batch.double().var((0, 2, 3)).numpy() for batch in module.seen]
    found = module.state_dict()
    np.testing.assert_allclose(found["norm.running_mean"], np.mean(means, axis=0), atol=1e-6)
    np.testing.assert_allclose(found["norm.running_var"], np.mean(variances, axis=0), atol=1e-6)
    assert found["norm.num_batches_tracked"] == len(sizes)


@pytest.mark.parametrize("momentum", [0.3, None])
def test_momentum_mode_and_weights_are_left_as_they_were(momentum: float | None) -> None:
    module = Seeing(momentum)
    weights = {name: value.clone() for name, value in module.named_parameters()}
    module.train()
    recompute(module, many(96), same)
    assert module.norm.momentum == momentum
    assert not any(layer.training for layer in module.modules())
    assert_same(dict(module.named_parameters()), weights)
    assert all(p.grad is None for p in module.parameters())


def test_the_batches_are_the_same_every_time_and_mixed() -> None:
    modules = Seeing(), Seeing()
    for seed, module in enumerate(modules):
        torch.manual_seed(seed)
        recompute(module, many(200), same)
    assert_same(modules[0].state_dict(), modules[1].state_dict())
    indices = (torch.cat(modules[0].seen)[:, :, 0, 0] * 255).round() @ torch.tensor([1.0, 20, 400])
    assert indices.tolist() != list(range(200)) and sorted(indices.tolist()) == list(range(200))


def test_no_more_than_some_images_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch_norm.IMAGES == 4096
    module = Seeing()
    recompute(module, many(4500), same)
    seen = torch.cat(module.seen)
    assert len(seen) == 4096 == len({tuple(x) for x in seen.flatten(1).tolist()})
    assert len(module.seen) == 64


def test_layers_that_depend_on_each_other() -> None:
    """The second sees what the first makes of the batch by the batch's own statistics."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, 5), nn.ReLU(), nn.BatchNorm1d(5)
    )
    views = make_views("flip", 48)
    recompute(module, views, prepare)
    x = prepare(views.plain(torch.arange(48))).flatten(1)
    with torch.no_grad():
        first = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
        second = module[2](first).relu()
    found = module.state_dict()
    torch.testing.assert_close(found["1.running_mean"], x.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["4.running_mean"], second.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["4.running_var"], second.var(0), atol=1e-5, rtol=1e-4)


def test_without_statistics_nothing_happens() -> None:
    module = Tiny(0).train()
    before = state(module)

    def refuse(images: Tensor) -> Tensor:
        raise AssertionError("images are looked at for nothing")

    recompute(module, make_views(), refuse)
    assert_same(module.state_dict(), before)
    assert not module.training


def test_a_lone_value_is_told_by_its_setting() -> None:
    with (
        pytest.raises(UsageError, match="more than one value") as caught,
        batch_norm.lone_values_named(),
    ):
        nn.BatchNorm2d(3).train()(torch.ones(1, 3, 1, 1))
    assert "--micro-batch" in caught.value.tip
    with pytest.raises(ValueError, match="another"), batch_norm.lone_values_named():
        raise ValueError("another")
