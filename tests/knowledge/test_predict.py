"""The cache of predictions: its modes, and what befalls it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from timm.models import VisionTransformer
from torch import nn

from kt_cli.data.images import ImageSet
from kt_cli.data.sources import open_data
from kt_cli.errors import DataError, DeviceLost, KtError, KtWarning, WriteError
from kt_cli.knowledge import evaluate as evaluation
from kt_cli.knowledge import stream
from kt_cli.knowledge.predict import (
    CACHED_ONLY,
    REFRESH,
    How,
    outputs_of,
    predict,
    predict_all,
)
from kt_cli.knowledge.predictions import Predictions, entry, logits_of
from kt_cli.rows import arrays
from kt_cli.settings import DataSpec, EvalSpec
from kt_cli.spec import Model
from kt_cli.zoo import load as zoo
from tests.knowledge.conftest import MakeModel

CPU = torch.device("cpu")
HOW = How(EvalSpec(), CPU)
Placed = list[weakref.ref[nn.Module]]


@pytest.fixture
def images() -> ImageSet:
    return open_data(DataSpec("digits", limit=60)).eval


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Numbers of models in each pass over the images."""
    passes: list[int] = []
    real = stream.evaluate_all

    def counted(evaluators, *rest, **more):  # type: ignore[no-untyped-def]
        passes.append(len(evaluators))
        return real(evaluators, *rest, **more)

    monkeypatch.setattr(stream, "evaluate_all", counted)
    return passes  # type: ignore[return-value]


def same(a: Predictions, b: Predictions) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("pred", "confidence", "label_prob", "top5")
    )


def test_one_pass_for_all_and_none_for_what_is_known(
    make_model: MakeModel, images: ImageSet, evaluations: list[int]
) -> None:
    a, b, c = make_model("a"), make_model("b", "test_vit"), make_model("c", "test_convnext")
    first = predict_all([a, b], images, HOW)
    assert evaluations == [2]
    again = predict_all([a, b, c], images, HOW)
    assert evaluations == [2, 1]
    assert all(same(x, y) for x, y in zip(first, again, strict=False))  # type: ignore[arg-type]


def test_as_many_at_once_as_memory_holds(
    make_model: MakeModel,
    images: ImageSet,
    evaluations: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = [make_model(name) for name in "abc"]
    size = sum(
        t.numel() * t.element_size() for t in zoo.load(models[0]).module.state_dict().values()
    )
    monkeypatch.setattr(stream, "free_memory", lambda device: 2.1 * size / stream.SHARE_FOR_WEIGHTS)
    predict_all(models, images, HOW)
    assert evaluations == [2, 1]


def test_modes(make_model: MakeModel, images: ImageSet, evaluations: list[int]) -> None:
    model = make_model("a")
    with pytest.raises(DataError, match="the cache has no predictions of a on digits"):
        predict(model, images, replace(HOW, mode=CACHED_ONLY))
    known = predict(model, images, HOW)
    assert same(known, predict(model, images, replace(HOW, mode=CACHED_ONLY)))
    assert evaluations == [1]
    assert same(known, predict(model, images, replace(HOW, mode=REFRESH)))
    assert evaluations == [1, 1]


def test_logits_are_kept_on_request(
    make_model: MakeModel, images: ImageSet, evaluations: list[int]
) -> None:
    model = make_model("a")
    path = entry(model, images, HOW.spec, "cpu")
    predict(model, images, HOW)
    assert "logits" not in arrays.info(path).columns
    found = predict(model, images, replace(HOW, logits=True))
    logits = np.concatenate(list(logits_of(found, 7)))
    assert logits.shape == (60, 10) and logits.dtype == np.float16
    np.testing.assert_array_equal(logits.argmax(axis=1), found.pred)
    predict(model, images, HOW)
    assert evaluations == [1, 1]


def test_top5_are_kept_though_who_asks_first_does_without_them(
    make_model: MakeModel, images: ImageSet, evaluations: list[int]
) -> None:
    model, without = make_model("test_vit"), replace(HOW, top5=False)
    first, again = predict(model, images, without), predict(model, images, without)
    whole = predict(model, images, HOW)
    assert again.top5 is None and again.top5_accuracy is None and evaluations == [1]
    assert whole.top5 is not None and np.array_equal(whole.top5[:, 0], whole.pred)
    assert same(replace(first, top5=None), again) and same(replace(whole, top5=None), again)


def test_other_precision_is_another_entry(make_model: MakeModel, images: ImageSet) -> None:
    model = make_model("a", "test_vit")
    half = How(EvalSpec("test", "bfloat16"), CPU)
    full, low = predict(model, images, HOW), predict(model, images, half)
    assert full.path != low.path and not same(full, low)
    np.testing.assert_allclose(full.confidence, low.confidence, atol=0.05)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "short"])
