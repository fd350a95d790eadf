"""Training a model of a zoo, against loops by hand and against itself when interrupted."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kt_cli.cli.app import main
from kt_cli.data.sources import open_data, training_id
from kt_cli.data.views import Views
from kt_cli.distillation import checkpoint
from kt_cli.distillation.checkpoint import Checkpoint
from kt_cli.distillation.order import Order
from kt_cli.distillation.pretrain import SCHEDULES, lr_factor, pretrain
from kt_cli.distillation.train import NotFinite
from kt_cli.errors import KtError, UsageError
from kt_cli.knowledge.evaluate import evaluate
from kt_cli.runs.pretrain import pretrain_run
from kt_cli.settings import DataSpec, PretrainSpec
from kt_cli.settings.declared import check
from kt_cli.spec import Run
from kt_cli.zoo import load as zoo
from kt_cli.zoo import names

CPU = torch.device("cpu")
N, CLASSES = 48, 3
SPEC = PretrainSpec("x", "tiny", epochs=3, lr=0.05, batch_size=16, micro_batch=8)


class Tiny(nn.Module):
    """A body with batch normalisation and dropout, and a classifier as timm's models have it."""

    def __init__(self, seed: int = 0, norm: bool = False, dropout: float = 0.0) -> None:
        torch.manual_seed(seed)
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(),
            nn.Linear(48, 8),
            nn.BatchNorm1d(8) if norm else nn.Identity(),
            nn.Tanh(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(8, CLASSES)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


def learnable(augment: str = "none") -> Views:
    """One bright channel tells the class, in noise."""
    labels = np.arange(N) % CLASSES
    pixels = np.random.default_rng(0).integers(0, 128, (N, 3, 4, 4), dtype=np.uint8)
    pixels[np.arange(N), labels] += 120
    return Views(pixels, labels, augment, 0, CPU)


def prepare(images: Tensor) -> Tensor:
    return (images - 0.5) / 0.5


def state(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def assert_same(left: nn.Module, right: nn.Module) -> None:
    for name, value in left.state_dict().items():
        assert torch.equal(value, right.state_dict()[name]), name


def test_pretraining_learns() -> None:
    module, views = Tiny(), learnable()
    curve = pretrain(module, views, prepare, replace(SPEC, epochs=30))
    predicted = module(prepare(views.batch(0, torch.arange(N)))).argmax(1)
    assert len(curve.losses) == len(curve.accuracies) == 30 and not module.training
    assert curve.losses[-1] < 0.2 * curve.losses[0] and curve.accuracies[-1] == 100
    assert torch.equal(predicted, views.labels)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("freeze", [0, 1])
def test_training_equals_a_loop_by_hand(optimizer: str, freeze: int) -> None:
    spec = replace(SPEC, optimizer=optimizer, freeze_epochs=freeze, label_smoothing=0.1, warmup=0.3)
    views, module, by_hand = learnable(), Tiny(), Tiny()
    curve = pretrain(module, views, prepare, spec)
    weights = [by_hand.body[1].weight, by_hand.head.weight]
    biases = [by_hand.body[1].bias, by_hand.head.bias]
    groups = [
        {"params": weights, "weight_decay": spec.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    chosen: Any = (
        torch.optim.AdamW(groups, spec.lr)
        if optimizer == "adamw"
        else torch.optim.SGD(groups, spec.lr, momentum=0.9)
    )
    update, losses, right = 0, list[float](), list[float]()
    for epoch in range(3):
        losses, right = [], []
        for batch in Order(N, 3, 16, 16, 0).batches(epoch):
            for group in chosen.param_groups:
                # 9 updates, 3 of them warm-up, then half a cosine over the other 6.
                warm = (update + 1) / 3
                group["lr"] = spec.lr * (
                    warm if update < 3 else (1 + math.cos(math.pi * (update - 3) / 6)) / 2
                )
            logits = by_hand(prepare(views.batch(epoch, batch)))
            truth = torch.full((16, CLASSES), 0.1 / CLASSES)
            truth[torch.arange(16), views.labels[batch]] += 0.9
            loss = -(truth * logits.log_softmax(1)).sum(1).mean()
            chosen.zero_grad()
            loss.backward()
            if epoch < freeze:
                by_hand.body[1].weight.grad = by_hand.body[1].bias.grad = None
            chosen.step()
            update += 1
            losses.append(float(loss.detach()))
            right.append(float((logits.argmax(1) == views.labels[batch]).float().mean()))
    assert curve.losses[-1] == pytest.approx(np.mean(losses), rel=1e-4)
    assert curve.accuracies[-1] == pytest.approx(100 * np.mean(right), rel=1e-5)
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, atol=1e-6, rtol=1e-5)


def test_micro_batches_accumulate_to_the_same_update() -> None:
    modules = Tiny(), Tiny()
    for module, micro in zip(modules, (16, 5), strict=True):
        pretrain(module, learnable(), prepare, replace(SPEC, micro_batch=micro, optimizer="sgd"))
    for name, value in modules[0].state_dict().items():
        torch.testing.assert_close(modules[1].state_dict()[name], value, atol=1e-6, rtol=1e-5)


# --- the classifier first ------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_frozen_body_does_not_change_by_a_bit(optimizer: str) -> None:
    module = Tiny(norm=True, dropout=0.2)
    before = state(module)
    spec = replace(SPEC, freeze_epochs=5, optimizer=optimizer)
    pretrain(module, learnable("flip"), prepare, spec)
    for name, value in state(module).items():
        assert torch.equal(value, before[name]) == name.startswith("body"), name
    assert all(p.requires_grad for p in module.parameters())


def test_the_frozen_body_normalises_with_the_statistics_that_it_has() -> None:
    module, views = Tiny(norm=True), learnable()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.running_mean.fill_(0.3)  # type: ignore[union-attr]
            layer.running_var.fill_(2.0)  # type: ignore[union-attr]
    with torch.no_grad():
        images = prepare(views.batch(0, torch.arange(N)))
        first = F.cross_entropy(module.eval()(images), views.labels)
    spec = replace(SPEC, freeze_epochs=1, epochs=1, batch_size=N, micro_batch=N)
    curve = pretrain(module, views, prepare, spec)
    assert curve.losses[0] == pytest.approx(float(first), rel=1e-5)


def test_after_the_frozen_epochs_everything_is_trained() -> None:
    module = Tiny(norm=True)
    before = state(module)
    pretrain(module, learnable(), prepare, replace(SPEC, freeze_epochs=2))
    assert not any(torch.equal(v, before[k]) for k, v in state(module).items())
    assert int(module.state_dict()["body.2.num_batches_tracked"]) == 2 * 3  # one epoch of three


def test_what_the_architecture_keeps_fixed_stays_so() -> None:
    module = Tiny()
    module.body[1].bias.requires_grad_(False)
    before = state(module)
    pretrain(module, learnable(), prepare, replace(SPEC, freeze_epochs=1))
    changed = {k for k, v in state(module).items() if not torch.equal(v, before[k])}
    assert changed == {"body.1.weight", "head.weight", "head.bias"}
    assert not module.body[1].bias.requires_grad


def test_both_classifiers_of_a_distilled_model_are_trained() -> None:
    class Distilled(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.head_dist = nn.Linear(8, CLASSES)

        def get_classifier(self) -> Any:
            return self.head, self.head_dist

        def forward(self, x: Tensor) -> Tensor:
            features = self.body(x)
            out: Tensor = (self.head(features) + self.head_dist(features)) / 2
            return out

    module = Distilled()
    before = state(module)
    pretrain(module, learnable(), prepare, replace(SPEC, freeze_epochs=3))
    changed = {k.split(".")[0] for k, v in state(module).items() if not torch.equal(v, before[k])}
    assert changed == {"head", "head_dist"}


def test_a_model_without_a_classifier_cannot_train_it_first() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, CLASSES))
    pretrain(module, learnable(), prepare, SPEC)
    with pytest.raises(UsageError, match="tiny has no classifier") as caught:
        pretrain(module, learnable(), prepare, replace(SPEC, freeze_epochs=1))
    assert "--freeze" in caught.value.tip


# --- interrupted ---------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [4, 7, 9, 13, 20, 23])
@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, epochs=4, freeze_epochs=2, augment="flip"),
        replace(SPEC, epochs=4, optimizer="sgd", schedule="step", amp="bfloat16"),
    ],
    ids=["freeze", "sgd"],
)
def test_what_was_cut_off_ends_with_the_same_bits(
    tmp_path: Path, spec: PretrainSpec, calls: int
) -> None:
    """24 forward passes in 4 epochs; a few restarts, each from the last update that is kept."""

    def started() -> nn.Module:
        return Tiny(norm=True, dropout=0.3)

    undisturbed, seen = started(), 0
    wanted = pretrain(undisturbed, learnable(spec.augment), prepare, spec)
    checkpoint = Checkpoint(tmp_path / "state.safetensors", seconds=0)

    def cut(images: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        if seen % calls == 0:
            raise InterruptedError
        return prepare(images)

    interrupted = False
    for _ in range(24):
        module = started()
        try:
            found = pretrain(module, learnable(spec.augment), cut, spec, checkpoint=checkpoint)
            break
        except InterruptedError:
            interrupted = True
    assert interrupted
    assert_same(module, undisturbed)
    assert found.losses == wanted.losses and found.accuracies == wanted.accuracies


def test_what_was_cut_off_at_the_end_of_an_epoch_goes_on(tmp_path: Path) -> None:
    spec = replace(SPEC, epochs=3, augment="flip")
    undisturbed = Tiny(norm=True)
    pretrain(undisturbed, learnable(spec.augment), prepare, spec)
    checkpoint = Checkpoint(tmp_path / "state.safetensors", seconds=0)
    told: list[int] = []

    def cut(done: int, total: int, right: float) -> None:
        told.append(done)
        if len(told) == 1:
            raise InterruptedError

    def go(module: nn.Module) -> nn.Module:
        views = learnable(spec.augment)
        pretrain(module, views, prepare, spec, checkpoint=checkpoint, on_epoch=cut)
        return module

    with pytest.raises(InterruptedError):
        go(Tiny(norm=True))
    assert_same(go(Tiny(norm=True)), undisturbed)
    assert told == [1, 2, 3]


def test_a_loss_that_is_not_finite_names_its_update() -> None:
    calls = itertools.count(1)

    def broken(images: Tensor) -> Tensor:
        # Two forward passes an update: the ninth is within the fifth update, of the second epoch.
        return prepare(images) * (math.nan if next(calls) == 9 else 1.0)

    with pytest.raises(NotFinite, match=r"nan at update 5 \(epoch 2\)") as caught:
        pretrain(Tiny(), learnable(), broken, SPEC)
    assert "learning rate" in caught.value.tip


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError(), RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")]
)
def test_exhausted_memory_says_what_to_try(error: Exception) -> None:
    def full(images: Tensor) -> Tensor:
        raise error

    with pytest.raises(KtError, match="micro-batches of 8") as caught:
        pretrain(Tiny(), learnable(), full, SPEC)
    assert "--micro-batch 4" in caught.value.tip


