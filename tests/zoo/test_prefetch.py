from __future__ import annotations

import errno
import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, errors, file_download
from huggingface_hub.utils import _http
from safetensors.torch import save

from kt_cli.errors import WeightsUnavailable, WriteError
from kt_cli.files import free_space
from kt_cli.zoo import load, names, prefetch, timm_package, timm_registry
from kt_cli.zoo.imagenet_facts import fact
from kt_cli.zoo.prefetch import Wanted

TINY = "test_vit.r160_in1k"


def wanted(*references: str) -> Wanted:
    return dict.fromkeys(names.resolve(references), 3_000_000)


@dataclass
class Hub:
    """What hf_hub_download is asked; raises what it is told, the last of it for ever."""

    says: dict[str, list[Exception | None]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    had: set[str] = field(default_factory=set)
    answers: bool = True
    wait: Callable[[str], object] = str
    lock: Any = field(default_factory=threading.Lock)
    at_work: int = 0
    most: int = 0

    def download(self, repo: str, name: str, revision: str | None = None) -> str:
        with self.lock:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        self.wait(repo)
        with self.lock:
            self.at_work -= 1
        self.asked.append((repo, name))
        said = self.says.get(f"{repo}/{name}", self.says.get(repo, [None]))
        error = said.pop(0) if len(said) > 1 else said[0]
        if error is not None:
            raise error
        self.had.add(repo)
        return name

    def cached(self, ref: str) -> Path | None:
        repo = ref.removeprefix("hf-hub:")
        if "/" not in ref:
            repo = timm_package.config(ref).hf_hub_id or ""
        return Path(repo) if repo in self.had else None


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", made.download)
    monkeypatch.setattr(timm_registry, "cached", made.cached)
    monkeypatch.setattr(timm_registry, "hub_answers", lambda: made.answers)
    monkeypatch.setattr(prefetch, "BACK_OFF", 0.0)
    yield made
    # What was at work when an error ended everything must not ask the next test's hub.
    for thread in threading.enumerate():
        if thread.name == prefetch.THREAD:
            thread.join(10)


# Its name before 1.0.
MISSING = getattr(errors, "RemoteEntryNotFoundError", errors.EntryNotFoundError)


def of_hub(kind: type[errors.HfHubHTTPError], status: int) -> Exception:
    class Answer:
        headers: dict[str, str] = {}  # noqa: RUF012
        request = None
        status_code = status

    return kind(f"status {status}", response=Answer())  # type: ignore[arg-type]


def test_the_plan_knows_what_is_there_and_about_how_large_the_rest_is(
    hub: Hub, tmp_path: Path
) -> None:
    hub.had.add("timm/resnet18.a1_in1k")
    hub.answers = False
    models = names.resolve(
        ["resnet18.a1_in1k", "resnet50.a1_in1k", "hf-hub:me/mine", "random:resnet18"]
    )
    planned = prefetch.plan(models, jobs=2)
    known = fact("resnet50.a1_in1k")
    assert known is not None
    assert [m.ref for m in planned.there] == ["resnet18.a1_in1k"]
    assert [m.ref for m in planned.own] == ["random:resnet18#0"]
    assert [model.ref for model in planned.wanted] == ["resnet50.a1_in1k", "hf-hub:me/mine"]
    assert [*planned.wanted.values()] == [round(known.params_m * 4e6), None]
    assert planned.bytes == round(known.params_m * 4e6)
    assert planned.free > 0 and not hub.asked


def test_every_model_is_fetched_once_and_not_more_than_asked_at_a_time(hub: Hub) -> None:
    barrier = threading.Barrier(3, timeout=10)
    hub.wait = lambda repo: barrier.wait()
    seen: list[tuple[int, int]] = []
    models = wanted("timm-top12")
    failures = prefetch.fetch(models, 3, lambda done, total, what: seen.append((done, total)))
    assert failures == []
    assert Counter(hub.asked).most_common(1)[0][1] == 1
    assert {repo for repo, _ in hub.asked} == {f"timm/{model.ref}" for model in models}
    assert {name for _, name in hub.asked} == {"model.safetensors"}
    assert hub.most == 3
    assert seen == [(3 * (i + 1), 36) for i in range(12)]


def test_other_files_are_fetched_where_there_are_no_safetensors(hub: Hub) -> None:
    repo = f"timm/{TINY}"
    hub.says[f"{repo}/model.safetensors"] = [of_hub(MISSING, 404)]
    assert prefetch.fetch(wanted(TINY), 1) == []
    assert hub.asked == [(repo, "model.safetensors"), (repo, "pytorch_model.bin")]


def test_a_model_of_the_hub_comes_with_its_configuration(hub: Hub) -> None:
    assert prefetch.fetch(wanted("hf-hub:me/mine"), 1) == []
    assert hub.asked == [("me/mine", "config.json"), ("me/mine", "model.safetensors")]


@pytest.mark.parametrize(
    "passing",
    [
        errors.LocalEntryNotFoundError("no answer"),
        TimeoutError("slow"),
        of_hub(errors.HfHubHTTPError, 503),
        of_hub(errors.HfHubHTTPError, 429),
    ],
)
def test_what_passes_is_tried_again(hub: Hub, passing: Exception) -> None:
    hub.says[f"timm/{TINY}"] = [passing, passing, None]
    assert prefetch.fetch(wanted(TINY), 1) == []
    # Silence of the hub does not mean that there are no safetensors.
    assert hub.asked == [(f"timm/{TINY}", "model.safetensors")] * 3


@pytest.mark.parametrize(
    ("error", "said", "tries"),
    [
        (of_hub(errors.RepositoryNotFoundError, 404), "no such model", 1),
        (of_hub(errors.GatedRepoError, 403), "restricted", 1),
        (of_hub(errors.HfHubHTTPError, 401), "401", 1),
        (errors.LocalEntryNotFoundError("no answer"), "did not answer 5 times", 5),
        (ValueError("cut\noff"), "ValueError: cut", 5),
    ],
)
def test_a_model_that_fails_is_named_and_the_others_are_kept(
    hub: Hub, error: Exception, said: str, tries: int
) -> None:
    hub.says["timm/resnet18.a1_in1k"] = [error]
    failures = prefetch.fetch(wanted("resnet18.a1_in1k", TINY, "resnet50.a1_in1k"), 2)
    ((model, reason),) = failures
    assert model.ref == "resnet18.a1_in1k" and said in reason and "\n" not in reason
    assert hub.had == {f"timm/{TINY}", "timm/resnet50.a1_in1k"}
    assert sum(repo == "timm/resnet18.a1_in1k" for repo, _ in hub.asked) == tries


def test_a_repository_without_weights(hub: Hub) -> None:
    hub.says[f"timm/{TINY}"] = [of_hub(MISSING, 404)]
    ((_, reason),) = prefetch.fetch(wanted(TINY), 1)
    assert "model.safetensors" in reason


def test_offline_is_one_error_at_once(hub: Hub) -> None:
    hub.answers = False
    with pytest.raises(WeightsUnavailable, match="300 models"):
        prefetch.fetch(wanted("timm-top300"), 8)
    assert not hub.asked
    assert prefetch.fetch({}, 8) == []


def test_a_hub_that_falls_silent_ends_it(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([True, False])
    monkeypatch.setattr(timm_registry, "hub_answers", lambda: next(answers))
    models = wanted("timm-top40")
    first, *others = (f"timm/{model.ref}" for model in models)
    for repo in others:
        hub.says[repo] = [errors.LocalEntryNotFoundError("no answer")]
    over = threading.Event()
    hub.wait = lambda repo: repo in (first, others[0]) or over.wait(10)
    with pytest.raises(WeightsUnavailable, match="39 models"):
        prefetch.fetch(models, 1)
    over.set()
    assert hub.had == {first}
    assert len({repo for repo, _ in hub.asked}) <= 3


def test_a_full_disk_ends_it(hub: Hub) -> None:
    hub.says[f"timm/{TINY}"] = [OSError(errno.ENOSPC, "No space left on device")]
    with pytest.raises(WriteError, match="No space left"):
        prefetch.fetch(wanted(TINY), 1)
    assert len(hub.asked) == 1


def test_weights_that_are_not_looked_for_are_a_failure(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm_registry, "cached", lambda ref: None)
    ((_, reason),) = prefetch.fetch(wanted(TINY), 1)
    assert "where they are looked for" in reason and len(hub.asked) == 1


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_space(tmp_path / "a" / "b") > 0


# --- as the real hub does it ------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, bytes]]:
    """A hub on this machine: the files that it has, by repository and name."""
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            body = self._answer()
            self.wfile.write(body)

        def _answer(self) -> bytes:
            repo, _, rest = self.path.lstrip("/").partition("/resolve/")
            body = files.get(f"{repo}/{rest.partition('/')[2]}")
            if self.path != "/" and body is None:
                known = any(name.startswith(f"{repo}/") for name in files)
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
                body = b""
            else:
                body = body or b""
                self.send_response(200)
                self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
                self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            return body

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_address[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        for module in (constants, file_download):  # before 1.0 in both
            monkeypatch.setattr(
                module, "HUGGINGFACE_CO_URL_TEMPLATE",
                address + "/{repo_id}/resolve/{revision}/{filename}", raising=False,
            )  # fmt: skip
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        # Before 1.0 each session keeps what it was told of networks when it was made.
        getattr(_http, "reset_sessions", lambda: None)()
        yield files
        getattr(_http, "reset_sessions", lambda: None)()
        running.shutdown()


def test_what_is_fetched_is_loaded_without_a_network(
    server: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    module, _ = load.build("test_vit", 1000, 160)
    server[f"timm/{TINY}/model.safetensors"] = save(module.state_dict())
    (model,) = names.resolve([TINY])
    planned = prefetch.plan([model], 1)
    assert [*planned.wanted] == [model]
    assert prefetch.fetch(planned.wanted, 1) == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert prefetch.plan([model], 1).there == (model,)
    got = load.load(model).module.state_dict()
    assert all(torch.equal(got[name], value) for name, value in module.state_dict().items())


def test_weights_outside_the_hub_go_to_where_timm_looks(
    server: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    address = f"{constants.ENDPOINT}/some/where/resolve/main"
    configs = {
        "vgg11.tv_in1k": SimpleNamespace(hf_hub_id=None, url=f"{address}/there.pth"),
        "vgg13.tv_in1k": SimpleNamespace(hf_hub_id=None, url=f"{address}/gone.pth"),
    }
    monkeypatch.setattr(timm_registry, "config", configs.get)
    server["some/where/there.pth"] = b"weights"
    ((model, reason),) = prefetch.fetch(wanted(*configs), 1)
    assert model.ref == "vgg13.tv_in1k" and "404" in reason
    assert (tmp_path / "torch/hub/checkpoints/there.pth").read_bytes() == b"weights"


def test_the_hub_is_asked_for_the_size_of_what_nobody_published(server: dict[str, bytes]) -> None:
    server["me/mine/pytorch_model.bin"] = b"x" * 12_345
    planned = prefetch.plan(names.resolve(["hf-hub:me/mine", "hf-hub:me/none"]), 2)
    assert [*planned.wanted.values()] == [12_345, None]
