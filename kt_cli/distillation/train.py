"""The loop: update a module towards a loss. Knows tensors; no names, models or tables."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kt_cli.data.views import Views, seed_of
from kt_cli.distillation.batch_norm import lone_values_named, set_training
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.order import Order
from kt_cli.distillation.weight_averaging import forget
from kt_cli.errors import KtError

SMALLER_RATE = "Try a smaller learning rate."
FIRST_SCALE = 2.0**16  # of losses in half precision; torch's own
STEPS = 3  # of the schedule "step"
# From the share of the updates that are done to a factor of the learning rate.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "step": lambda done: 0.1 ** min(STEPS - 1, int(STEPS * done)),
    "constant": lambda done: 1.0,
}
Prepare = Callable[[Tensor], Tensor]
# (epoch, indices (b,), their views (b, 3, S, S)) -> mean loss, and sums over samples (m,).
LossOf = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
OnEpoch = Callable[[int, int], None]


@dataclass(frozen=True)
class Loop:
    """What may happen around an update."""

    amp: str = ""  # type of mixed precision, "float16" or "bfloat16"; "" for none
    bn: str = "train"  # running statistics of batch normalisation are updated, or not: "eval"
    # Of the learning rates of the optimizer, for each update from 0.
    lr_factor: Callable[[int], float] = lambda update: 1.0
    # Called before an epoch, also where training goes on within it.
    begin_epoch: Callable[[int], object] = lambda epoch: None
    after_update: Callable[[int], object] = lambda updates: None  # so many there were
    # States, by name, that change with training besides the module and the optimizer; their
    # tensors are written to in place when training goes on.
    kept: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    on_epoch: OnEpoch = lambda done, total: None


@dataclass(frozen=True)
class Curve:
    """How a training went; shares are in percent."""

    losses: tuple[float, ...]  # mean of each epoch
    # For each of what the loss counts, its share of each epoch's samples.
    counted: tuple[tuple[float, ...], ...]
    # Share of the time in which the loop stood still until the pixels of views were read, or for a
    # GPU until views were queued: it may have had work left, so of its time it is the most.
    waiting: float
    earlier: float = 0.0  # seconds of training before it was interrupted

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Of the student on the views of each epoch, which are counted first."""
        return self.counted[0]

    @property
    def shares(self) -> tuple[tuple[float, ...], ...]:
        """For each teacher, the samples that it taught in each epoch."""
        return self.counted[1:]


class Diverged(KtError):
    """Numbers outgrew what they are held in; the same training would come to the same."""


class NotFinite(Diverged):
    """The loss is not a finite number; `update` counts from one."""

    def __init__(self, loss: float, update: int, epoch: int) -> None:
        super().__init__(f"the loss is {loss} at update {update} (epoch {epoch})", SMALLER_RATE)


@lone_values_named()
def fit(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    views: Views,
    loss_of: LossOf,
    counted: int,
    order: Order,
    loop: Loop = Loop(),
) -> Curve:
    """Train `module` in place, from its checkpoint where there is one.

    Args:
        counted: m, the number of sums that `loss_of` gives.

    Raises:
        NotFinite: the loss is not; the module is as it was at the last checkpoint.
        KtError: no update was made, since half precision does not hold the gradients.
    """
    state = _State(module, optimizer, order, loop, counted, views.device)
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    for epoch in range(state.epoch, order.epochs):
        loop.begin_epoch(epoch)
        set_training(module, loop.bn)
        batches = list(order.batches(epoch))[state.update :]
        parts = [order.micro_batches(batch) for batch in batches]
        stream = views.stream(epoch, [part for b in parts for part in b], state.waited)
        for micro_batches, batch in zip(parts, batches, strict=True):
            # Dropout depends on the update alone: not on targets, nor on where training went on.
            torch.manual_seed(seed_of("dropout", order.seed, state.done))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * loop.lr_factor(state.done)
            optimizer.zero_grad(set_to_none=True)
            for indices in micro_batches:
                images = next(stream)  # which may be made here, and alike in any precision
                with precision(loop.amp, views.device):
                    loss, sums = loss_of(epoch, indices, images)
                loss = loss * (len(indices) / len(batch))
                state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                state.add(loss, sums)
            state.scaler.step(optimizer)
            state.scaler.update()
            state.update += 1
            loop.after_update(state.done)
            state.save_if_due()
        state.end()
        loop.on_epoch(epoch + 1, order.epochs)
    module.eval()
    return state.curve()


