from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.data import ImageNetInfo
from torch import Tensor, nn

from kt_cli.errors import ClassMismatch
from kt_cli.spec import Model
from kt_cli.zoo import load
from kt_cli.zoo.classes import ABSENT, Outputs, columns, require_classes, require_common
from kt_cli.zoo.heads import classifier_rows
from kt_cli.zoo.load import Selected, whole
from kt_cli.zoo.names import resolve

SaveModel = Callable[..., Path]
IN1K = tuple(ImageNetInfo("imagenet-1k").label_names())
GOOGLE = tuple(ImageNetInfo("imagenet-21k-goog").label_names())
MINIATURE = tuple(ImageNetInfo("imagenet-12k").label_names())
SOME = IN1K[::5]  # 200 of 1000, as ImageNet-A and -R have


def one(reference: str | Path) -> Model:
    (model,) = resolve([str(reference)])
    return model


@torch.inference_mode()
def logits(module: nn.Module) -> Tensor:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    result = module.eval()(images)
    assert isinstance(result, Tensor)
    return result


def saved(folder: Path, count: int, names: Sequence[str] | None = None) -> Model:
    torch.manual_seed(0)
    module, config = load.build("test_vit", count, 32)
    nn.init.normal_(module.get_parameter("head.weight"))
    load.save(
        module, folder, data_config=config, num_classes=count, label_names=names, card="", extra={}
    )
    return one(folder)


# --- which outputs are the classes --------------------------------------------------------------


def test_by_the_names_that_a_model_carries() -> None:
    outputs = Outputs(4, ("cat", "dog", "ant", "bee"))
    assert columns(outputs, ["cat", "dog", "ant", "bee"]) is None
    assert columns(outputs, ["dog", "cat", "ant", "bee"]) == (1, 0, 2, 3)
    assert columns(outputs, ["bee", "cat"]) == (3, 0)
    assert columns(outputs, ["cat", "dog"]) == (0, 1)  # fewer, though in place
    assert columns(outputs, ["bee", "cat"], select=(1, 2)) == (3, 0)  # names know better


def test_as_many_outputs_are_taken_as_they_are() -> None:
    for outputs in (
        Outputs(2), Outputs(2, ("x", "y")), Outputs(2, ("a", "a")), Outputs(2, ("a", "b", "c"))
    ):  # fmt: skip
        assert columns(outputs, ["a", "b"]) is None
        assert columns(outputs, ["a", "b"], select=(1, 0)) is None
    assert columns(Outputs(1000), IN1K[::-1]) is None


def test_by_valid_labels() -> None:
    assert columns(Outputs(10), ["a", "b"], select=(9, 3)) == (9, 3)
    assert columns(Outputs(10, tuple("0123456789")), ["a", "b"], select=(9, 3)) == (9, 3)
    assert columns(Outputs(1000), SOME, select=tuple(range(200))) == tuple(range(200))
    with pytest.raises(LookupError):
        columns(Outputs(9), ["a", "b"], select=(9, 3))


def test_by_synsets() -> None:
    assert columns(Outputs(1000), SOME) == tuple(range(0, 1000, 5))
    assert columns(Outputs(1000), SOME[::-1]) == tuple(range(0, 1000, 5))[::-1]
    found = columns(Outputs(21843), SOME[:7])
    assert found is not None and [GOOGLE[i] for i in found] == list(SOME[:7])


@pytest.mark.parametrize(("outputs", "synsets"), [(21843, GOOGLE), (11821, MINIATURE)])
def test_a_larger_imagenet_lacks_a_few_classes(outputs: int, synsets: tuple[str, ...]) -> None:
    found = columns(Outputs(outputs), IN1K)
    assert found is not None and len(found) == 1000
    lacking = set(IN1K) - set(synsets)
    assert 0 < len(lacking) < 10
    for name, place in zip(IN1K, found, strict=True):
        assert place == ABSENT if name in lacking else synsets[place] == name


@pytest.mark.parametrize(
    ("outputs", "classes"),
    [
        (Outputs(10), ["a", "b"]),
        (Outputs(10, tuple("abcdefghij")), ["a", "x"]),
        (Outputs(1000), ["cat", *SOME[:9]]),  # a tenth is no synset
        (Outputs(1000), [*SOME, *GOOGLE[:40]]),
        (Outputs(999), SOME),
        (Outputs(200), IN1K),
    ],
)
def test_classes_that_are_not_among_the_outputs(outputs: Outputs, classes: Sequence[str]) -> None:
    with pytest.raises(LookupError):
        columns(outputs, classes)


# --- told before anything is loaded -------------------------------------------------------------


def test_models_of_timm_are_told_by_their_number_of_classes(tmp_path: Path) -> None:
    models = [one("resnet50"), one("vit_base_patch16_224.augreg_in21k")]
    for classes in (IN1K, SOME):
        require_classes(models, classes)
    require_common(models)
    with pytest.raises(ClassMismatch, match=r"resnet50\.a1_in1k has 1000 classes, birds has 3"):
        require_classes(models, ["a", "b", "c"], "birds")
    with pytest.raises(ClassMismatch, match=r"augreg_in21k has 21843 .* 1000") as caught:
        require_classes(models, [f"class {i}" for i in range(1000)])
    assert "--valid-labels" in caught.value.tip and "kt pretrain --pretrained" in caught.value.tip
    require_classes(models, ["a", "b", "c"], select=(3, 2, 999))
    with pytest.raises(ClassMismatch, match="resnet50"):
        require_classes(models, ["a", "b", "c"], select=(3, 2, 1000))
    require_common([saved(tmp_path / "some", 200, SOME), *models])
    with pytest.raises(ClassMismatch, match="ten has 10 classes, resnet50"):
        require_common([saved(tmp_path / "ten", 10, list("abcdefghij")), *models])


