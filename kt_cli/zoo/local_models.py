"""The user's own models: folders in timm's `local-dir:` layout, checkpoint files, functions.

Their identity is their content, so that moving a model keeps it and retraining it does not.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import sys
import time
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.util import cache_from_source
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

from kt_cli.errors import DataError, UsageError, unknown
from kt_cli.files import Status, may_change_unseen, status_of
from kt_cli.spec import Model
from kt_cli.zoo import published, scheme, target
from kt_cli.zoo.imagenet_names import of_imagenet

CONFIG = "config.json"
ORIGIN = "from"  # under "kt" in it: what a student came from, as references
OPEN_CLIP = "open_clip_config.json"
PROCESSOR = "preprocessor_config.json"  # of transformers
# timm's order (timm.models._hub.load_state_dict_from_path).
PREFERRED = (
    "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth",
)  # fmt: skip
FOLDER_EXTENSIONS = (".safetensors", ".pth", ".pth.tar", ".bin")
CHECKPOINT_EXTENSIONS = (".safetensors", ".pth", ".pth.tar", ".pt", ".ckpt", ".bin")
BLOCK = 2**22
NUMBERS = re.compile(r"([0-9]+)")
_contents: dict[tuple[Path, Status], bytes] = {}
_imported: dict[str, bytes] = {}  # what modules of the user's own were when they were imported


def exists(text: str) -> bool:
    """Whether `text`, which may be anything, names a file or folder."""
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, no path at all, no such home
        return False


def is_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def models_in(folder: Path) -> list[Path]:
    return sorted(inner for inner in folder.iterdir() if inner.is_dir() and is_model(inner))


def ending(file: Path) -> str | None:
    """Which of CHECKPOINT_EXTENSIONS a file has, the longest, if any."""
    return max(filter(file.name.endswith, CHECKPOINT_EXTENSIONS), key=len, default=None)


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoint files directly in `folder`, epoch 2 before epoch 10."""
    files = [file for file in folder.iterdir() if file.is_file() and ending(file)]
    return sorted(files, key=lambda file: natural(file.name))


def natural(name: str) -> tuple[list[str | int], str]:
    """timm's order of names: digits count as numbers, case decides only between equals."""
    parts: list[str | int] = [*NUMBERS.split(name.lower())]
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder; DataError where it is missing or damaged."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path}: {reason}", "Save the model again.") from error
    if not isinstance(config, dict) or not isinstance(config.get("pretrained_cfg", {}), dict):
        raise DataError(f"{path} is no model's configuration", "Save the model again.")
    return config


def stated(model: Model) -> dict[str, Any]:
    """config.json of a model folder; nothing of other models, and of what is damaged."""
    if scheme(model.ref) == "local-dir":
        with suppress(DataError):
            return read_config(Path(target(model.ref)))
    return {}


def architecture(model: Model) -> str | None:
    """timm's architecture of a model, as far as its reference or its folder states it."""
    kind = scheme(model.ref)
    if kind == "local-dir":
        return stated(model).get("architecture")
    known = kind in ("timm", "checkpoint")
    return model.ref.partition("@")[0].partition(".")[0] if known else None


def num_classes(folder: Path) -> int | None:
    """Number of classes that config.json of a model folder states, if it does."""
    config = read_config(folder)
    count = config.get("num_classes", config.get("pretrained_cfg", {}).get("num_classes"))
    if count is None and isinstance(labels := config.get("id2label"), dict):
        count = len(labels)
    if not isinstance(count, int | None):
        raise DataError(f"num_classes of {folder / CONFIG} is {count!r}", "Save the model again.")
    return count


def label_names(folder: Path) -> Any:
    """Names of the classes that config.json of a model folder states, as it does, if it does."""
    config = read_config(folder)
    places = (config, config.get("pretrained_cfg", {}))
    stated = [place.get(key) for place in places for key in ("label_names", "labels")]
    return next((names for names in stated if names), of_transformers(config.get("id2label")))


def of_transformers(labels: Any) -> list[str] | None:
    """Names of the classes in transformers' id2label, in order; None where they tell nothing."""
    if not isinstance(labels, dict):
        return None
    names = [str(labels.get(i, labels.get(str(i), ""))) for i in range(len(labels))]
    unnamed = all(re.fullmatch(r"LABEL_\d+", name) for name in names)
    return None if unnamed or of_imagenet(names) else names


def weights_file(folder: Path) -> Path:
    """The file that timm takes the weights of a model folder from; DataError where none is."""
    named = [folder / name for name in PREFERRED]
    others = [f for end in FOLDER_EXTENSIONS for f in sorted(folder.glob(f"*{end}"))]
    for path in (*named, *others):
        if path.is_file():
            return path
    raise DataError(f"no weights in {folder}", f"Expected {PREFERRED[0]} beside {CONFIG}.")


