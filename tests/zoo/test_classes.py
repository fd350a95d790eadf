from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.data import ImageNetInfo
from torch import Tensor, nn

from kt_cli.errors import ClassMismatch, UsageError
from kt_cli.spec import Model
from kt_cli.zoo import load
from kt_cli.zoo.classes import (
    ABSENT,
    BY_POSITION,
    Outputs,
    Select,
    match,
    require_classes,
    require_common,
    warn_of_classes,
)
from kt_cli.zoo.features import classifier_rows
from kt_cli.zoo.load import Selected, unwrapped
from kt_cli.zoo.names import resolve

SaveModel = Callable[..., Path]
IN1K = tuple(ImageNetInfo("imagenet-1k").label_names())
GOOGLE = tuple(ImageNetInfo("imagenet-21k-goog").label_names())
MINIATURE = tuple(ImageNetInfo("imagenet-12k").label_names())
CIFAR = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
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


def columns(
    outputs: Outputs, classes: Sequence[str], select: Select = None
) -> tuple[str, tuple[int, ...] | None]:
    found = match(outputs, classes, select)
    return found.how, found.columns


def test_by_the_names_that_a_model_carries() -> None:
    outputs = Outputs(4, ("cat", "dog", "ant", "bee"))
    assert columns(outputs, ["cat", "dog", "ant", "bee"]) == ("names", None)
    assert columns(outputs, ["dog", "cat", "ant", "bee"]) == ("names", (1, 0, 2, 3))
    assert columns(outputs, ["bee", "cat"]) == ("names", (3, 0))
    assert columns(outputs, ["cat", "dog"]) == ("names", (0, 1))  # fewer, though in place
    for select in ((1, 2), BY_POSITION):  # what a user says is about models that do not tell
        assert columns(outputs, ["bee", "cat"], select) == ("names", (3, 0))
        assert columns(outputs, ["bee", "cat", "dog", "ant"], select)[1] == (3, 0, 1, 2)


def test_names_may_be_spelled_differently() -> None:
    outputs = Outputs(3, ("Golden Retriever", "tabby-cat", "ant"))
    assert columns(outputs, ["ant", "golden_retriever", "Tabby  cat"]) == ("names", (2, 0, 1))
    for names, classes in (
        (("a b", "a_b", "c"), ["c", "A-b"]),  # which of both?
        (("a b", "c", "d"), ["a_b", "a b", "c"]),
        (("a b", "c", "d"), ["ab", "c", "d"]),
        (("car", "c", "d"), ["cars", "c", "d"]),
    ):
        with pytest.raises(LookupError):
            columns(Outputs(3, names), classes)
    both = Outputs(3, ("a b", "a_b", "c"))
    assert columns(both, ["c", "a_b", "a b"]) == ("names", (2, 1, 0))  # as they are spelled


def test_names_that_do_not_match_are_never_taken_by_position() -> None:
    cifar = Outputs(10, CIFAR)
    renamed = ["car" if name == "automobile" else name for name in CIFAR]
    for outputs, classes in (
        (cifar, renamed),
        (cifar, sorted(renamed)),
        (cifar, IN1K[:10]),
        (Outputs(2, ("a", "a")), ["a", "b"]),
        (Outputs(1000, IN1K), [f"class {i}" for i in range(1000)]),
        (Outputs(1000, IN1K), [*IN1K[:-1], "n00000001"]),
    ):
        with pytest.raises(LookupError):
            columns(outputs, classes)
    assert columns(cifar, sorted(renamed), BY_POSITION) == ("by-position", None)
    order = (*range(1, 10), 0)
    assert columns(cifar, sorted(renamed), order) == ("valid-labels", order)
    with pytest.raises(LookupError):
        columns(cifar, renamed[:9], BY_POSITION)  # of how many?


def test_as_many_outputs_without_names_are_taken_as_they_are() -> None:
    assert columns(Outputs(2), ["a", "b"]) == ("position", None)
    assert columns(Outputs(2), ["a", "b"], BY_POSITION) == ("by-position", None)
    assert columns(Outputs(1000), IN1K[::-1]) == ("position", None)
    # A file that cannot be about this model is about others.
    assert columns(Outputs(2), ["a", "b"], (7, 1)) == ("position", None)


