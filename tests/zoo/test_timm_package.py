"""timm's files are read for what timm itself would say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
from timm.data.imagenet_info import ImageNetInfo
from timm.models import _registry, get_pretrained_cfg

from kt_cli import cache
from kt_cli.zoo import imagenet_names, timm_package

ASKED = ("resnet50", "vit_base_patch16_224.augreg2_in21k_ft_in1k", "levit_128.fb_dist_in1k")
ASK = """
import json, sys
from kt_cli.zoo import imagenet_names, timm_package
found = timm_package.configs()
said = [found.of[name] for name in sys.argv[1:]]
synsets = list(imagenet_names.synsets(1000))
heavy = sorted({"timm", "torchvision"} & set(sys.modules))
print(json.dumps([said, found.pretrained[:3], len(found.pretrained), synsets[:2], heavy]))
"""


def ask() -> list[object]:
    """What a process says that has not imported timm."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, *ASKED], capture_output=True, text=True, check=True
    )
    return list(json.loads(done.stdout))


def test_names_in_timm_s_sources_are_those_it_registers() -> None:
    registered = timm_package.REGISTERED.findall(timm_package.sources())
    assert set(registered) == set(timm.list_models())
    assert timm_package.renamed() == _registry._deprecated_models


def test_synsets_are_timm_s() -> None:
    assert list(timm_package.imagenet_synsets()) == ImageNetInfo("imagenet-1k").label_names()  # type: ignore[no-untyped-call]
    assert list(imagenet_names.synsets(1000)) == list(timm_package.imagenet_synsets())


def test_configurations_are_timm_s() -> None:
    found = timm_package.configs()
    assert list(found.pretrained) == timm.list_pretrained()
    assert found.of.keys() == {*timm.list_models(), *timm.list_pretrained()}
    for name in ASKED:
        theirs, ours = get_pretrained_cfg(name), found.of[name]
        assert ours.whole == repr(theirs)
        assert (ours.tag, ours.hf_hub_id) == (theirs.tag, theirs.hf_hub_id)
        assert ours.size == theirs.input_size[-1]
        assert ours.test_size == (theirs.test_input_size or theirs.input_size)[-1]
    several = get_pretrained_cfg(ASKED[2]).classifier
    assert not isinstance(several, str) and found.of[ASKED[2]].classifier == several[0]


def test_configurations_are_kept_and_then_told_without_timm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KT_CACHE", str(tmp_path))
    first = ask()
    assert first[-1] == ["timm", "torchvision"]
    (kept,) = cache.entries()
    assert kept.kind == "timm" and kept.about["name"] == f"timm {timm.__version__}"
    assert cache.verify(kept) is None
    second = ask()
    assert second == [*first[:-1], []]
    ours = timm_package.configs()
    assert second[:3] == json.loads(
        json.dumps([[ours.of[name] for name in ASKED], ours.pretrained[:3], len(ours.pretrained)])
    )
    kept.path.write_bytes(b"damaged")
    assert ask() == first
    assert ask() == second


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("KT_CACHE", str(file))
    assert ask()[-1] == ["timm", "torchvision"]