# --- the learning rate ---------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("updates", [1, 2, 7, 90])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_the_schedule_equals_a_loop_by_hand(schedule: str, updates: int, warmup: float) -> None:
    rising = round(warmup * updates)
    expected = [(i + 1) / rising for i in range(rising)]
    rest = updates - rising
    for i in range(rest):
        if schedule == "cosine":
            expected.append(math.cos(math.pi * i / rest / 2) ** 2)
        elif schedule == "linear":
            expected.append((rest - i) / rest)
        elif schedule == "step":
            expected.append(1.0 if 3 * i < rest else 0.1 if 3 * i < 2 * rest else 0.01)
        else:
            expected.append(1.0)
    found = [lr_factor(update, updates, schedule, warmup) for update in range(updates)]
    assert found == pytest.approx(expected)
    assert max(found) == pytest.approx(1)


def test_cosine_and_linear_end_at_zero_and_step_at_a_hundredth() -> None:
    at_the_end = {name: lr_factor(50, 50, name, 0.1) for name in SCHEDULES}
    assert at_the_end == pytest.approx({"cosine": 0, "linear": 0, "step": 0.01, "constant": 1})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"micro_batch": 0}, "micro_batch"),
        ({"img_size": 0}, "img_size"),
        ({"freeze_epochs": -1}, "freeze_epochs"),
        ({"warmup": 1.0}, "warmup"),
        ({"warmup": -0.1}, "warmup"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"label_smoothing": 1.5}, "label_smoothing"),
        ({"lr": math.nan}, "lr"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'"),
        ({"amp": "float8"}, "float8"),
    ],
)
def test_settings_that_cannot_be_are_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(KtError, match=message):
        check(replace(SPEC, **changed))


