"""Published weights, fetched once into the cache that timm reads, so that jobs need no network."""

from __future__ import annotations

import errno
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from kt_cli.errors import KtError, WeightsUnavailable, WriteError, counted, first_line, way_out
from kt_cli.files import free_space
from kt_cli.progress import Progress, silent
from kt_cli.spec import Model
from kt_cli.zoo import published, scheme, target, timm_registry
from kt_cli.zoo.imagenet_facts import fact
from kt_cli.zoo.timm_registry import BESIDE, HOW_TO_GET_WEIGHTS, HUB_FILES

ATTEMPTS = 5
BACK_OFF = 1.0  # seconds before the second attempt; doubled before each that follows
BYTES_PER_PARAMETER = 4  # timm publishes in single precision
MB = 1_000_000
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
AGAIN = (408, 425, 429)  # statuses below 500 that pass
THREAD = "kt-download"

T = TypeVar("T")
U = TypeVar("U")
Wanted = Mapping[Model, int | None]  # models to fetch, with their bytes, about, where known
Failures = list[tuple[Model, str]]  # models that could not be had, and why


@dataclass(frozen=True)
class Plan:
    wanted: Wanted
    there: tuple[Model, ...]  # in the cache already
    own: tuple[Model, ...]  # need nothing from the hub
    folder: Path  # the hub's cache
    free: int  # bytes that its disk has left

    @property
    def bytes(self) -> int:
        """About what is to be fetched, without what has no known size."""
        return sum(size or 0 for size in self.wanted.values())


def plan(models: Sequence[Model], jobs: int) -> Plan:
    """What is in the cache, what is not, and about how large it is.

    Sizes of models without published results are asked of the hub, `jobs` at a time, where it
    answers.
    """
    own = tuple(model for model in models if not published(model.ref))
    there = tuple(m for m in models if published(m.ref) and timm_registry.cached(m.ref))
    known = {*own, *there}
    wanted = {model: _published_size(model) for model in models if model not in known}
    unknown = [model for model, size in wanted.items() if size is None]
    if unknown and timm_registry.hub_answers():
        for model, said in each(unknown, _asked_size, jobs):
            wanted[model] = None if isinstance(said, Exception) else said
    folder = hub_folder()
    return Plan(wanted, there, own, folder, free_space(folder))


def fetch(wanted: Wanted, jobs: int, progress: Progress = silent) -> Failures:
    """Fetch weights, `jobs` models at a time; gives those that could not be had.

    What is fetched is kept, whatever becomes of the others. Progress is in megabytes.

    Raises:
        WeightsUnavailable: the hub does not answer, or no longer.
        WriteError: the cache cannot be written.
    """
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if wanted and not timm_registry.hub_answers():
        raise _unreachable(len(wanted))
    disable_progress_bars()  # they would fight each other, and with ours, for the terminal
    failures: Failures = []
    left = dict(wanted)
    total = sum(map(_megabytes, left.values()))
    for model, said in each([*wanted], _fetch_patiently, jobs):
        if isinstance(said, OSError) and said.errno in UNWRITABLE:
            why = first_line(said)
            raise WriteError(
                f"cannot write weights of {model.name} to {hub_folder()}: {why}",
                f"{way_out(why)} HF_HOME names another; what is fetched is kept.",
            ) from said
        if isinstance(said, Exception):
            if _passing(said) and not timm_registry.hub_answers():
                raise _unreachable(len(left)) from said
            failures.append((model, _reason(said, model)))
        del left[model]
        progress(total - sum(map(_megabytes, left.values())), total, "weights (MB)")
    return failures


def each(
    items: Sequence[T], work: Callable[[T], U], jobs: int
) -> Iterator[tuple[T, U | Exception]]:
    """Each item with what `work` gave or raised, as they finish, `jobs` at a time.

    Where the caller stops asking, as with Ctrl-C, nothing more is begun. An executor would be
    waited for at exit.
    """
    todo = deque(items)
    done: SimpleQueue[tuple[T, U | Exception]] = SimpleQueue()

    def run() -> None:
        while True:
            try:
                item = todo.popleft()
            except IndexError:  # nothing is left
                return
            try:
                done.put((item, work(item)))
            except Exception as error:  # judged by whoever asked
                done.put((item, error))

    for _ in range(min(jobs, len(items))):
        threading.Thread(target=run, name=THREAD, daemon=True).start()
    try:
        for _ in items:
            yield done.get()
    finally:
        todo.clear()