def parameters(model: Model) -> float | None:
    """About how many a model folder holds, by the size of its file; None of other models."""
    with suppress(DataError, OSError):
        if scheme(model.ref) == "local-dir":
            return weights_file(Path(target(model.ref))).stat().st_size / 4
    return None


def folder_key(folder: Path) -> str:
    """Identity of a model folder: its weights, config.json and transformers' preprocessing."""
    parts = [weights_file(folder), folder / CONFIG]
    if (folder / PROCESSOR).is_file():
        parts.append(folder / PROCESSOR)
    return _key(*map(content, parts))


def key_of_files(ref: str) -> str | None:
    """Identity of what a reference names by its files, or DataError; None of all others."""
    kind, path = scheme(ref), Path(target(ref))
    if kind == "local-dir":
        return folder_key(path)
    if kind == "predictions":
        return f"predictions:{content(path).hex()[:16]}"
    if kind not in ("clip", "checkpoint", "tv") or published(ref):
        return None
    if kind == "clip":  # open_clip prefers files of its own name
        of_clip = (path / name for name in PREFERRED if name.startswith("open_clip"))
        file = next(filter(Path.is_file, of_clip), None) or weights_file(path)
        return _key(content(file), content(path / OPEN_CLIP))
    arch, _, file_name = ref.partition("@")
    return _key(content(Path(file_name)), arch.encode())


def content(path: Path) -> bytes:
    """BLAKE2b of a file's content, computed once while the file stays as it is (else DataError)."""
    try:
        now, status = time.time_ns(), status_of(path.stat())
        if (path, status) in _contents:
            return _contents[path, status]
        state = hashlib.blake2b()
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                state.update(block)
        if not may_change_unseen(status, now):
            _contents[path, status] = state.digest()
        return state.digest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _key(*parts: bytes) -> str:
    return "local:" + hashlib.blake2b(b"\0".join(parts)).hexdigest()[:16]


def require_unchanged(model: Model) -> None:
    """Refuse a model whose files are not what they were when it was named (DataError)."""
    if key_of_files(model.ref) not in (None, model.key):
        raise DataError(
            f"{model.name} changed while it was in use: its weights or {CONFIG} are others",
            "Run the command again.",
        )


def card_extra(model: Model) -> dict[str, Any] | None:
    """What `save` was given as `extra`; None for a model that kt did not save."""
    extra = stated(model).get("kt")
    return extra if isinstance(extra, dict) else None


def parse_function(text: str) -> tuple[str, str]:
    """Module and function of "package.module:function"; UsageError where it has another form."""
    match = re.fullmatch(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", text)
    if match is None:
        raise UsageError(
            f"py:{text} is not of the form py:module:function",
            "For example py:my_models:build, with my_models.py in the current folder.",
        )
    return match[1], match[2]


def function_key(module: str, function: str) -> str:
    """Identity of a function: its name and the source of its module, where that can be found."""
    source = _source(module)
    return f"py:{module}:{function}" + (f"@{content(source).hex()[:16]}" if source else "")


def _source(module: str) -> Path | None:
    """The file of a module. Nothing is imported, as find_spec would with a parent package."""
    path: Any = [str(Path.cwd()), *sys.path]
    spec = None
    for name in accumulate(module.split("."), "{}.{}".format):
        spec = PathFinder.find_spec(name, path)
        if spec is None:
            return None
        path = spec.submodule_search_locations or []
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None


def _import(module: str) -> ModuleType:
    """A module as its file is now: its key says so, and what it said before must not be kept."""
    source = _source(module)
    now = content(source) if source else b""
    if source and _imported.get(module, now) != now:
        sys.modules.pop(module, None)
        # Compiled files are told apart by seconds and size.
        Path(cache_from_source(str(source))).unlink(missing_ok=True)
    _imported[module] = now
    return importlib.import_module(module)


def call(module: str, function: str) -> Any:
    """Import a module, from the current folder too, and call its function; or UsageError."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found = _import(module)
        if not hasattr(found, function):
            names = [n for n in vars(found) if callable(getattr(found, n)) and n[0] != "_"]
            raise unknown(f"function of {module}", function, names)
        return getattr(found, function)()
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        kind, text = type(error).__name__, " ".join(str(error).split())
        raise UsageError(
            f"py:{module}:{function} failed: {kind}: {text}",
            "The function is called without arguments and returns a torch.nn.Module.",
        ) from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
