"""A transfer that moves nothing has Δ = 0, or is refused by what changed: warm cache or cold."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from timm.models import _registry
from torch import nn

from kt_cli.data.remembered import forget
from kt_cli.data.sources import open_data
from kt_cli.distillation import batch_norm, checkpoint
from kt_cli.distillation.target_cache import DISK, MEMORY, ONLINE
from kt_cli.errors import DataError
from kt_cli.knowledge import predict, stream
from kt_cli.knowledge.predict import How, outputs_of
from kt_cli.knowledge.predictions import Predictions
from kt_cli.rows import store
from kt_cli.runs.pairs import pairs_run
from kt_cli.runs.transfer import transfer_run
from kt_cli.settings import DataSpec, PairsSpec, TransferSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps import chunk
from kt_cli.zoo import identity, load
from kt_cli.zoo.names import resolve

NAMED = "test_resnet.r160_in1k"  # timm's, of 1,000 classes
DIGITS = tuple(map(str, range(10)))
STILL = TransferSpec(
    method="self", epochs=2, lr=1e-9, batch_size=16, micro_batch=16, augment="none", crop=1.0,
    side=32, bn="eval",
)  # fmt: skip


def shaken(module: nn.Module) -> nn.Module:
    """With weights that tell images apart."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    images = open_data(DataSpec("digits")).eval
    some = np.stack([np.asarray(images.read(i).resize((32, 32))) for i in range(0, 320, 5)])
    inputs = torch.from_numpy(some).permute(0, 3, 1, 2) / 128 - 1
    for layer in batch_norm.layers(module):
        layer.momentum = None
    with torch.no_grad():
        module.train()(inputs)
    return module.eval()


def save_folder(folder: Path, arch: str = "test_resnet", seed: int = 0, crop: float = 1.0) -> Model:
    torch.manual_seed(seed)
    module, config = load.build(arch, 10, 32)
    load.save(
        shaken(module), folder, data_config={**config, "crop_pct": crop}, num_classes=10,
        label_names=DIGITS, card="", extra={},
    )  # fmt: skip
    (model,) = resolve([str(folder)])
    return model


class Place:
    """What a user has: a teacher, a student, the cache of the hub, and a file of outputs."""

    def __init__(self, home: Path) -> None:
        self.home, self.results = home, home / "results"
        self.teacher = save_folder(home / "teacher", "test_vit", 7)
        self.outputs = home / "outputs.txt"
        self.choose(range(0, 1000, 100))
        snapshot = home / "hub" / f"models--timm--{NAMED}" / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
        self.published = snapshot / "model.safetensors"
        self.publish(1)

    def publish(self, seed: int) -> None:
        torch.manual_seed(seed)
        save_file(shaken(timm.create_model(NAMED)).state_dict(), self.published)

    def choose(self, outputs: Any) -> None:
        self.outputs.write_text("".join(f"{output}\n" for output in outputs))

    def run(self, student: Model, teacher: Model | None = None, **settings: Any) -> Run:
        forget()  # as another command
        data = DataSpec("digits", fraction=0.04, limit=40, valid_labels=str(self.outputs))
        data_id = open_data(data, training=True).transfer_id()
        models = (teacher or self.teacher, student)
        return Run("transfer", models, data_id, replace(STILL, **settings), data)

    def transfer(self, student: Model, **settings: Any) -> dict[str, Any]:
        (row,) = transfer_run(self.run(student, **settings), self.results)
        return row


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    small = {"input_size": (3, 32, 32), "pool_size": None, "test_input_size": None}
    configure(monkeypatch, **small)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine_in_a_file", raising=False)
    return Place(tmp_path)


# --- what may change, each given the student before and after ------------------------------------

FUNCTION = """
import json
import timm, torch
from safetensors.torch import load_file
from torch import nn

class Scaled(nn.Module):
    num_classes = 10
    half = (0.5, 0.5, 0.5)
    data_config = {"input_size": (3, 32, 32), "crop_pct": 1.0, "mean": half, "std": half}

    def __init__(self):
        super().__init__()
        self.net = timm.create_model("test_resnet", num_classes=10)
        self.net.load_state_dict(load_file("mine/model.safetensors"))
        self.turn = json.load(open("turn.json"))

    def forward(self, images):
        return self.net(images).roll(self.turn, dims=1)
"""


def named(place: Place, change: Callable[[Place, pytest.MonkeyPatch], None]) -> Any:
    def changed(monkeypatch: pytest.MonkeyPatch) -> Model:
        change(place, monkeypatch)
        return resolve([NAMED])[0]

    return resolve([NAMED])[0], changed