def test_a_damaged_entry_is_computed_again(
    make_model: MakeModel, images: ImageSet, evaluations: list[int], damage: str
) -> None:
    model = make_model("a")
    known = predict(model, images, HOW)
    assert known.path is not None
    whole = known.path.read_bytes()
    if damage == "truncated":
        known.path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        group = pq.ParquetFile(known.path).metadata.row_group(0)
        chunk = next(
            c for c in map(group.column, range(group.num_columns))
            if c.path_in_schema == "confidence"
        )  # fmt: skip
        at = chunk.data_page_offset + chunk.total_compressed_size // 2
        known.path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    elif damage == "empty":
        known.path.write_bytes(b"")
    else:
        columns, about = arrays.read(known.path)
        arrays.write(known.path, {k: v[:30] for k, v in columns.items()}, about)
    assert same(known, predict(model, images, HOW))
    assert evaluations == [1, 1]
    assert arrays.info(known.path).rows == 60


def test_a_model_that_cannot_be_read_stops_no_other(
    make_model: MakeModel, images: ImageSet, tmp_path: Path
) -> None:
    good, bad = make_model("good"), make_model("bad")
    (tmp_path / "bad" / "model.safetensors").write_bytes(b"nonsense")
    broken, fine = predict_all([bad, good], images, HOW)
    assert isinstance(broken, DataError) and isinstance(fine, Predictions)


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> Placed:
    """Modules that came to the device, which has memory for one."""
    there: Placed = []

    def bounded(placed: nn.Module, *_: Any) -> nn.Module:
        gc.collect()
        if any(other() is not None for other in there):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        there.append(weakref.ref(placed))
        return placed

    monkeypatch.setattr(evaluation, "place", bounded)
    return there


def test_what_does_not_fit_beside_others_waits_until_they_are_done(
    make_model: MakeModel,
    images: ImageSet,
    evaluations: list[int],
    placed: list[weakref.ref[nn.Module]],
) -> None:
    found = predict_all([make_model(name) for name in "abc"], images, HOW)
    assert [type(said) for said in found] == [Predictions] * 3
    assert evaluations == [1, 1, 1] and len(placed) == 3


