"""What torchvision, transformers and open_clip publish: names, tags, and where weights are."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kt_cli.errors import UnknownName, UsageError, unknown

# Of each extra the module, and the package that has it.
EXTRAS = {"hf": ("transformers", "transformers"), "clip": ("open_clip", "open_clip_torch")}
SAFE, PICKLED = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"


def require_extra(kind: str) -> None:
    module, package = EXTRAS[kind]
    if find_spec(module) is None:
        raise UsageError(
            f"models of {kind}: need the package {package}",
            f"Install it: pip install 'kt-cli[{kind}]'.",
        )


@lru_cache(maxsize=1)
def torchvision_names() -> tuple[str, ...]:
    import torchvision

    return tuple(torchvision.models.list_models(module=torchvision.models))


def torchvision_weights(name: str, tag: str = "") -> str:
    """The name of published weights, by default the best; UnknownName where there are none."""
    if name not in torchvision_names():
        raise unknown(
            "model of torchvision", name, torchvision_names(), "List them: kt models 'tv:*'."
        )
    every = every_weights(name)
    if not tag:
        return str(every.DEFAULT.name)
    if tag not in every.__members__:
        valid = ", ".join(weights.name for weights in every)
        tip = f"Valid: {valid}; or name a file of yours: tv:{name}@FILE."
        raise UnknownName(f"unknown weights {tag!r} of tv:{name}", tip)
    return str(every[tag].name)


def every_weights(name: str) -> Any:
    from torchvision.models import get_model_weights

    return get_model_weights(name)


def require_clip(model: str, tag: str) -> None:
    require_extra("clip")
    import open_clip

    if model not in open_clip.list_models():
        tip = "List them: open_clip.list_pretrained()."
        raise unknown("model of open_clip", model, open_clip.list_models(), tip)
    if not open_clip.get_pretrained_cfg(model, tag):
        valid = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise UnknownName(f"unknown weights {tag!r} of clip:{model}", f"Valid: {valid}.")


def clip_files(target: str) -> tuple[str, tuple[str, ...], str]:
    """Repository and possible files, the best first, or the address of a file; of MODEL/TAG."""
    import open_clip

    config = open_clip.get_pretrained_cfg(*target.split("/", 1))
    repository, _, name = config.get("hf_hub", "").rpartition("/")
    if not repository:
        return "", (), config["url"]
    return repository, ((Path(name).stem + ".safetensors", name) if name else (SAFE, PICKLED)), ""