def hub_folder() -> Path:
    """Where the hub's files are kept: HF_HUB_CACHE, or below HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _unreachable(count: int) -> WeightsUnavailable:
    from huggingface_hub import constants

    number = counted(count, "model")
    if constants.HF_HUB_OFFLINE:
        return WeightsUnavailable(
            f"the hub is switched off (HF_HUB_OFFLINE), and weights of {number} are missing",
            "Unset HF_HUB_OFFLINE and run again where there is a network.",
        )
    return WeightsUnavailable(
        f"the model hub does not answer, and weights of {number} are missing", HOW_TO_GET_WEIGHTS
    )


def _megabytes(size: int | None) -> int:
    """At least one, so that a model of unknown size counts."""
    return max(1, round((size or 0) / MB))


def _published_size(model: Model) -> int | None:
    known = fact(model.ref)
    return None if known is None else round(known.params_m * 1e6 * BYTES_PER_PARAMETER)


def _asked_size(model: Model) -> int | None:
    """Of the file of the hub that would be fetched; others are few, and nearly all published."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    repo, revision, names, url = _source(model)
    if url:
        return None
    return _first(
        names, lambda name: get_hf_file_metadata(hf_hub_url(repo, name, revision=revision)).size
    )


def _fetch_patiently(model: Model) -> None:
    """Several attempts, for what may pass; further apart each time, and not all at once."""
    for attempt in range(ATTEMPTS):
        try:
            _fetch(model)
            return
        except Exception as error:
            if attempt == ATTEMPTS - 1 or not _passing(error):
                raise
        time.sleep(BACK_OFF * 2**attempt * random.uniform(0.5, 1.0))


def _fetch(model: Model) -> None:
    repo, revision, names, url = _source(model)
    if url:
        from timm.models import _hub

        _hub.download_cached_file(url)
    else:
        from huggingface_hub import hf_hub_download

        download = partial(hf_hub_download, repo, revision=revision)
        for name in BESIDE.get(scheme(model.ref), ()):
            download(name)
        _first(names, download)
    if scheme(model.ref) == "clip":
        import open_clip

        open_clip.get_tokenizer(target(model.ref).partition("/")[0])  # it may have files of its own
    if timm_registry.cached(model.ref) is None:
        raise KtError(f"weights of {model.name} came, but not to where they are looked for")


def _source(model: Model) -> tuple[str, str | None, tuple[str, ...], str]:
    """Repository, revision and possible files, the best first; or the address of a file."""
    try:
        repo, names, url = timm_registry.weights_at(model.ref)
    except LookupError:
        raise KtError(f"timm does not say where weights of {model.name} are") from None
    repo, _, revision = repo.partition("@")
    return repo, revision or None, names, url


def _first(names: Sequence[str], get: Callable[[str], T]) -> T:
    """What `get` gives for the first of `names` that the repository has."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return get(names[0])
    except LocalEntryNotFoundError:  # a subclass, but it says that the hub did not answer
        raise
    except EntryNotFoundError:
        if len(names) == 1:
            raise
    return _first(names[1:], get)


def _passing(error: Exception) -> bool:
    """Whether another attempt may do better."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        return True
    if isinstance(error, (KtError, errors.EntryNotFoundError, errors.HFValidationError)):
        return False
    answer: Any = getattr(error, "response", None)
    status = getattr(answer, "status_code", None) or getattr(error, "code", None)  # of urllib
    if isinstance(status, int):
        return status >= 500 or status in AGAIN
    return not (isinstance(error, OSError) and error.errno in UNWRITABLE)


def _reason(error: Exception, model: Model) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "its access is restricted: ask for it on its page, then log in (HF_TOKEN)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub has no such model, or only for those who may see it (HF_TOKEN)"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"the hub did not answer {ATTEMPTS} times"
    if isinstance(error, errors.EntryNotFoundError):
        beside = "".join(f"{name} or " for name in BESIDE.get(scheme(model.ref), ()))
        return f"its repository lacks {beside}weights ({', '.join(HUB_FILES)})"
    return f"{type(error).__name__}: {first_line(error)}"
