"""Saving a model as a folder that its library and kt load, as `local-dir:FOLDER`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kt_cli.errors import UsageError
from kt_cli.files import atomic_folder, escaped, save_tensors
from kt_cli.spec import Model
from kt_cli.zoo import local_models
from kt_cli.zoo import target as path_of
from kt_cli.zoo.local_models import CONFIG, PREFERRED
from kt_cli.zoo.wrapped import Wrapped

LOADED_BY_TIMM = """\
import timm
model = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True)
"""
LIBRARIES = {"architecture": "timm", "model_type": "transformers"}  # by what config.json has
PREPROCESSING = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
# Recommendations of timm for evaluation; they hold while the training ones are as they were.
TEST_TIME = {"input_size": ("test_input_size", "test_pool_size"), "crop_pct": ("test_crop_pct",)}
TEST_ONLY = tuple(name for names in TEST_TIME.values() for name in names)


def save(
    module: nn.Module,
    folder: Path,
    *,
    data_config: Mapping[str, Any],
    num_classes: int,
    label_names: Sequence[str] | None,
    card: str,
    extra: Mapping[str, Any],
    test_size: bool = True,
) -> None:
    """Write config.json, model.safetensors and README.md, atomically; else WriteError.

    Args:
        data_config: preprocessing at training size, as `Loaded.config("train")`.
        num_classes, label_names: of all its outputs.
        card: text of README.md.
        test_size: keep what timm recommends for evaluation, where training is as it was.
        extra: JSON-able facts, kept under "kt" in config.json; `card_extra` reads them back.
    """
    with atomic_folder(folder) as temporary:
        config, state = _described(module, temporary / CONFIG, label_names)
        config |= {"num_classes": num_classes}
        _set_preprocessing(config["pretrained_cfg"], data_config, test_size)
        config |= {"label_names": list(label_names)} if label_names else {}
        config["kt"] = dict(extra)
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (temporary / CONFIG).write_text(text + "\n", "utf-8", "backslashreplace")
        weights = temporary / PREFERRED[0]
        save_tensors(weights, state, {"format": "pt"})
        weights.chmod((temporary / CONFIG).stat().st_mode)  # safetensors makes it private
        if isinstance(module, Wrapped):
            card = card.replace(LOADED_BY_TIMM, module.origin.loading)
            for name, content in module.origin.files.items():
                (temporary / name).write_text(content, encoding="utf-8")
        (temporary / "README.md").write_text(escaped(front(config) + card), encoding="utf-8")


def front(config: Mapping[str, Any]) -> str:
    """What the hub reads of a card."""
    known = next((name for key, name in LIBRARIES.items() if key in config), None)
    library, tag = (f"library_name: {known}\n", f"- {known}\n") if known else ("", "")
    return f"---\n{library}tags:\n- image-classification\n{tag}- kt\n---\n\n"


def _described(
    module: nn.Module, path: Path, label_names: Sequence[str] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What config.json says of a module, and its weights, as their library calls them."""
    if not isinstance(module, Wrapped):
        return _timm_config(module, path), module.state_dict()
    config = {"pretrained_cfg": {}, **module.origin.config}
    if "model_type" in config:
        called = label_names or [f"LABEL_{i}" for i in range(module.num_classes)]
        config["id2label"] = {str(i): name for i, name in enumerate(called)}
        config["label2id"] = {name: i for i, name in enumerate(called)}
    return config, module.inner.state_dict()


def _timm_config(module: nn.Module, path: Path) -> dict[str, Any]:
    """timm's description of a module; of one that is not timm's, all that can be said."""
    from timm.models._hub import save_config_for_hf

    if "architecture" not in (getattr(module, "pretrained_cfg", None) or {}):
        return {"pretrained_cfg": {}}
    save_config_for_hf(module, str(path))
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    source = module.pretrained_cfg
    assert isinstance(source, dict)
    # timm may have dropped some; which hold is decided by `_set_preprocessing`.
    config["pretrained_cfg"] |= {k: source[k] for k in TEST_ONLY if source.get(k) is not None}
    config["pretrained_cfg"] |= {k: source.get(k) for k in ("input_size", "crop_pct")}
    # The tag names published weights, which these are no longer; labels are told beside it.
    for key in ("tag", "label_names", "label_descriptions"):
        config["pretrained_cfg"].pop(key, None)
    return config


def _set_preprocessing(
    pretrained_cfg: dict[str, Any], data_config: Mapping[str, Any], test_size: bool
) -> None:
    for key, dependent in TEST_TIME.items():
        if not test_size or _plain(data_config[key]) != _plain(pretrained_cfg.get(key)):
            for name in dependent:
                pretrained_cfg.pop(name, None)
    pretrained_cfg.update({k: _plain(data_config[k]) for k in PREPROCESSING if k in data_config})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def require_free(target: Path, overwrite: bool, models: Sequence[Model] = ()) -> None:
    """Refuse to save over `models` or what kt did not save, or without `overwrite` (UsageError)."""
    here = target.resolve()
    for model in models:
        folder = Path(path_of(model.ref)).resolve()
        if model.ref.startswith("local-dir:") and (here == folder or here in folder.parents):
            raise UsageError(f"{target} holds {model.name} itself", "Choose another folder: -o.")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (local_models.is_model(target) and "kt" in local_models.read_config(target)):
        tip = "Choose a new folder: -o."
        raise UsageError(f"{target} exists and is no model that kt saved", tip)
    if not overwrite:
        tip = "Choose another folder (-o), or --overwrite it."
        raise UsageError(f"{target} holds a model already", tip)