# --- selected outputs ---------------------------------------------------------------------------


def test_loaded_in_the_order_of_the_data(tmp_path: Path) -> None:
    model = saved(tmp_path / "m", 6, list("abcdef"))
    every = load.load(model)
    assert not isinstance(every.module, Selected) and every.num_classes == 6
    loaded = load.load(model, ["e", "a", "c"])
    assert loaded.num_classes == 3 and loaded.outputs == Outputs(6, tuple("abcdef"))
    torch.testing.assert_close(logits(loaded.module), logits(every.module)[:, [4, 0, 2]])
    assert loaded.weights == every.weights and not loaded.module.training
    assert loaded.config("test") == every.config("test")
    rows, all_rows = classifier_rows(loaded.module), classifier_rows(every.module)
    assert rows is not None and all_rows is not None
    np.testing.assert_array_equal(rows, all_rows[[4, 0, 2]])
    permuted = load.load(model, list("fedcba"))
    torch.testing.assert_close(logits(permuted.module), logits(every.module).flip(1))
    assert load.load(model, list("abcdef")).module(torch.zeros(1, 3, 32, 32)).shape == (1, 6)


def test_some_classes_of_imagenet(tmp_path: Path) -> None:
    model = saved(tmp_path / "m", 1000)
    found = logits(load.load(model, SOME[::-1]).module)
    wanted = logits(load.load(model).module)
    place = [IN1K.index(name) for name in SOME[::-1]]
    torch.testing.assert_close(found, wanted[:, place])
    chosen = logits(load.load(model, ["x", "y"], select=(7, 3)).module)
    torch.testing.assert_close(chosen, wanted[:, [7, 3]])


def test_imagenet_with_a_larger_model(tmp_path: Path) -> None:
    model = saved(tmp_path / "m", 21843)
    loaded = load.load(model, IN1K)
    found, every = logits(loaded.module), logits(load.load(model).module)
    (absent,) = (i for i, name in enumerate(IN1K) if name not in GOOGLE)
    there = [i for i in range(1000) if i != absent]
    place = {name: i for i, name in enumerate(GOOGLE)}
    torch.testing.assert_close(found[:, there], every[:, [place[IN1K[i]] for i in there]])
    assert torch.equal(found[:, absent], every.min(dim=1).values)
    assert (found.argmax(1) != absent).all() and found.isfinite().all()
    assert classifier_rows(loaded.module) is None  # one class has no row


def test_an_absent_class_gets_the_least_logit() -> None:
    module = Selected(nn.Identity(), (2, ABSENT, 0))
    scores = torch.tensor([[1.0, -3.0, 2.0, 0.0], [5.0, 6.0, 7.0, 4.0]], requires_grad=True)
    assert module(scores).tolist() == [[2.0, -3.0, 1.0], [7.0, 4.0, 5.0]]
    assert module.num_classes == 3 and module.lacking and "columns" not in module.state_dict()
    module(scores)[:, [0, 2]].sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]]


def test_outputs_that_do_not_fit(tmp_path: Path) -> None:
    model = saved(tmp_path / "m", 6, list("abcdef"))
    for classes, select in ((["a", "x"], None), (["a", "x"], (0, 6))):
        with pytest.raises(ClassMismatch, match="m has 6 classes, the data has 2") as caught:
            load.load(model, classes, select=select)
        assert "--valid-labels" in caught.value.tip


# --- a student that knows more than the data has ------------------------------------------------


@pytest.mark.parametrize("names", [tuple("abcdef"), None])
def test_a_larger_student_is_trained_and_saved_whole(
    names: tuple[str, ...] | None, tmp_path: Path
) -> None:
    model = saved(tmp_path / "before", 6, names)
    classes, select = ["e", "a", "c"], None if names else (4, 0, 2)
    loaded = load.load(model, classes, select=select)
    before = logits(loaded.module)
    optimiser = torch.optim.SGD(loaded.module.parameters(), lr=0.1)
    loss = nn.functional.cross_entropy(
        loaded.module(torch.rand(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0])
    )
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    after = logits(loaded.module)
    assert not torch.allclose(before, after)
    load.save(
        whole(loaded.module), tmp_path / "after", data_config=loaded.config("train"),
        num_classes=loaded.outputs.count, label_names=loaded.outputs.names, card="", extra={},
    )  # fmt: skip

    by_timm = timm.create_model(f"local-dir:{tmp_path / 'after'}", pretrained=True)
    assert logits(by_timm).shape == (4, 6)
    assert torch.equal(logits(by_timm)[:, [4, 0, 2]], after)
    again = load.load(one(tmp_path / "after"), classes, select=select)
    assert again.outputs == Outputs(6, names) and again.weights != loaded_weights(model)
    assert torch.equal(logits(again.module), after)


def loaded_weights(model: Model) -> str:
    return load.load(model).weights
