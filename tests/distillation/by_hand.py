"""Distillation as a loop by hand, for the tests beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from kt_cli.distillation.order import order_of
from kt_cli.distillation.train import Curve
from kt_cli.settings import TransferSpec
from tests.distillation.toys import (
    N,
    make_views,
    prepare,
)

# From the logits of the frozen student and the teachers, and labels: the target logits of each
# sample, and who teaches it.
Choose = Callable[[list[Tensor], Tensor], tuple[Tensor, Tensor]]


def kl(target: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """(b,) T² KL of probabilities, term by term."""
    q, p = ((z / temperature).softmax(dim=1) for z in (target, logits))
    return temperature**2 * (q * (q.log() - p.log())).sum(dim=1)


def by_label(said: list[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    rows, source = [], []
    for i, y in enumerate(labels.tolist()):
        scores = [float(z[i].softmax(0)[y]) for z in said]
        source.append(scores.index(max(scores)))
        rows.append(said[source[-1]][i])
    return torch.stack(rows), torch.tensor(source)


def the_teacher(said: list[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    return said[1], torch.ones(len(labels), dtype=torch.long)


def by_hand(
    spec: TransferSpec, student: nn.Module, said: Sequence[nn.Module], choose: Choose = the_teacher,
    augment: str = "none", after_update: Callable[[int], None] = lambda update: None,
) -> Curve:  # fmt: skip
    """Distillation with a share of cross-entropy for `xekl`, whole batches at once."""
    views, spec = make_views(augment), spec.with_defaults
    assert spec.lr is not None and spec.kd_lambda is not None
    share = spec.kd_lambda if spec.method.startswith("xekl") else 1.0
    rate = spec.lr * spec.batch_size / 256
    optimizer = torch.optim.SGD(
        student.parameters(), rate, spec.momentum, weight_decay=spec.weight_decay
    )
    losses, accuracies, taught, update = list[float](), list[float](), list[list[float]](), 0
    student.train()
    for epoch in range(spec.epochs):
        total, right, counts, batches = 0.0, 0, torch.zeros(len(said)), 0
        for batch in order_of(spec, N).batches(epoch):
            images, y = prepare(views.batch(epoch, batch)), views.labels[batch]
            with torch.no_grad():
                target, source = choose([m.eval()(images) for m in said], y)
            logits = student(images)
            classify = -logits.log_softmax(1)[torch.arange(len(y)), y].mean()
            loss = share * kl(target, logits, spec.temperature).mean() + (1 - share) * classify
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            update, batches, total = update + 1, batches + 1, total + float(loss.detach())
            right += int((logits.argmax(1) == y).sum())
            counts += torch.bincount(source, minlength=len(said))
            after_update(update)
        losses.append(total / batches)
        accuracies.append(100 * right / N)
        taught.append((100 * counts[1:] / N).tolist())
    return Curve(tuple(losses), (tuple(accuracies), *zip(*taught, strict=True)), 0.0)


def assert_curve(found: Curve, wanted: Curve) -> None:
    assert found.losses == pytest.approx(wanted.losses, rel=1e-4)
    assert found.accuracies == pytest.approx(wanted.accuracies)
    assert len(found.shares) == len(wanted.shares)
    for mine, its in zip(found.shares, wanted.shares, strict=True):
        assert mine == pytest.approx(its)
    assert 0 <= found.waiting <= 100
