"""Models of torchvision, transformers and open_clip: their real classes, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from kt_cli.errors import DataError, UnknownName, UsageError, WeightsUnavailable
from kt_cli.spec import Model
from kt_cli.zoo import load, names, timm_registry, torchvision_models
from kt_cli.zoo.classes import Outputs, match
from kt_cli.zoo.features import FeatureTap, classifier, width
from kt_cli.zoo.imagenet_names import of_imagenet, synsets, words
from kt_cli.zoo.preprocessing import Geometry, normaliser
from tests.zoo.other_libraries import TOWERS, saved_clip, saved_vit, torchvision_file
from tests.zoo.test_load import put_into_cache

CLASSES = ("ant", "bee", "cat", "dog", "elk")


def one(reference: str | Path) -> Model:
    (model,) = names.resolve([str(reference)])
    return model


def picture(seed: int = 0, size: tuple[int, int] = (333, 250)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def as_kt(image: Image.Image, config: dict[str, Any]) -> Tensor:
    pixels = torch.as_tensor(Geometry.of(config).transform()(image))
    return normaliser(config, torch.device("cpu"))(pixels[None])


def resaved(loaded: load.Loaded, folder: Path) -> load.Loaded:
    """As kt transfer saves a student, and anyone loads it."""
    load.save(
        load.unwrapped(loaded.module), folder, data_config=loaded.config("train"),
        num_classes=loaded.outputs.count, label_names=loaded.outputs.names, card="", extra={},
    )  # fmt: skip
    return load.load(one(folder), CLASSES)


@torch.inference_mode()
def same(a: nn.Module, b: nn.Module, images: Tensor) -> bool:
    return torch.equal(a.eval()(images), b.eval()(images))


# --- torchvision --------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's file of squeezenet1_1, in the cache, with weights of our own."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    url = get_model_weights("squeezenet1_1").DEFAULT.url
    torchvision_file(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    return (tmp_path / "mine.pth").rename(tmp_path / "checkpoints" / url.rpartition("/")[2])


def test_torchvision_s_weights_come_with_their_own_transforms(published: Path) -> None:
    model = one("tv:squeezenet1_1")
    assert (model.ref, model.name) == ("tv:squeezenet1_1@IMAGENET1K_V1", "tv:squeezenet1_1")
    loaded = load.load(model)
    theirs = get_model("squeezenet1_1", weights=None).eval()
    theirs.load_state_dict(torch.load(published, weights_only=True))
    transform = get_model_weights("squeezenet1_1").DEFAULT.transforms()
    image = picture()
    wanted = transform(image)[None]
    torch.testing.assert_close(as_kt(image, loaded.config("test")), wanted, atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        assert torch.equal(loaded.module(wanted), theirs(wanted))
    assert loaded.num_classes == 1000 and loaded.source


def test_every_transform_of_torchvision_can_be_said_in_timm_s_words() -> None:
    image = picture()
    seen: set[str] = set()
    for name in torchvision.models.list_models(module=torchvision.models):
        for weights in get_model_weights(name):
            transform = weights.transforms()
            if str(transform) not in seen:
                seen.add(str(transform))
                config = torchvision_models._data_config(name, weights.name)
                torch.testing.assert_close(
                    as_kt(image, config)[0], transform(image), atol=1e-5, rtol=1e-5
                )
    assert len(seen) > 10


def test_torchvision_s_weights_are_told_apart_by_file(published: Path) -> None:
    model = one("tv:squeezenet1_1")
    before = load.load(model)
    torch.save(get_model("squeezenet1_1", weights=None).state_dict(), published)
    after = load.load(model)
    assert before.weights != after.weights and before.source != after.source


@pytest.mark.parametrize("name", ["googlenet", "shufflenet_v2_x0_5"])
def test_a_file_for_a_model_of_torchvision(name: str, tmp_path: Path) -> None:
    file = torchvision_file(tmp_path, name, num_classes=5, **_unhurried(name))
    loaded = load.load(one(f"tv:{name}@{file}"), CLASSES)
    theirs = get_model(name, weights=None, num_classes=5, **_unhurried(name))
    theirs.load_state_dict(torch.load(file, weights_only=True))
    images = torch.randn(2, *loaded.config("test")["input_size"])
    if name in ("googlenet", "inception_v3"):
        theirs.transform_input = True  # as all published weights have it
    assert same(loaded.module, theirs, images)
    head = classifier(loaded.module)
    assert isinstance(head, nn.Linear) and head.out_features == 5
    again = resaved(loaded, tmp_path / "saved")
    assert same(loaded.module, again.module, images)
    assert again.config("train") == loaded.config("train") and again.outputs.names == CLASSES
    theirs.load_state_dict(load_file(tmp_path / "saved" / "model.safetensors"))


def _unhurried(name: str) -> dict[str, Any]:
    return {"init_weights": False} if name in ("googlenet", "inception_v3") else {}


def test_features_of_a_model_of_torchvision(tmp_path: Path) -> None:
    file = torchvision_file(tmp_path, "resnet18", num_classes=5)
    module = load.load(one(f"tv:resnet18@{file}"), CLASSES).module
    tap = FeatureTap(module)
    with torch.inference_mode():
        logits = module(torch.randn(2, 3, 64, 64))
        head = classifier(module)
        assert head is not None and width(module) == 512
        assert torch.equal(head(tap.take()), logits)


def test_a_file_that_does_not_fit_its_model_of_torchvision(tmp_path: Path) -> None:
    file = torchvision_file(tmp_path, "resnet18")
    with pytest.raises(DataError, match="does not fit tv:resnet34"):
        load.load(one(f"tv:resnet34@{file}"))


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("tv:resnet51", "resnet50"),
        ("tv:resnet50@IMAGENET1K_V7", "IMAGENET1K_V1, IMAGENET1K_V2"),
    ],
)
def test_what_torchvision_does_not_have(reference: str, said: str) -> None:
    with pytest.raises(UnknownName) as caught:
        names.resolve([reference])
    assert said in caught.value.tip


def test_several_models_of_torchvision_by_a_glob() -> None:
    found = names.resolve(["tv:resnet*,tv:resnet50@IMAGENET1K_V1"])
    assert [model.name for model in found] == [
        "tv:resnet101", "tv:resnet152", "tv:resnet18", "tv:resnet34", "tv:resnet50",
        "tv:resnet50@IMAGENET1K_V1",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="nothing"):
        names.resolve(["tv:nothing*"])


@pytest.mark.parametrize("of", ["tv", "hf"])
def test_another_number_of_classes_to_fine_tune(
    of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = torchvision_file(tmp_path) if of == "tv" else None
    reference = f"tv:squeezenet1_1@{file}" if file else f"hf:{saved_vit(tmp_path / 'vit')}"
    module, config = load.for_fine_tuning(reference, 3)
    load.save(
        module, tmp_path / "new", data_config=config, num_classes=3, label_names=CLASSES[:3],
        card="", extra={},
    )  # fmt: skip
    loaded = load.load(one(tmp_path / "new"), CLASSES[:3])
    assert loaded.outputs == Outputs(3, CLASSES[:3])
    assert same(loaded.module, module, torch.randn(2, *config["input_size"]))
    # Pushed, its classes are still found by their names.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    put_into_cache(tmp_path / "hub", "me/new", {f.name: f for f in (tmp_path / "new").iterdir()})
    pushed = load.load(one("hf-hub:me/new"), CLASSES[2::-1])
    assert (pushed.matching, pushed.columns) == ("names", (2, 1, 0))


# --- transformers -------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["hf:", "local-dir:", ""])
def test_a_folder_of_transformers(prefix: str, tmp_path: Path) -> None:
    folder = saved_vit(tmp_path / "vit")
    transformers = pytest.importorskip("transformers")
    loaded = load.load(one(f"{prefix}{folder}"), CLASSES)
    theirs = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    image = picture()
    wanted = processor(image, return_tensors="pt")["pixel_values"]
    assert (as_kt(image, loaded.config("test")) - wanted).abs().mean() < 0.01
    with torch.inference_mode():
        assert torch.equal(loaded.module(wanted), theirs(wanted).logits)
    assert width(loaded.module) == 16


PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "squashed": ("ViTImageProcessor", {"size": {"height": 48, "width": 48}}),
    "cut from the centre": (
        "CLIPImageProcessor",
        {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}},
    ),
    "ConvNeXt's share": (
        "ConvNextImageProcessor", {"size": {"shortest_edge": 224}, "crop_pct": 0.875},
    ),
    "ConvNeXt's large": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "BiT's": ("BitImageProcessor", {"size": {"shortest_edge": 256}}),
    "LeViT's": ("LevitImageProcessor", {"size": {"shortest_edge": 224}}),
    "not normalised": ("ViTImageProcessor", {"do_normalize": False}),
    "MobileNet's": ("MobileNetV2ImageProcessor", {"size": {"shortest_edge": 256}}),
}  # fmt: skip


@pytest.mark.parametrize("kind", PROCESSORS)
def test_images_are_prepared_as_processors_do(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from kt_cli.zoo import transformers_models

    name, settings = PROCESSORS[kind]
    made = getattr(transformers, name)(**settings)
    made.save_pretrained(tmp_path)
    config = transformers_models._data_config(tmp_path, "mine")
    for size in ((512, 512), (256, 512)):  # whose centre is a pixel's edge
        image = picture(1, size)
        wanted = made(image, return_tensors="pt")["pixel_values"]
        std = torch.tensor(config["std"]).view(-1, 1, 1)
        assert (255 * std * (as_kt(image, config) - wanted)).abs().mean() < 2


def test_images_that_are_prepared_in_an_unknown_way_are_refused(tmp_path: Path) -> None:
    folder = saved_vit(tmp_path / "vit", rescale_factor=1 / 128)
    with pytest.raises(UsageError, match="prepared in a way that kt does not know") as caught:
        load.load(one(folder))
    assert "py:" in caught.value.tip


def test_a_student_of_transformers_is_saved_as_transformers_loads_it(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    loaded = load.load(one(f"hf:{saved_vit(tmp_path / 'vit')}"), CLASSES)
    with torch.no_grad():
        next(loaded.module.parameters()).add_(0.1)
    again = resaved(loaded, tmp_path / "saved")
    images = torch.randn(2, 3, 32, 32)
    assert same(loaded.module, again.module, images)
    assert again.config("test") == loaded.config("test") and again.outputs.names == CLASSES
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "saved")
    with torch.inference_mode():
        assert torch.equal(theirs.eval()(images).logits, again.module(images))
    assert theirs.config.id2label == dict(enumerate(CLASSES))
    transformers.AutoImageProcessor.from_pretrained(tmp_path / "saved")


def test_another_processor_is_another_model(tmp_path: Path) -> None:
    before = one(saved_vit(tmp_path / "vit"))
    after = one(saved_vit(tmp_path / "vit", image_mean=[0.4, 0.4, 0.4]))
    assert before.key != after.key


def test_folders_of_transformers_that_are_no_classifiers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = saved_vit(tmp_path / "vit")
    (folder / "preprocessor_config.json").rename(tmp_path / "away")
    with pytest.raises(DataError, match=r"has no preprocessor_config.json"):
        load.load(one(folder))
    config = transformers.ViTConfig.from_pretrained(folder)
    transformers.ViTModel(config).save_pretrained(folder)
    with pytest.raises(DataError, match=r"has no weights of classifier"):
        load.load(one(folder))


def test_a_model_of_transformers_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the seam: what is asked of the hub, and where it is looked for then."""
    import huggingface_hub

    folder = saved_vit(tmp_path / "vit")
    asked: list[str] = []

    def download(repo: str, name: str, revision: str | None = None) -> str:
        assert (repo, revision) == ("org/vit", "v2")
        asked.append(name)
        return str(folder / name)

    def in_cache(repo: str, name: str, revision: str | None = None) -> str | None:
        return str(folder / name) if name in asked else None

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", in_cache)
    monkeypatch.setattr(timm_registry, "hub_answers", lambda: True)
    model = one("hf:org/vit@v2")
    loaded = load.load(model, CLASSES)
    assert asked == ["config.json", "preprocessor_config.json", "model.safetensors"]
    assert same(loaded.module, load.load(one(folder), CLASSES).module, torch.randn(1, 3, 32, 32))
    monkeypatch.setattr(timm_registry, "hub_answers", lambda: pytest.fail("asked again"))
    assert load.load(model, CLASSES).source == loaded.source != ""