def function(place: Place, change: Callable[[Path], object]) -> Any:
    folder = place.home / "mine"
    save_folder(folder, seed=1)
    (place.home / "turn.json").write_text("0")
    (place.home / "mine_in_a_file.py").write_text(FUNCTION)
    reference = ["py:mine_in_a_file:Scaled"]

    def changed(monkeypatch: pytest.MonkeyPatch) -> Model:
        change(folder)
        return resolve(reference)[0]

    return resolve(reference)[0], changed


def folder(place: Place, change: Callable[[Path], object]) -> Any:
    home = place.home / "mine"

    def changed(monkeypatch: pytest.MonkeyPatch) -> Model:
        change(home)
        return resolve([str(home)])[0]

    return save_folder(home, seed=1), changed


def configure(monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
    known = _registry._model_pretrained_cfgs
    monkeypatch.setitem(known, NAMED, replace(known[NAMED], **how))


def other_transform(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, crop_pct=0.4, test_crop_pct=0.4)


def other_timm(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "timm_version", lambda: "99.0")
    other_transform(place, monkeypatch)


def crop(home: Path) -> None:
    config = json.loads((home / "config.json").read_text())
    config["pretrained_cfg"]["crop_pct"] = 0.4
    (home / "config.json").write_text(json.dumps(config))


WEIGHTS = "weights of a named model"
CHANGES: dict[str, Callable[[Place], Any]] = {
    WEIGHTS: lambda p: named(p, lambda place, _: place.publish(2)),
    "transform of a named model": lambda p: named(p, other_transform),
    "timm, and a transform with it": lambda p: named(p, other_timm),
    "outputs, in another order": lambda p: named(
        p, lambda place, _: place.choose(range(900, -1, -100))
    ),
    "outputs, others": lambda p: named(p, lambda place, _: place.choose(range(5, 1000, 100))),
    "weights that a function reads": lambda p: function(p, lambda home: save_folder(home, seed=2)),
    "a number that a function reads": lambda p: function(
        p, lambda home: (home.parent / "turn.json").write_text("3")
    ),
    "weights in a folder": lambda p: folder(p, lambda home: save_folder(home, seed=2)),
    "preprocessing in a folder": lambda p: folder(p, crop),
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "keep"),
    [*((change, DISK) for change in CHANGES), (WEIGHTS, MEMORY), (WEIGHTS, ONLINE)],
)
def test_what_moves_nothing_changes_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, change: str, keep: str
) -> None:
    student, changed = CHANGES[change](place)
    first = place.transfer(student, keep_targets=keep)
    student = changed(monkeypatch)
    warm = place.transfer(student, keep_targets=keep)
    monkeypatch.setenv("KT_CACHE", str(place.home / "another cache"))
    cold = place.transfer(student, keep_targets=keep)
    for row in (first, warm, cold):
        assert (row["delta"], row["gain"], row["loss"]) == (0, 0, 0)
        # It is taught by itself as it is: with answers of another it would not agree.
        assert row["final_loss"] == pytest.approx(0, abs=1e-4)
    for name in ("student_acc", "after_acc", "pos_flips", "neg_flips", "curve_acc"):
        assert warm[name] == cold[name], name
    moved = [warm[name] != first[name] for name in ("student_acc", "pos_flips", "neg_flips")]
    assert any(moved), "the change is none that can be seen"


@pytest.mark.parametrize(
    ("change", "keep"), [*((change, DISK) for change in CHANGES), (WEIGHTS, MEMORY)]
)
def test_kept_answers_of_a_teacher_that_changed_are_not_used(
    place: Place, monkeypatch: pytest.MonkeyPatch, change: str, keep: str
) -> None:
    """As the teacher of a student that stays, it teaches what it says now."""
    teacher, changed = CHANGES[change](place)
    settings: dict[str, Any] = {"method": "kl", "keep_targets": keep}
    first = place.transfer(place.teacher, teacher=teacher, **settings)
    teacher = changed(monkeypatch)
    warm = place.transfer(place.teacher, teacher=teacher, **settings)
    monkeypatch.setenv("KT_CACHE", str(place.home / "another cache"))
    fresh = place.transfer(place.teacher, teacher=teacher, method="kl", keep_targets=ONLINE)
    assert warm["teacher_acc"] == fresh["teacher_acc"]
    np.testing.assert_allclose(warm["curve_loss"], fresh["curve_loss"], rtol=1e-3)
    if "preprocessing" not in change and "transform" not in change:  # of evaluation alone
        assert abs(first["final_loss"] - fresh["final_loss"]) > 1e-2 * fresh["final_loss"]