def test_names_in_timms_configurations() -> None:
    assert Outputs.of(2, ["a", 1]) == Outputs(2, ("a", "1"))
    assert Outputs.of(3, {"2": "c", "0": "a"}) == Outputs(3, ("a", "", "c"))  # with a gap
    assert Outputs.of(2, {0: "a", 1: "b"}) == Outputs(2, ("a", "b"))
    for names in (None, [], {}, ["a"], ["a", "b", "c"], "ab"):  # of another number: of another head
        assert Outputs.of(2, names) == Outputs(2)
    assert columns(Outputs.of(3, {"2": "c", "0": "a"}), ["c", "a"]) == ("names", (2, 0))


def test_by_valid_labels() -> None:
    assert columns(Outputs(10), ["a", "b"], (9, 3)) == ("valid-labels", (9, 3))
    assert columns(Outputs(10, tuple("0123456789")), ["a", "b"], (9, 3))[1] == (9, 3)
    assert columns(Outputs(1000), SOME, tuple(range(200)))[1] == tuple(range(200))
    assert columns(Outputs(2), ["a", "b"], (1, 0)) == ("valid-labels", (1, 0))  # a permutation
    assert columns(Outputs(2), ["a", "b"], (0, 1)) == ("valid-labels", None)
    with pytest.raises(LookupError):
        columns(Outputs(9), ["a", "b"], (9, 3))


def test_by_synsets() -> None:
    assert columns(Outputs(1000), SOME) == ("synsets", tuple(range(0, 1000, 5)))
    assert columns(Outputs(1000), SOME, BY_POSITION)[1] == tuple(range(0, 1000, 5))
    assert columns(Outputs(1000), SOME[::-1])[1] == tuple(range(0, 1000, 5))[::-1]
    _, found = columns(Outputs(21843), SOME[:7])
    assert found is not None and [GOOGLE[i] for i in found] == list(SOME[:7])


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize(("count", "synsets"), [(21843, GOOGLE), (11821, MINIATURE)])
def test_a_larger_imagenet_lacks_a_few_classes(
    count: int, synsets: tuple[str, ...], carried: bool
) -> None:
    how, found = columns(Outputs(count, synsets if carried else None), IN1K)
    assert how == "synsets" and found is not None and len(found) == 1000
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
        (Outputs(1000), ["tench", "crane"]),  # two of ImageNet's are cranes
    ],
)
def test_classes_that_are_not_among_the_outputs(outputs: Outputs, classes: Sequence[str]) -> None:
    with pytest.raises(LookupError):
        columns(outputs, classes)


def test_what_outputs_are_called_once_they_are_matched() -> None:
    """A student is saved with the data's names, so that no one has to say it again."""
    abc = ("a", "b", "c")
    for outputs, select, wanted in (
        (Outputs(3), None, abc),
        (Outputs(3, ("x", "y", "z")), BY_POSITION, abc),
        (Outputs(3), (2, 0, 1), ("b", "c", "a")),
        (Outputs(3, ("x", "y", "z")), (2, 0, 1), ("b", "c", "a")),
        (Outputs(4, ("w", "x", "y", "z")), (3, 0, 1), ("b", "c", "y", "a")),
        (Outputs(4), (3, 0, 1), None),  # the fourth has no name
        (Outputs(3, ("c", "B", "a")), None, ("c", "B", "a")),
    ):
        found = match(outputs, abc, select)
        named = found.named(outputs, abc)
        assert named == Outputs(outputs.count, wanted)
        if wanted:
            again = match(named, abc)
            assert again == replace(found, how="names")


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


def refused(model: Model, classes: Sequence[str]) -> tuple[str, str]:
    with pytest.raises(ClassMismatch) as caught:
        require_classes([model], classes, "birds")
    assert caught.value.exit_code == 2
    return caught.value.message, caught.value.tip