# --- open_clip ----------------------------------------------------------------------------------


def test_open_clip_s_zero_shot_classifier(tmp_path: Path) -> None:
    folder = saved_clip(tmp_path / "tower")
    open_clip = pytest.importorskip("open_clip")
    loaded = load.load(one(f"clip:{folder}"), CLASSES)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    image = picture()
    wanted = transform(image)[None]
    torch.testing.assert_close(as_kt(image, loaded.config("test")), wanted, atol=1e-5, rtol=1e-5)
    with torch.inference_mode():  # by hand, one sentence after another
        rows = []
        for name in CLASSES:
            texts = [sentence(name) for sentence in open_clip.SIMPLE_IMAGENET_TEMPLATES]
            text = model.eval().encode_text(tokenizer(texts), normalize=True).mean(0)
            rows.append(text / text.norm())
        features = model.encode_image(wanted, normalize=True)
        logits = model.logit_scale.exp() * features @ torch.stack(rows).T
        torch.testing.assert_close(loaded.module(wanted), logits, atol=1e-5, rtol=1e-4)
    assert loaded.outputs == Outputs(5, CLASSES) and width(loaded.module) == 16


def test_text_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_clip = pytest.importorskip("open_clip")
    model = one(f"clip:{saved_clip(tmp_path / 'tower')}")
    before = load.load(model, CLASSES)
    with monkeypatch.context() as patched:
        patched.setattr(open_clip, "build_zero_shot_classifier", lambda *_: pytest.fail("again"))
        after = load.load(model, CLASSES)
    assert same(before.module, after.module, torch.randn(2, 3, 32, 32))
    assert before.weights == after.weights
    other = load.load(model, [*CLASSES[:4], "emu"])
    assert not torch.equal(_head(other), _head(before))
    assert torch.equal(_head(other)[:4], _head(before)[:4])