def test_a_guard_judges_by_the_student_as_it_is(place: Place, tmp_path: Path) -> None:
    def guarded(student: Model) -> dict[str, Any]:
        run = place.run(student, method="self+guard", force_guard=True)
        data = replace(run.data, guard=0.2)
        (row,) = transfer_run(replace(run, data=data), place.results)
        return row

    guarded(resolve([NAMED])[0])
    place.publish(2)
    row = guarded(resolve([NAMED])[0])
    assert (row["guard_alpha"], row["guard_score"], row["delta_unguarded"]) == (0, 0, 0)


# --- runs of a sweep -----------------------------------------------------------------------------


def measured(place: Place, *models: Model) -> Run:
    """A planned transfer between models that the sweep has measured."""
    run = place.run(models[-1], teacher=models[0])
    eval_id = open_data(run.data).eval.fingerprint
    evaluation = run.settings.evaluation  # type: ignore[union-attr]
    runs = [Run("predict", (model,), eval_id, evaluation, run.data) for model in models]
    for rows in chunk.finish(runs, place.results):
        assert rows[0]["status"] == store.OK
        store.write(place.results, "models", rows)
    return run


def refused(run: Run, place: Place) -> str:
    (rows,) = chunk.finish([run], place.results)
    assert rows[0]["status"] == store.FAILED and "--name" in rows[0]["error"]
    return str(rows[0]["error"])


def weights_of(model: Model) -> str:
    return load.load(model).weights


@pytest.mark.parametrize("cache", ["warm", "cold"])
def test_a_run_says_which_weights_moved_since_they_were_measured(
    place: Place, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    (model,) = resolve([NAMED])
    was = weights_of(model)
    there, back = measured(place, place.teacher, model), measured(place, model, place.teacher)
    assert chunk.finish([there], place.results)[0][0]["delta"] == 0
    place.publish(2)
    if cache == "cold":
        monkeypatch.setenv("KT_CACHE", str(place.home / "another cache"))
    for run in (there, back):
        assert f"{NAMED}: weights were {was}, are {weights_of(model)}." in refused(run, place)
    with pytest.raises(DataError, match=f"{NAMED}: weights were {was}, are"):
        about = PairsSpec(embedding="none")
        pairs_run(replace(there, kind="pairs", settings=about), place.results)


def test_a_run_says_what_of_the_preprocessing_changed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model,) = resolve([NAMED])
    run = measured(place, place.teacher, model)
    other_transform(place, monkeypatch)
    said = refused(run, place)
    assert f"{NAMED}: crop_pct 0.95 → 0.4." in said and "weights" not in said
    configure(monkeypatch, crop_pct=0.95, test_crop_pct=None)
    now = identity.timm_version()
    monkeypatch.setattr(identity, "timm_version", lambda: "99.0")
    said = refused(run, place)
    assert f"teacher: timm {now} → 99.0" in said and f"{NAMED}: timm {now} → 99.0" in said


def test_a_run_says_that_a_function_gives_another_model(place: Place) -> None:
    model, changed = CHANGES["a number that a function reads"](place)
    run = measured(place, place.teacher, model)
    changed(None)
    assert "Scaled: weights were " in refused(run, place)


def test_a_folder_that_changed_since_the_plan_is_refused(place: Place) -> None:
    model, changed = CHANGES["preprocessing in a folder"](place)
    run = measured(place, place.teacher, model)
    changed(None)
    (rows,) = chunk.finish([run], place.results)
    assert (
        "mine changed while it was in use: its weights or config.json are others"
        in rows[0]["error"]
    )


def test_what_changes_in_the_middle_of_a_run_ends_it(place: Place) -> None:
    """The teacher that is asked is the one that was measured."""
    (model,) = resolve([NAMED])
    run = place.run(place.teacher, teacher=model, method="kl", keep_targets=ONLINE)

    def publish(done: int, total: int, what: str) -> None:
        if done == total and what == NAMED:
            place.publish(2)

    with pytest.raises(DataError, match=f"{NAMED} changed while it was in use: weights were"):
        transfer_run(run, place.results, publish)


# --- going on ------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