def test_what_does_not_fit_alone_fails_alone(
    make_model: MakeModel, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bounded(module: nn.Module, *_: Any) -> nn.Module:
        if isinstance(module, VisionTransformer):
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
        return module

    monkeypatch.setattr(evaluation, "place", bounded)
    models = [make_model("a"), make_model("large", "test_vit"), make_model("c")]
    a, large, c = predict_all(models, images, HOW)
    assert isinstance(a, Predictions) and isinstance(c, Predictions)
    assert isinstance(large, KtError)
    assert "large" in large.message and "does not fit" in large.message


FAILING = """
import torch
from torch import nn

class Failing(nn.Module):
    data_config = {"input_size": (3, 8, 8)}

    def __init__(self):
        super().__init__()
        self.num_classes = 10

    def forward(self, images):
        activations = images * 2
        if len(images) > 2:
            raise ValueError("no luck")
        return activations.flatten(1)[:, :10]
"""


def test_an_error_keeps_no_model_alive(
    make_model: MakeModel, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of a traceback would hold the model that failed and, by their callers, all others."""
    (tmp_path / "failing.py").write_text(FAILING)
    monkeypatch.syspath_prepend(str(tmp_path))
    made: Placed = []

    def place(module: nn.Module, *_: Any) -> nn.Module:
        made.append(weakref.ref(module))
        return module

    monkeypatch.setattr(evaluation, "place", place)
    failed, _ = predict_all([_resolve("py:failing:Failing"), make_model("a")], images, HOW)
    gc.collect()
    assert len(made) == 2 and [module() for module in made] == [None, None]
    assert isinstance(failed, ValueError)
    assert "in forward" in "".join(traceback.format_exception(failed))


def raises(error: Exception) -> Callable[..., None]:
    def act(*_: object) -> None:
        raise error

    return act


@pytest.mark.parametrize("lost", [True, False])
def test_a_lost_gpu_is_no_models_fault(
    make_model: MakeModel, images: ImageSet, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """Whoever asks the device next gets the error; only the device itself says that it is lost."""
    models = [make_model("a"), make_model("b", "test_vit"), make_model("c")]
    assertion = RuntimeError("CUDA error: device-side assert triggered")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", raises(assertion) if lost else lambda *_: None)
    monkeypatch.setattr(VisionTransformer, "forward", raises(assertion))
    if not lost:
        a, b, c = predict_all(models, images, HOW)
        assert b is assertion and isinstance(a, Predictions) and isinstance(c, Predictions)
        return
    with pytest.raises(DeviceLost, match="device-side assert") as caught:
        predict_all(models, images, HOW)
    assert "one by one" in caught.value.tip
    assert not any(entry(model, images, HOW.spec, "cpu").exists() for model in models)


def test_an_image_that_cannot_be_read_leaves_nothing(
    make_model: MakeModel, images: ImageSet
) -> None:
    def read(i: int):  # type: ignore[no-untyped-def]
        if i == 50:
            raise DataError("cannot decode broken.png")
        return images.read(i)

    model, broken = make_model("a"), replace(images, read=read)
    with pytest.raises(DataError, match=r"broken\.png"):
        predict_all([model], broken, replace(HOW, batch_size=8))
    assert list(entry(model, images, HOW.spec, "cpu").parent.iterdir()) == []


def test_two_processes_fill_one_cache(make_model: MakeModel, images: ImageSet) -> None:
    model = make_model("a")
    code = (
        "import sys, torch\n"
        "from kt_cli.knowledge.predict import How, predict\n"
        "from kt_cli.data.sources import open_data\n"
        "from kt_cli.settings import DataSpec, EvalSpec\n"
        "from kt_cli.zoo.names import single\n"
        "images = open_data(DataSpec('digits', limit=60)).eval\n"
        "torch.set_num_threads(1)\n"
        "print(predict(single(sys.argv[1]), images, How(EvalSpec(), torch.device('cpu'))).accuracy)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, model.ref], stdout=subprocess.PIPE, text=True,
            env=dict(os.environ),
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert said[0] == said[1]
    kept = list(entry(model, images, HOW.spec, "cpu").parent.iterdir())
    assert len(kept) == 1
    assert float(said[0]) == pytest.approx(predict(model, images, HOW).accuracy)


def test_a_full_disk(
    make_model: MakeModel,
    small_disk: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, images = make_model("a"), open_data(DataSpec("digits")).eval
    small = small_disk("16k")
    monkeypatch.setenv("KT_CACHE", str(small))
    with pytest.raises(WriteError, match="cannot write"):  # logits are for the cache alone
        predict_all([model], images, replace(HOW, logits=True))
    with pytest.warns(KtWarning, match="No space left"):
        (found,) = predict_all([model], images, HOW)
    monkeypatch.delenv("KT_CACHE")
    assert isinstance(found, Predictions) and found.path is None
    wanted = predict(model, images, HOW)
    for name in ("pred", "confidence", "label_prob", "top5"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name))
    assert [p for p in small.rglob("*") if p.is_file()] == []


def test_outputs_of_many_models(make_model: MakeModel, images: ImageSet) -> None:
    models = [make_model(name) for name in "abc"]
    outputs = outputs_of(models, images, HOW)
    for row, model in enumerate(models):
        said = predict(model, images, HOW)
        np.testing.assert_array_equal(outputs.preds[row], said.pred)
        np.testing.assert_array_equal(outputs.right[row], said.pred == images.labels)
        np.testing.assert_array_equal(outputs.confidence[row], said.confidence)


def test_classes_in_another_order(make_model: MakeModel, images: ImageSet, tmp_path: Path) -> None:
    """A model whose label names are those of the data in another order is read in theirs."""
    straight = make_model("a")
    turned = tmp_path / "turned"
    _save_turned(straight, turned)
    model = _resolve(turned)
    a, b = predict_all([straight, model], images, HOW)
    assert isinstance(a, Predictions) and isinstance(b, Predictions)
    np.testing.assert_array_equal(a.pred, b.pred)
    np.testing.assert_allclose(a.label_prob, b.label_prob, atol=1e-6)


def _save_turned(model: Model, folder: Path) -> None:
    from kt_cli.zoo import load

    loaded = load.load(model)
    order = torch.arange(9, -1, -1)
    head = loaded.module.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        head.weight.copy_(head.weight[order])
        head.bias.copy_(head.bias[order])
    load.save(
        loaded.module, folder, data_config=loaded.config("train"), num_classes=10,
        label_names=[str(i) for i in order.tolist()], card="", extra={},
    )  # fmt: skip


def _resolve(reference: object) -> Model:
    from kt_cli.zoo.names import single

    return single(str(reference))