def _head(loaded: load.Loaded) -> Tensor:
    head = classifier(loaded.module)
    assert isinstance(head, nn.Linear)
    return head.weight.detach()


def test_imagenet_s_classes_are_called_as_openai_calls_them() -> None:
    pytest.importorskip("open_clip")
    from kt_cli.zoo import zero_shot

    ids = list(synsets(1000))
    assert zero_shot._called([ids[134], ids[0]]) == ["crane bird", "tench"]
    assert zero_shot._called(["polar_bear"]) == ["polar bear"]


def test_a_student_of_open_clip_is_saved_as_a_classifier(tmp_path: Path) -> None:
    loaded = load.load(one(f"clip:{saved_clip(tmp_path / 'tower')}"), CLASSES)
    with torch.no_grad():
        for parameter in loaded.module.parameters():
            parameter.add_(0.01)
    again = resaved(loaded, tmp_path / "saved")
    assert same(loaded.module, again.module, torch.randn(2, 3, 32, 32))
    assert again.config("train") == loaded.config("train") and again.outputs.names == CLASSES


def test_a_folder_of_open_clip_without_its_prefix(tmp_path: Path) -> None:
    folder = saved_clip(tmp_path / "tower")
    with pytest.raises(DataError, match="no models") as caught:
        names.resolve([str(folder)])
    assert f"clip:{folder}" in caught.value.tip