def precision(amp: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context of mixed precision; of none for ""."""
    return torch.autocast(device.type, getattr(torch, amp)) if amp else nullcontext()


class _State:
    """Where training stands, on the device and in its checkpoint."""

    def __init__(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, order: Order, loop: Loop,
        counted: int, device: torch.device,
    ) -> None:  # fmt: skip
        self._module, self._optimizer, self._order, self._loop = module, optimizer, order, loop
        half = loop.amp == "float16"
        self.scaler = torch.amp.GradScaler(device.type, FIRST_SCALE, enabled=half)
        # Losses of this epoch's updates, and sums of each epoch: read once an epoch.
        self._losses = torch.zeros(order.updates_per_epoch, device=device)
        self._sums = torch.zeros(order.epochs, 1 + counted, device=device)
        self.epoch = self.update = 0
        self._seconds, self._waited, self._started = 0.0, 0.0, time.perf_counter()
        self._restore()
        _begin_momentum(optimizer)

    @property
    def done(self) -> int:
        """Updates in all epochs."""
        return self.epoch * self._order.updates_per_epoch + self.update

    def add(self, loss: Tensor, sums: Tensor) -> None:
        self._losses[self.update] += loss.detach()
        self._sums[self.epoch, 1:] += sums

    def waited(self, seconds: float) -> None:
        self._waited += seconds

    def end(self) -> None:
        """The end of an epoch; the only look at the device is here and at checkpoints."""
        self._require_finite()
        self._sums[self.epoch, 0] = self._losses.mean()
        self._losses.zero_()
        self.epoch, self.update = self.epoch + 1, 0
        self.save_if_due(epoch_ended=True)

    def save_if_due(self, epoch_ended: bool = False) -> None:
        checkpoint = self._loop.checkpoint
        if checkpoint is None or not checkpoint.due(epoch_ended):
            return
        self._require_finite()
        moments = {
            f"optimizer.{i}.{name}": value
            for i, values in self._optimizer.state_dict()["state"].items()
            for name, value in values.items()
            if isinstance(value, Tensor)
        }
        about = {
            "order": repr(self._order), "epoch": self.epoch, "update": self.update,
            "scaler": self.scaler.state_dict(), "waited": self._waited,
            "seconds": self._seconds_so_far(),
        }  # fmt: skip
        checkpoint.save({**self._tensors(), **moments}, about)

    def curve(self) -> Curve:
        if self.scaler.is_enabled():
            self._require_update()
        sums = self._sums.cpu()
        percent = 100 * (sums[:, 1:] / self._order.samples_per_epoch)
        waiting = 100 * (self._waited / max(self._seconds_so_far(), 1e-9))
        counted = tuple(tuple(column.tolist()) for column in percent.T)
        return Curve(tuple(sums[:, 0].tolist()), counted, waiting, self._seconds)

    def _seconds_so_far(self) -> float:
        return self._seconds + time.perf_counter() - self._started

    def _require_finite(self) -> None:
        bad = (~torch.isfinite(self._losses)).nonzero()
        if len(bad):
            first, epoch = int(bad[0, 0]), self.epoch
            loss = float(self._losses[first])
            self._restore()
            raise NotFinite(loss, epoch * self._order.updates_per_epoch + first + 1, epoch + 1)

    def _require_update(self) -> None:
        """The scaler skips updates whose gradients overflow, and halves its scale: perhaps all."""
        if self.scaler.get_scale() <= FIRST_SCALE / 2 ** min(self._order.updates, 100):
            raise Diverged(
                "no update was made: half precision does not hold the gradients",
                "Try --amp-dtype bfloat16.",
            )

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that training changes, by name; all but the optimizer's in place."""
        states = {"module": self._module.state_dict(), **self._loop.kept}
        found = {f"{kind}.{name}": v for kind, state in states.items() for name, v in state.items()}
        return {**found, "losses": self._losses, "sums": self._sums}

    def _restore(self) -> None:
        """Go back, or on, to what the checkpoint has, where it is of this training."""
        found = self._loop.checkpoint.load() if self._loop.checkpoint is not None else None
        if found is None:
            return
        tensors, about = found
        mine = self._tensors()
        theirs = {n: v.shape for n, v in tensors.items() if not n.startswith("optimizer.")}
        same = theirs == {n: v.shape for n, v in mine.items()}
        if not same or about.get("order") != repr(self._order):
            return
        with torch.no_grad():
            for name, value in mine.items():
                value.copy_(tensors[name])
        forget(self._module)
        self._restore_moments(tensors)
        if about["scaler"]:
            self.scaler.load_state_dict(about["scaler"])
        self.epoch, self.update = about["epoch"], about["update"]
        self._seconds, self._waited = about["seconds"], about["waited"]
        self._started = time.perf_counter()

    def _restore_moments(self, tensors: Mapping[str, Tensor]) -> None:
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                i, _, what = rest.partition(".")
                moments.setdefault(int(i), {})[what] = value
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})
        for parameter, values in self._optimizer.state.items():
            for name, value in values.items():
                if value.shape == parameter.shape:
                    # In its memory format too: fused optimizers go through both at once.
                    empty = torch.empty_like(parameter, dtype=value.dtype, device=value.device)
                    values[name] = empty.copy_(value)


def _begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Momentum from zero, which is the same as SGD's own first step.

    Fused SGD would leave it uninitialised where the scaler skips that step, and refuses parameters
    that get their first gradient later.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            state = optimizer.state[parameter]
            state.setdefault("momentum_buffer", torch.zeros_like(parameter))
