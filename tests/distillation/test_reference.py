"""`--reference-compat` against the authors' procedure, as a plain loop by hand in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.order import order_of
from kt_cli.settings import TransferSpec
from tests.distillation.toys import CLASSES, SPEC, N, Tiny, make_views, prepare, train

States = list[dict[str, Tensor]]
TAU = 0.7
# Four epochs of three updates, so that every second and every fourth update of an epoch are others
# than those of all updates.
REFERENCE = replace(
    SPEC, reference_compat=True, epochs=4, micro_batch=16, mcl_tau=TAU, kd_topk=2, temperature=2.0,
    augment="flip", lr=3.0,
)  # fmt: skip


class Double(nn.Module):
    """A toy in float64."""

    def __init__(self, seed: int, norm: bool = False) -> None:
        super().__init__()
        self.inner = Tiny(seed, norm).double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x.double())
        return out


@dataclass
class Watched(Checkpoint):
    """The states after every update, in place of a file."""

    live: States = field(default_factory=list)
    slow: States = field(default_factory=list)

    def due(self, epoch_ended: bool = False) -> bool:
        return not epoch_ended

    def save(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        for kind, kept in (("module.", self.live), ("slow.", self.slow)):
            found = {n.removeprefix(kind): v for n, v in tensors.items() if n.startswith(kind)}
            kept.append({name: value.clone() for name, value in found.items()})

    def load(self) -> None:
        return None


def by_the_authors(
    spec: TransferSpec, student: nn.Module, frozen: nn.Module, teacher: nn.Module
) -> tuple[States, States, set[str]]:
    """After every update the student and its slow weights; and what happened on the way."""
    spec = spec.with_defaults
    assert spec.lr and spec.kd_topk is not None and spec.mcl_every and spec.kd_lambda is not None
    method, views, temperature = spec.method, make_views(spec.augment), spec.temperature
    alpha = spec.kd_lambda if method.startswith("xekl") else 1.0
    weights = list(student.parameters())
    momentum = [torch.zeros_like(w) for w in weights]
    slow: dict[str, Tensor] | None = None
    lives, slows, seen = States(), States(), set[str]()
    frozen.eval(), teacher.eval()
    for epoch in range(spec.epochs):
        student.train()
        for j, batch in enumerate(order_of(spec, N).batches(epoch)):
            images, labels = prepare(views.batch(epoch, batch)), views.labels[batch]
            out_s = student(images)
            with torch.no_grad():
                out_t, out_st = teacher(images), frozen(images)
            right_s, right_t = out_s.argmax(1) == labels, out_t.argmax(1) == labels
            terms = []
            for i in range(len(batch)):
                positive = bool(right_t[i] and not right_s[i])
                negative = bool(right_s[i] and not right_t[i])
                seen |= {name for name, is_so in (("+", positive), ("-", negative)) if is_so}
                target = {
                    "flip-st": out_t[i] if positive else out_st[i],
                    "flip-t": out_st[i] if negative else out_t[i],
                    "flip-avg": out_t[i] if positive else out_st[i] if negative
                    else (out_t[i] + out_s[i]) / 2,
                }.get(method, out_t[i])  # fmt: skip
                if spec.distil_on == "not-negative" and negative:
                    continue
                if spec.distil_on == "positive" and not positive:
                    continue
                z_t, z_s = target, out_s[i]
                if spec.kd_topk:
                    classes = out_t[i].argsort(descending=True)[: spec.kd_topk]
                    z_t, z_s = target[classes], out_s[i][classes]
                q = (z_t / temperature).exp() / (z_t / temperature).exp().sum()
                p = (z_s / temperature).exp() / (z_s / temperature).exp().sum()
                terms.append((q * (q / p).log()).sum())
            kl = temperature**2 * torch.stack(terms).mean() if terms else 0 * out_s.sum()
            seen |= {"none"} if not terms else set()
            # Cross-entropy takes the probabilities, smoothed, for logits.
            p = out_s.exp() / out_s.exp().sum(dim=1, keepdim=True)
            p = (1 - spec.label_smoothing) * p + spec.label_smoothing / CLASSES
            p = p.exp() / p.exp().sum(dim=1, keepdim=True)
            xe = -p[torch.arange(len(batch)), labels].log().mean()
            grads = torch.autograd.grad(alpha * kl + (1 - alpha) * xe, weights)
            with torch.no_grad():
                for w, g, m in zip(weights, grads, momentum, strict=True):
                    m.mul_(spec.momentum).add_(g + spec.weight_decay * w)
                    w.sub_(spec.lr * spec.batch_size / 256 * m)
            if method.endswith("-mcl"):
                live = {name: value.clone() for name, value in student.state_dict().items()}
                if slow is None:  # their first slow weights are the student's own memory
                    slow = live
                if j % spec.mcl_every == 0:
                    slow = {name: TAU * slow[name] + (1 - TAU) * live[name] for name in live}
                slows.append(slow)
                if j + 1 == N // spec.batch_size:  # evaluation leaves them in the student
                    student.load_state_dict(slow)
            lives.append({name: value.clone() for name, value in student.state_dict().items()})
    return lives, slows, seen


CASES: dict[str, dict[str, Any]] = {
    "xekl": {"label_smoothing": 0.2},
    "kl-mcl": {"mcl_every": 2},
    "xekl-mcl": {"mcl_every": 2, "label_smoothing": 0.1},
    "flip-st": {"kd_topk": 0},
    "flip-t": {"kd_topk": 0},
    "flip-avg": {"kd_topk": 0},
    "kl": {"distil_on": "positive", "kd_topk": 0},
}
PAIRS = {"batch_size": 2, "micro_batch": 2, "epochs": 2}  # of which sometimes none is distilled


@pytest.mark.parametrize(
    ("method", "norm", "more"),
    [*((method, norm, {}) for method in CASES for norm in (False, True)),
     ("kl-mcl", True, {"mcl_every": 1}), ("xekl-mcl", True, {"mcl_every": 4}),
     ("kl-mcl", True, {"distil_on": "all"}), ("kl-mcl", False, {"lr": 10.0, **PAIRS}),
     ("xekl", False, {"distil_on": "positive", **PAIRS})],
)  # fmt: skip
def test_every_update_is_the_authors(
    tmp_path: Path, method: str, norm: bool, more: dict[str, Any]
) -> None:
    spec = replace(REFERENCE, method=method, **{**CASES[method], **more})
    watched = Watched(tmp_path / "none")
    student, other, teacher = Double(1, norm), Double(1, norm), Double(0, norm)
    train(spec, student, [teacher], Double(1, norm), checkpoint=watched)
    lives, slows, seen = by_the_authors(spec, other, Double(1, norm), Double(0, norm))
    assert len(lives) == len(watched.live) == spec.epochs * (N // spec.batch_size)
    for mine, its in ((watched.live, lives), (watched.slow, slows)):
        for update, (found, wanted) in enumerate(zip(mine, its, strict=bool(its)), start=1):
            assert_close(found, wanted, f"after update {update}")
    assert_close(student.state_dict(), lives[-1], "at the end")
    assert not torch.allclose(lives[-1]["inner.head.weight"], Double(1).inner.head.weight)
    assert {"+", "-"} <= seen and ("none" in seen or spec.batch_size > 2)


def assert_close(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], when: str) -> None:
    """All but the batches that normalisation counted: the authors average them."""
    for name, value in wanted.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(
                found[name], value, rtol=1e-12, atol=1e-12, err_msg=f"{name} {when}"
            )