def test_zero_shot_needs_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="classes that have names"):
        load.load(one(f"clip:{saved_clip(tmp_path / 'tower')}"))


@pytest.mark.parametrize(
    ("reference", "kind", "said"),
    [
        ("clip:ViT-B-33/openai", UnknownName, "ViT-B-32"),
        ("clip:ViT-B-32/openapi", UnknownName, "laion2b_s34b_b79k"),
        ("clip:ViT-B-32", UsageError, "clip:ViT-B-32/openai"),
    ],
)
def test_what_open_clip_does_not_have(reference: str, kind: type[Exception], said: str) -> None:
    pytest.importorskip("open_clip")
    with pytest.raises(kind) as caught:
        names.resolve([reference])
    assert said in getattr(caught.value, "tip", "")


def test_published_weights_of_open_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the seam: what is asked of the hub; its configuration and tag decide the rest."""
    import huggingface_hub

    open_clip = pytest.importorskip("open_clip")
    file = saved_clip(tmp_path / "tower") / "open_clip_pytorch_model.bin"
    asked: list[str] = []
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *at, revision: asked.append("/".join(at))
    )
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache",
        lambda *_, **__: str(file) if asked else None,
    )  # fmt: skip
    monkeypatch.setattr(timm_registry, "hub_answers", lambda: True)
    monkeypatch.setattr(open_clip.factory, "get_model_config", lambda _: dict(TOWERS))
    monkeypatch.setattr(open_clip, "get_model_config", lambda _: dict(TOWERS))
    quick = load.load(one("clip:ViT-B-32/openai"), CLASSES)
    assert asked.pop() == "timm/vit_base_patch32_clip_224.openai/open_clip_model.safetensors"
    model = open_clip.create_model(f"local-dir:{file.parent}", force_quick_gelu=True)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        features = model.eval().encode_image(images, normalize=True)
        torch.testing.assert_close(quick.module(images), features @ _head(quick).T)
    assert same(quick.module, resaved(quick, tmp_path / "saved").module, images)
    loaded = load.load(one("clip:ViT-B-32/laion2b_s34b_b79k"), CLASSES)
    assert asked == ["laion/CLIP-ViT-B-32-laion2B-s34B-b79K/open_clip_model.safetensors"]
    local = load.load(one(f"clip:{file.parent}"), CLASSES)
    assert loaded.weights == local.weights and torch.equal(_head(loaded), _head(local))
    assert not same(loaded.module, quick.module, images)


# --- all of them --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference", ["tv:resnet18", "hf:org/vit", "clip:ViT-B-32/laion2b_s34b_b79k"]
)
def test_offline_is_one_error_at_once(
    reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _require_extra(reference)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    model = one(reference)
    with pytest.raises(WeightsUnavailable, match=model.name) as caught:
        load.load(model, CLASSES if reference.startswith("clip") else None)
    assert "kt models prefetch" in caught.value.tip


def _require_extra(reference: str) -> None:
    extra = {"hf": "transformers", "clip": "open_clip"}.get(reference.partition(":")[0])
    if extra:
        pytest.importorskip(extra)


@pytest.mark.parametrize(
    ("reference", "module"), [("hf:org/vit", "transformers"), ("clip:ViT-B-32/openai", "open_clip")]
)
def test_a_missing_library_is_named_with_its_extra(
    reference: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kt_cli.zoo.libraries.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=module) as caught:
        names.resolve([reference])
    assert f"kt-cli[{reference.partition(':')[0]}]" in caught.value.tip


def test_imagenet_s_classes_in_words() -> None:
    words_of = words(1000)
    place = {word: i for i, word in enumerate(words_of)}
    some = ("golden retriever", "tench", "Goldfish")
    found = match(Outputs(1000), some)
    assert found.how == "names"
    assert found.columns == (place["golden retriever"], place["tench"], place["goldfish"])
    with pytest.raises(LookupError):  # two of its classes are called so
        match(Outputs(1000), ("tench", "crane"))


def test_names_that_say_no_more_than_imagenet_s_number() -> None:
    weights = get_model_weights("resnet50").DEFAULT
    assert of_imagenet(weights.meta["categories"])
    assert not of_imagenet(weights.meta["categories"][::-1])
    assert not of_imagenet(CLASSES)
