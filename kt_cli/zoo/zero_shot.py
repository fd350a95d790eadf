"""open_clip's models as classifiers of the data's classes: clip:MODEL/PRETRAINED, clip:FOLDER.

The image tower and, as a linear layer, what the text tower makes of the classes' names in several
sentences (Radford et al., 2021, section 3.1.4); so it can be trained as any other model. And what
the text tower of one makes of names alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kt_cli.device import pick_device
from kt_cli.errors import UsageError, WeightsUnavailable, WriteError, first_line
from kt_cli.files import cache_folder, cached, not_kept
from kt_cli.precision import arithmetic
from kt_cli.rows import arrays
from kt_cli.settings.declared import digest
from kt_cli.zoo.fingerprints import fingerprint
from kt_cli.zoo.imagenet_facts import NUM_CLASSES
from kt_cli.zoo.imagenet_names import readable, synsets
from kt_cli.zoo.libraries import require_extra
from kt_cli.zoo.local_models import OPEN_CLIP
from kt_cli.zoo.wrapped import Origin, Wrapped, prepared_alike

LIBRARY = "open_clip"
LOADING = """\
from kt_cli.zoo import load, names
model = load.load(names.single("local-dir:PATH/TO/THIS/FOLDER")).module
"""
AT_ONCE = 32  # classes, each in several sentences
NAMES_AT_ONCE = 256
FORMAT = 1
ARCHITECTURE, WEIGHTS = "ViT-B-32", "openai"  # whose text tower compares names
NAME = f"{ARCHITECTURE}/{WEIGHTS}"
PROMPT = "a photo of a {}."


class ZeroShot(nn.Module):
    """Scaled cosine similarities of images and classes."""

    def __init__(self, visual: nn.Module, width: int, num_classes: int) -> None:
        super().__init__()
        self.visual, self.head = visual, nn.Linear(width, num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        said = self.visual(images)
        features = said[0] if isinstance(said, tuple) else said
        return cast(Tensor, self.head(nn.functional.normalize(features, dim=-1)))


def opened(target: str, classes: Sequence[str] | None, file: Path | None) -> nn.Module:
    """The classifier of these classes.

    Args:
        target: FOLDER, or MODEL/TAG, whose weights were fetched to `file`.

    Raises:
        UsageError: no classes are named, or images are prepared in an unknown way.
    """
    require_extra("clip")
    import open_clip

    name = f"clip:{target}"
    if classes is None:
        raise UsageError(
            f"{name} is a classifier only of classes that have names",
            "Name it beside your images, as a teacher or a student of kt transfer.",
        )
    quick = False
    if file is None:
        architecture, tag = f"local-dir:{target}", None
        config = json.loads((Path(target) / OPEN_CLIP).read_text(encoding="utf-8"))["model_cfg"]
    else:
        architecture, tag = target.split("/", 1)
        config = open_clip.get_model_config(architecture)
        # Of OpenAI's weights, for which open_clip only warns.
        quick = open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu", False)
    # Told where they are, open_clip asks no hub for weights.
    with mock.patch.object(open_clip.factory, "download_pretrained", return_value=str(file)):
        model = open_clip.create_model(
            architecture, tag, weights_only=True, require_pretrained=True, force_quick_gelu=quick
        ).eval()
    weights_id = fingerprint(model)
    head = model.logit_scale.exp().item() * _text(model, architecture, classes, weights_id)
    inner = ZeroShot(model.visual, head.shape[1], len(classes))
    inner.head.load_state_dict({"weight": head})
    tower = {key: config[key] for key in ("embed_dim", "vision_cfg")}
    tower["quick_gelu"] = quick or config.get("quick_gelu", False)
    module = _wrapped(inner, len(classes), tower, _data_config(model.visual, name))
    module.pretrained_cfg["label_names"] = list(classes)
    module.weights_id = digest([weights_id, _sentences()])[:16]
    return module


def again(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    require_extra("clip")
    import open_clip

    tower = config["arguments"]
    vision = {**tower["vision_cfg"], "timm_model_pretrained": False}
    text = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
    visual = open_clip.CLIP(**{**tower, "vision_cfg": vision}, text_cfg=text).visual
    count, width = state["head.weight"].shape
    inner = ZeroShot(visual, width, count)
    inner.load_state_dict(state)
    return _wrapped(inner, count, tower, config["pretrained_cfg"])


def _wrapped(
    inner: nn.Module, count: int, tower: Mapping[str, Any], data_config: Mapping[str, Any]
) -> Wrapped:
    config = {"library": LIBRARY, "arguments": tower}
    return Wrapped(inner, count, data_config, Origin(config, LOADING))


def _data_config(visual: Any, name: str) -> dict[str, Any]:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(**visual.preprocess_cfg)
    stated = {key: getattr(config, key) for key in ("mean", "std", "interpolation")}
    prepare = image_transform_v2(config, is_train=False)
    return prepared_alike([min(config.input_size[1:])], stated, prepare, name)


def _text(model: Any, architecture: str, classes: Sequence[str], weights_id: str) -> Tensor:
    """Embeddings (C, d) of length one, of classes in several sentences; kept in the cache."""
    names, sentences, device = _called(classes), _sentences(), pick_device()
    key = digest([FORMAT, weights_id, names, sentences, arithmetic(device.type)])[:24]
    path = cache_folder("classes") / f"{key}.parquet"
    rows: NDArray[np.float32] | None = cached(path, lambda path: arrays.read(path)[0]["vectors"])
    if rows is not None:
        return torch.tensor(rows)
    import open_clip

    tokenizer = open_clip.get_tokenizer(architecture)
    made = open_clip.build_zero_shot_classifier(
        model.to(device), tokenizer, names, sentences, AT_ONCE, device
    )
    model.cpu()
    found: Tensor = made.T.float().cpu().contiguous()
    about = {"name": f"clip:{architecture}", "data": "zero-shot", "num_classes": str(len(names))}
    try:
        arrays.write(path, {"id": list(names), "vectors": found.numpy()}, about)
    except WriteError as error:
        not_kept(error)
    return found


def _sentences() -> list[str]:
    """The seven that do as well on ImageNet as OpenAI's eighty, with {} for the class."""
    import open_clip

    return [sentence("{}") for sentence in open_clip.SIMPLE_IMAGENET_TEMPLATES]