@pytest.mark.parametrize("change", ["nothing", "student", "teacher", "transform", "timm"])
def test_a_training_goes_on_with_the_very_same_models_only(
    place: Place, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    of_run = checkpoint.of_run
    monkeypatch.setattr(checkpoint, "of_run", lambda *where: replace(of_run(*where), seconds=0.0))
    (model,) = resolve([NAMED])
    models = (model, place.teacher) if change == "teacher" else (place.teacher, model)
    run = replace(place.run(models[1], models[0], method="kl", lr=1e-3, epochs=3), out="student")
    epochs: list[int] = []

    def stop(done: int, total: int, what: str) -> None:
        if what == "transfer":
            epochs.append(done)
            if epochs == [1]:
                raise Stopped

    with pytest.raises(Stopped):
        transfer_run(run, place.results, stop)
    if change in ("student", "teacher"):
        place.publish(2)
    elif change == "transform":
        other_transform(place, monkeypatch)
    elif change == "timm":
        monkeypatch.setattr(identity, "timm_version", lambda: "99.0")
    (row,) = transfer_run(run, place.results, stop)
    assert epochs == [1, *((2, 3) if change == "nothing" else (1, 2, 3))]
    (whole,) = transfer_run(run, place.home / "whole")
    assert row["curve_loss"] == whole["curve_loss"]
    state = load_file(place.results / "student" / "model.safetensors")
    wanted = load_file(place.home / "whole" / "student" / "model.safetensors")
    assert all(torch.equal(state[name], value) for name, value in wanted.items())


# --- the cache of predictions --------------------------------------------------------------------


@pytest.fixture
def forward(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of models in each pass over the images."""
    passes: list[int] = []
    real = stream.evaluate_all
    monkeypatch.setattr(
        stream, "evaluate_all",
        lambda evaluators, *rest, **more: (
            passes.append(len(evaluators)), real(evaluators, *rest, **more),
        )[1],
    )  # fmt: skip
    return passes


def asked(place: Place, model: Model, **how: Any) -> Predictions:
    run = place.run(model)
    here = How(STILL.evaluation, torch.device("cpu"), **how)
    return predict.predict(model, open_data(run.data).eval, here)


def test_a_warm_cache_needs_no_weights(
    place: Place, forward: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place.home / "conv" / "model.safetensors"
    save_folder(file.parent)
    models = [*resolve([NAMED, f"test_resnet@{file}", "random:test_resnet"]), place.teacher]
    first = [asked(place, model) for model in models]
    assert forward == [1] * 4 and all(said.fresh for said in first)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("loaded again")

    monkeypatch.setattr(load, "load", refuse)
    again = [asked(place, model) for model in models]
    assert forward == [1] * 4 and not any(said.fresh for said in again)


def test_a_function_is_called_but_evaluated_once(place: Place, forward: list[int]) -> None:
    model, changed = CHANGES["a number that a function reads"](place)
    first, again = asked(place, model), asked(place, model)
    assert forward == [1] and first.fresh and not again.fresh
    model = changed(None)
    assert asked(place, model).fresh and forward == [1, 1]
    with pytest.raises(DataError, match=r"no predictions of Scaled as it is: weights were"):
        (place.home / "turn.json").write_text("1")
        asked(place, model, mode=predict.CACHED_ONLY)
    assert forward == [1, 1]


def test_files_that_were_only_touched_are_read_once(
    place: Place, forward: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (model,) = resolve([NAMED])
    first = asked(place, model, logits=True)
    place.publish(1)
    again = asked(place, model, logits=True)
    assert not again.fresh and forward == [1]
    assert again.traits == first.traits and again.about["source"] != first.about["source"]
    assert np.array_equal(again.pred, first.pred)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("loaded again")

    monkeypatch.setattr(load, "load", refuse)
    assert not asked(place, model, logits=True).fresh


def test_predictions_outlive_published_weights_where_the_cache_is_enough(place: Place) -> None:
    (model,) = resolve([NAMED])
    first = asked(place, model)
    place.publish(2)
    with pytest.raises(DataError, match="as it is: weights were"):
        asked(place, model, mode=predict.CACHED_ONLY)
    place.published.unlink()
    assert np.array_equal(asked(place, model, mode=predict.CACHED_ONLY).pred, first.pred)


def test_statistics_of_pairs_are_of_models_as_they_are(place: Place) -> None:
    (model,) = resolve([NAMED])
    images = open_data(place.run(model).data).eval
    how = How(STILL.evaluation, torch.device("cpu"))
    before = outputs_of([place.teacher, model], images, how)
    place.publish(2)
    after = outputs_of([place.teacher, model], images, how)
    assert np.array_equal(before.preds[0], after.preds[0])
    assert not np.array_equal(before.preds[1], after.preds[1])