# --- as a run, and as a command ------------------------------------------------------------------

SMALL = PretrainSpec(
    "small", "test_resnet", epochs=2, freeze_epochs=1, img_size=32, side=32, fraction=0.3, seed=3
)
DATA = DataSpec("digits", guard=0.1, limit=200)


def run_of(spec: PretrainSpec) -> Run:
    return Run("pretrain", (), training_id(DATA.part(spec.fraction)), spec, DATA, out=spec.name)


def test_a_run_that_was_cut_off_goes_on_and_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "WORTH_SECONDS", 0.0)
    run, (whole, cut) = run_of(SMALL), (tmp_path / "whole", tmp_path / "cut")
    (wanted,) = pretrain_run(run, whole)

    def stop(done: int, total: int, what: str) -> None:
        if done and what.startswith("small: "):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        pretrain_run(run, cut, stop)
    assert not (cut / "small").exists() and list(cut.glob(".checkpoints/*"))
    epochs: list[int] = []
    (found,) = pretrain_run(run, cut, lambda done, total, what: epochs.append(done))
    assert epochs == [0, 2]  # of the first only the name was said again
    weights = [folder / "small" / "model.safetensors" for folder in (whole, cut)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    same = ("final_loss", "curve_loss", "curve_acc", "accuracy", "train_data")
    assert {k: found[k] for k in same} == {k: wanted[k] for k in same}
    assert [p.name for p in cut.iterdir()] == ["small"]


def test_the_row_holds_what_the_saved_model_is_worth(tmp_path: Path) -> None:
    spec = replace(
        SMALL, fraction=1.0, batch_size=16, micro_batch=16, lr=2e-3, freeze_epochs=0, crop=0.9,
        name="saved",
    )  # fmt: skip
    (row,) = pretrain_run(run_of(spec), tmp_path)
    loaded = zoo.load(names.single(f"local-dir:{tmp_path / 'saved'}"))
    images = open_data(DATA).eval
    said = evaluate(loaded.module, loaded.data_config, images, CPU)
    assert row["accuracy"] == pytest.approx(100 * np.mean(said.pred == images.labels))
    assert row["accuracy"] > 20 and row["n"] == 200 and len(row["curve_acc"]) == 2
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert f"top-1 {row['accuracy']:.2f}%" in card and "10% of the training images" in card


def kt(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["kt", "pretrain", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


QUICK = (
    "--data",
    "digits",
    "--img-size",
    "32",
    "--side",
    "32",
    "--epochs",
    "1",
    "--fraction",
    "0.1",
)


def test_several_models_at_once_and_again_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        "test_vit", "test_resnet", *QUICK, "-o", str(tmp_path), "--freeze", "3", "--opt", "sgd",
        "--amp", "--amp-dtype", "bfloat16", "-b", "32", "--micro-batch", "16", "--guard-share",
        "0.2", "--sched", "linear", "--warmup", "0",
    )  # fmt: skip
    monkeypatch.setattr("kt_cli.cli.screen.WIDE", 500)
    assert kt(monkeypatch, *command) == 0
    shown = capsys.readouterr()
    assert "--freeze 3 of 1 epoch: only the classifier is trained" in shown.err
    assert shown.out.count("top-1") == 2 and "on 899 evaluation images" in shown.out
    kept = json.loads((tmp_path / "test_vit" / "config.json").read_text(encoding="utf-8"))["kt"]
    assert kept["guard"] == 0.2 and kept["spec"]["freeze_epochs"] == 3
    assert kept["spec"]["schedule"] == "linear" and kept["spec"]["amp"] == "bfloat16"
    before = (tmp_path / "test_vit" / "model.safetensors").stat().st_mtime_ns
    for file in (tmp_path / "test_resnet").iterdir():
        file.unlink()
    assert kt(monkeypatch, *command) == 0
    shown = capsys.readouterr()
    assert "test_vit is trained already" in shown.err and shown.out.count("top-1") == 1
    assert (tmp_path / "test_resnet" / "model.safetensors").exists()
    assert (tmp_path / "test_vit" / "model.safetensors").stat().st_mtime_ns == before
    assert kt(monkeypatch, *command, "--lr", "0.1") == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(("lr", "learned"), [("2e-3", True), ("1e-7", False)])
def test_a_model_that_learned_nothing_is_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    lr: str, learned: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr("kt_cli.cli.screen.WIDE", 500)
    images = ("--data", "digits", "--img-size", "32", "--side", "32")
    assert kt(monkeypatch, "test_vit", *images, "--lr", lr, "--epochs", "3", "-b", "32",
              "--micro-batch", "32", "-o", str(tmp_path)) == 0  # fmt: skip
    assert ("is near chance after 3 epochs. Train" in capsys.readouterr().err) != learned


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test_vit", "test_vit"), "two models would be called 'test_vit'"),
        (("test_vit", "--sched", "cosin"), "Did you mean cosine?"),
        (("test_vit", "--amp", "--amp-dtype", "float8"), "float8"),
        (("test_vit", "--freeze", "-1"), "--freeze"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    assert kt(monkeypatch, *arguments, *QUICK, "-o", str(tmp_path)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
