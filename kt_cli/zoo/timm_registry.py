"""What timm publishes: names, tags and configurations of its models, and where the weights are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlparse

from kt_cli.errors import UnknownName, UsageError, WeightsUnavailable, some_of, unknown, warn
from kt_cli.spec import Model
from kt_cli.zoo import libraries, published, scheme, target
from kt_cli.zoo.imagenet_facts import fact, facts
from kt_cli.zoo.timm_package import architectures, config, pretrained_names, renamed

PROBE_SECONDS = 3.0
NAMES_IN_MESSAGE = 10
SEE = "List them: kt models."
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
BESIDE = {"hf-hub": ("config.json",), "hf": ("config.json", "preprocessor_config.json")}
HOW_TO_GET_WEIGHTS = (
    "Fetch them on a machine with network (kt models prefetch NAME) into a folder that HF_HOME "
    "names here as well; or use weights of your own: local-dir:FOLDER, ARCH@FILE."
)

ALIASES = {
    "beit_b": "beit_base_patch16_224", "beit_l": "beit_large_patch16_224",
    "beitv2_b": "beitv2_base_patch16_224", "beitv2_l": "beitv2_large_patch16_224",
    "cait_s": "cait_s24_224",
    "convnext_t": "convnext_tiny", "convnext_s": "convnext_small", "convnext_b": "convnext_base",
    "convnext_l": "convnext_large",
    "deit_t": "deit_tiny_patch16_224", "deit_s": "deit_small_patch16_224",
    "deit_b": "deit_base_patch16_224", "deit3_s": "deit3_small_patch16_224",
    "deit3_b": "deit3_base_patch16_224", "deit3_l": "deit3_large_patch16_224",
    "gmlp_s": "gmlp_s16_224", "maxvit_t": "maxvit_tiny_tf_224",
    "mixer_b": "mixer_b16_224", "mixer_l": "mixer_l16_224",
    "mobilenetv2": "mobilenetv2_100", "mobilenetv3": "mobilenetv3_large_100",
    "pit_t": "pit_ti_224", "pit_s": "pit_s_224", "pit_b": "pit_b_224",
    "poolformer_s": "poolformer_s12", "resmlp_s": "resmlp_24_224",
    "swin_t": "swin_tiny_patch4_window7_224", "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224", "swin_l": "swin_large_patch4_window7_224",
    "twins_s": "twins_svt_small",
    "vit_t": "vit_tiny_patch16_224", "vit_s": "vit_small_patch16_224",
    "vit_b": "vit_base_patch16_224", "vit_l": "vit_large_patch16_224",
    "volo_d1": "volo_d1_224",
    "xcit_t": "xcit_tiny_12_p16_224", "xcit_s": "xcit_small_12_p16_224",
    "xcit_m": "xcit_medium_24_p16_224", "xcit_l": "xcit_large_24_p16_224",
}  # fmt: skip


def architecture(name: str, say: Callable[[str], None] = warn) -> str:
    """`name` with a short or an earlier name in it written out; a tag stays.

    Args:
        say: is told of an earlier name.
    """
    arch, dot, tag = name.partition(".")
    if dot or arch in ALIASES or fact(name) is not None:
        return ALIASES.get(arch, arch) + dot + tag
    if name not in architectures() and (now := renamed().get(name)):
        say(f"{name} is an earlier name of timm's; it is {now} now")
        return now
    return name


def canonical(name: str) -> str:
    """The full name of a pretrained timm model; without a tag, that of its default weights.

    UnknownName where timm has no such architecture or tag, UsageError where it has no weights.
    """
    require_known(name)
    arch, _, tag = name.partition(".")
    if fact(name) is not None or name in pretrained_names():
        return name
    tags = [full.partition(".")[2] for full in pretrained_names() if full.startswith(f"{arch}.")]
    if not tags:
        raise UsageError(
            f"timm has no pretrained weights of {arch}",
            f"Give weights of your own ({arch}@FILE), or train it: kt pretrain {arch}.",
        )
    if tag:
        raise UnknownName(f"unknown tag {tag!r} of {arch}", f"Valid: {', '.join(tags)}.")
    default = config(arch)
    return f"{arch}.{default.tag}" if default.tag else arch


def require_known(name: str) -> None:
    """Refuse what timm has no architecture for (UnknownName), without importing it."""
    if fact(name) is None and name.partition(".")[0] not in architectures():
        known = [fact.model for fact in facts()]
        raise unknown("model", name, [*ALIASES, *sorted(architectures()), *known], SEE)


def require_architecture(arch: str) -> None:
    """Refuse what is no timm architecture, or no tag of it (UnknownName)."""
    name, _, tag = arch.partition(".")
    if name not in architectures():
        raise unknown("architecture", name, [*ALIASES, *sorted(architectures())])
    if tag:
        canonical(arch)


@lru_cache(maxsize=256)
def parameters(arch: str) -> float | None:
    """How many an architecture has; None of what is none, or cannot be built."""
    if arch not in architectures():
        return None
    import timm
    import torch

    with suppress(Exception), torch.device("meta"):  # whatever timm raises
        return float(sum(p.numel() for p in timm.create_model(arch).parameters()))
    return None


def missing_weights(models: Sequence[Model]) -> list[Model]:
    """Those whose weights are neither in the local cache nor to be had from the hub."""
    absent = [model for model in models if published(model.ref) and cached(model.ref) is None]
    return absent if absent and not hub_answers() else []


def require_weights(models: Sequence[Model], needed: int | None = None) -> None:
    """Refuse models whose weights cannot be had (WeightsUnavailable); warn where enough have some.

    needed: models that are enough; None for all.
    """
    if not (missing := missing_weights(models)):
        return
    names = some_of([model.name for model in missing], NAMES_IN_MESSAGE)
    message = f"the model hub does not answer and the cache holds no weights of {names}"
    if needed is None or len(models) - len(missing) < needed:
        raise WeightsUnavailable(message, HOW_TO_GET_WEIGHTS)
    warn(f"{message}: their runs will fail. {HOW_TO_GET_WEIGHTS}")


def cached(ref: str) -> Path | None:
    """The cached weights of a published model, where what it needs beside them is there; or None.

    That is config.json for a model of the hub, and the preprocessing for one of transformers.
    """
    try:
        repo, names, url = weights_at(ref)
    except LookupError:
        return None
    if url:
        from torch.hub import get_dir

        path = Path(get_dir()) / "checkpoints" / Path(urlparse(url).path).name
        return path if path.is_file() else None
    needed = all(_in_hub_cache(repo, (name,)) for name in BESIDE.get(scheme(ref), ()))
    return _in_hub_cache(repo, names) if needed else None


def weights_at(ref: str) -> tuple[str, tuple[str, ...], str]:
    """Repository (with its revision) and possible files, the best first; or a file's address.

    LookupError where nobody says.
    """
    kind = scheme(ref)
    if kind in BESIDE:
        return target(ref), HUB_FILES, ""
    if kind == "tv":
        name, _, weights = target(ref).partition("@")
        return "", (), str(libraries.every_weights(name)[weights].url)
    if kind == "clip":
        return libraries.clip_files(target(ref))
    found = config(ref)
    if found.hf_hub_id:
        names = (found.hf_hub_filename,) if found.hf_hub_filename else HUB_FILES
        return found.hf_hub_id, names, ""
    if found.url is None:
        raise LookupError(ref)
    return "", (), found.url


def _in_hub_cache(repo: str, names: Sequence[str]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repo, _, revision = repo.partition("@")
    found = (try_to_load_from_cache(repo, name, revision=revision or None) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def hub_answers() -> bool:
    """Whether the hub can be reached; tells within seconds, and at once in offline mode."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[bool] = []
    # A resolver without network may hang for longer than any timeout of the request.
    probe = threading.Thread(target=lambda: answers.append(_probe(constants.ENDPOINT)), daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    return answers == [True]


def _probe(address: str) -> bool:
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    try:
        return bool(get_session().head(address, timeout=PROBE_SECONDS).status_code < 400)
    except Exception:  # whatever the HTTP library of the day raises means the same
        return False
