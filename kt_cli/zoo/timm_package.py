"""What timm's own files say of its models and of ImageNet, without importing it.

Importing timm (and torchvision with it) takes seconds: as long as all else that a command does
whose predictions are kept. Names are read from its sources; configurations, which only the import
makes, are kept below KT_CACHE, one file for each state of timm's sources.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from kt_cli.errors import WriteError
from kt_cli.files import cache_folder, cached, status_of
from kt_cli.settings.declared import digest

FEW = 500  # architectures; where timm's sources show no more, they are written in another way
REGISTERED = re.compile(r"^@register_model\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
DEPRECATED = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)\}\)", re.M | re.S)
RENAMED = re.compile(r"['\"](\w+)['\"]\s*:\s*['\"]([\w.]+)['\"]")
SYNSETS = Path("data", "_info", "imagenet_synsets.txt")


class Config(NamedTuple):
    """What is asked of timm's `PretrainedCfg` of a model."""

    whole: str  # all of it, as text
    tag: str
    hf_hub_id: str | None
    hf_hub_filename: str | None
    url: str | None
    num_classes: int
    size: int  # pixels, side
    test_size: int
    classifier: str | None  # the module that gives the outputs; of several the first


class Configs(NamedTuple):
    """All that timm publishes. pretrained: full names of models with weights, in timm's order."""

    of: dict[str, Config]
    pretrained: tuple[str, ...]


@cache
def architectures() -> frozenset[str]:
    """Names of all timm architectures, trained or not."""
    if "timm" not in sys.modules:
        named = frozenset(REGISTERED.findall(sources()))
        if len(named) > FEW:
            return named
    import timm

    return frozenset(timm.list_models())


@cache
def sources() -> str:
    """timm's own code of its models: read in a tenth of a second, where importing takes several."""
    return "\n".join(file.read_text(encoding="utf-8") for file in _files())


@cache
def renamed() -> dict[str, str]:
    """What timm now calls the models that it knows by an earlier name too."""
    tables = DEPRECATED.findall(sources())
    return {old: new for table in tables for old, new in RENAMED.findall(table) if new}


@cache
def imagenet_synsets() -> tuple[str, ...]:
    """WordNet ids of ImageNet-1k's classes in label order; none where timm keeps them elsewhere."""
    try:
        return tuple((_folder() / SYNSETS).read_text(encoding="utf-8").split())
    except OSError:
        return ()


def config(name: str) -> Config:
    """timm's configuration of a model, by its full name or an architecture; KeyError for others.

    Where timm is imported it is asked itself: the user's own code may have registered more.
    """
    if "timm" not in sys.modules:
        return configs().of[name]
    from timm.models import get_pretrained_cfg

    found = get_pretrained_cfg(name)
    if found is None:
        raise KeyError(name)
    return _config(found)


@cache
def pretrained_names() -> tuple[str, ...]:
    """Full names of all timm models with pretrained weights, in timm's order."""
    if "timm" not in sys.modules:
        return configs().pretrained
    import timm

    return tuple(timm.list_pretrained())


@cache
def configs() -> Configs:
    """What is kept of timm's configurations, by names with a tag and without; else timm's own."""
    from kt_cli.rows import arrays  # which a slip in a name need not wait for

    about = {"name": f"timm {version('timm')}"}
    statuses = [status_of(file.stat()) for file in _files()]
    path = cache_folder("timm") / f"{digest([about, statuses, Config._fields])[:24]}.parquet"
    found = cached(path, _read)
    if found is None:
        found = _asked()
        with suppress(WriteError):
            arrays.write(path, _columns(found), about)
    return found


def _folder() -> Path:
    return Path(str(find_spec("timm").origin)).parent  # type: ignore[union-attr]


def _files() -> list[Path]:
    return sorted(_folder().glob("models/*.py"))


def _asked() -> Configs:
    import timm
    from timm.models import get_pretrained_cfg

    pretrained = timm.list_pretrained()
    names = [*pretrained, *timm.list_models()]
    return Configs({n: _config(get_pretrained_cfg(n)) for n in names}, tuple(pretrained))


def _config(found: Any) -> Config:
    first = found.classifier
    return Config(
        repr(found), found.tag or "", found.hf_hub_id, found.hf_hub_filename,
        found.url if isinstance(found.url, str) else None, found.num_classes,
        found.input_size[-1], (found.test_input_size or found.input_size)[-1],
        first[0] if isinstance(first, (list, tuple)) else first,
    )  # fmt: skip


def _columns(found: Configs) -> dict[str, list[Any]]:
    names = list(found.of)
    has = set(found.pretrained)
    config = [json.dumps(found.of[name]) for name in names]
    return {"id": names, "pretrained": [name in has for name in names], "config": config}


def _read(path: Path) -> Configs:
    from kt_cli.rows import arrays

    columns, _ = arrays.read(path)
    names, has = columns["id"], columns["pretrained"]
    listed = (Config(*json.loads(line)) for line in columns["config"])
    return Configs(dict(zip(names, listed, strict=True)), tuple(names[has]))