def test_unmatched_names_are_listed_on_both_sides(tmp_path: Path) -> None:
    cifar = saved(tmp_path / "cifar", 10, CIFAR)
    message, tip = refused(cifar, ["car" if c == "automobile" else c for c in CIFAR])
    assert message == (
        "cifar has 10 classes, birds has 10; "
        "by name it lacks car, and the data lacks its automobile"
    )
    assert tip.startswith("Perhaps its automobile is car. --valid-labels FILE says")
    assert "--by-position takes them in order" in tip and "kt pretrain --pretrained" in tip
    message, tip = refused(cifar, [*CIFAR[:8], "lorry", "ships"])
    assert "lacks lorry, ships, and the data lacks its ship, truck" in message
    assert tip.startswith("Perhaps its ship is ships. ")
    _, tip = refused(saved(tmp_path / "three", 3, ["01", "x", "y"]), ["0", "1", "z"])
    assert tip.startswith("--valid-labels")  # 01 may be either
    message, tip = refused(cifar, IN1K[10:30])
    assert f"lacks {', '.join(IN1K[10:20])} and 10 more, and the data lacks its air" in message
    assert tip.startswith("--valid-labels") and "--by-position" not in tip
    message, _ = refused(saved(tmp_path / "twice", 3, ("crane", "crane", "owl")), ["crane", "owl"])
    assert message == "twice has 3 classes, birds has 2; by name it lacks crane"


def overruled(models: Sequence[Model], classes: Sequence[str], select: Select) -> list[str]:
    """The models that are said to decide by their names, against `select`."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn_of_classes(models, classes, select)
    said = [str(each.message).partition(" carries the names of these classes") for each in told]
    return [name for name, found, _ in said if found]


def test_names_decide_in_a_mixed_set(tmp_path: Path) -> None:
    """A file about one model leaves another, whose names tell, as it is, and says so."""
    tuned = saved(tmp_path / "tuned", 3, ("c", "a", "b"))
    bare, large = saved(tmp_path / "bare", 3), saved(tmp_path / "large", 1000)
    abc = ("a", "b", "c")
    for select, wanted in (
        ((500, 3, 17), {"tuned": (1, 2, 0), "bare": None, "large": (500, 3, 17)}),
        ((2, 1, 0), {"tuned": (1, 2, 0), "bare": (2, 1, 0), "large": (2, 1, 0)}),
    ):
        require_classes([tuned, bare, large], abc, select=select)
        for model in (tuned, bare, large):
            module = load.load(model, abc, select=select).module
            picked = tuple(module.columns.tolist()) if isinstance(module, Selected) else None
            assert picked == wanted[model.name]
    assert overruled([tuned, bare, large], abc, (2, 1, 0)) == ["tuned"]
    assert not overruled([tuned, bare, large], abc, (500, 3, 17))
    assert not overruled([tuned], abc, (1, 2, 0)) and not overruled([tuned, bare], abc, None)


def test_what_is_about_no_model_is_refused(tmp_path: Path) -> None:
    tuned, bare = saved(tmp_path / "tuned", 3, ("c", "a", "b")), saved(tmp_path / "bare", 3)
    abc = ("a", "b", "c")
    for models, select, message in (
        ([tuned], (0, 1, 2), "--valid-labels changes nothing"),
        ([tuned], BY_POSITION, "--by-position changes nothing"),
        ([tuned], (7, 1, 2), "--valid-labels names output 7, and no model has more than 3"),
        ([tuned, bare], (7, 1, 2), "--valid-labels names output 7"),
    ):
        with pytest.raises(UsageError, match=message):
            require_classes(models, abc, select=select)  # type: ignore[arg-type]
    require_classes([tuned], abc, select=(1, 2, 0))  # as its names say
    require_classes([tuned], ("c", "a", "b"), select=BY_POSITION)
    require_classes([tuned, bare], abc, select=BY_POSITION)
    require_classes([], abc, select=BY_POSITION)


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
    for select in (None, (0, 6), BY_POSITION):
        with pytest.raises(
            ClassMismatch, match=r"m has 6 classes, the data has 2.*; by name"
        ) as caught:
            load.load(model, ["a", "x"], select=select)  # type: ignore[arg-type]
        assert "lacks x, and the data lacks its b, c, d, e, f" in caught.value.message
        assert "--valid-labels" in caught.value.tip and "--by-pos" not in caught.value.tip


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
        unwrapped(loaded.module), tmp_path / "after", data_config=loaded.config("train"),
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