def _called(classes: Sequence[str]) -> list[str]:
    """Classes as one would write them; ImageNet's as OpenAI does."""
    import open_clip

    place = synsets(NUM_CLASSES)
    if all(name in place for name in classes):
        return [open_clip.IMAGENET_CLASSNAMES[place[name]] for name in classes]
    return [name.replace("_", " ") for name in readable(classes)]


@torch.inference_mode()
def text_embeddings(names: Sequence[str]) -> NDArray[np.float32]:
    """CLIP's embeddings of C class names, (C, d); else UsageError or WeightsUnavailable."""
    try:
        import open_clip
    except ImportError as error:
        raise UsageError(
            "class similarity by CLIP needs the package open_clip",
            "Install it: pip install 'kt-cli[clip]'; or compare classes by --class-embedding head.",
        ) from error
    try:
        # These were trained with quick GELU.
        model, _, _ = open_clip.create_model_and_transforms(
            ARCHITECTURE, pretrained=WEIGHTS, force_quick_gelu=True
        )
    except Exception as error:  # whatever its download raises
        raise WeightsUnavailable(
            f"cannot load CLIP {NAME}: {first_line(error)}",
            "Fetch it on a machine with network, or use --class-embedding head.",
        ) from error
    model.eval()
    tokens = open_clip.get_tokenizer(ARCHITECTURE)([PROMPT.format(name) for name in names])
    parts = [model.encode_text(part).float() for part in tokens.split(NAMES_AT_ONCE)]
    result: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return result
