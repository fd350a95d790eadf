"""Two models that teach each other: the same as two transfers, and cheaper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import kt_cli
from kt_cli.api.transfer import Transferred
from kt_cli.distillation import checkpoint, target_cache
from kt_cli.distillation.targets import Source
from kt_cli.errors import KtError, StudentLost, UsageError
from kt_cli.runs import transfer as runs
from tests.cli import test_transfer_command as one_way
from tests.cli.test_transfer_command import QUICK, Kt, Zoo

zoo = one_way.zoo  # the fixture
SETTINGS: dict[str, Any] = {
    "data": "digits", "fraction": 0.1, "limit": 60, "epochs": 2, "lr": 0.5, "batch_size": 32,
    "micro_batch": 16, "augment": "flip", "crop": 1.0, "side": 32,
}  # fmt: skip
RESULTS = ("student", "teacher", "method", "delta", "gain", "loss", "after_acc", "curve_loss",
           "curve_taught", "settings", "pos_flips_after", "share_taught")  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Samples that models were asked about, where nothing is kept yet."""
    monkeypatch.setitem(runs.TARGET_CACHES, target_cache.MEMORY, target_cache.Memory())
    counts: list[int] = []
    plain = Source._ask

    def counted(self: Source, indices: Any, images: Any) -> Any:
        counts.append(len(indices))
        return plain(self, indices, images)

    monkeypatch.setattr(Source, "_ask", counted)
    return counts


def single(teacher: str, student: str, output: str) -> Transferred:
    """A transfer that keeps its answers for itself alone."""
    runs.TARGET_CACHES = {**runs.TARGET_CACHES, target_cache.MEMORY: target_cache.Memory()}
    return kt_cli.transfer(teacher, student, output=output, keep_targets="memory", **SETTINGS)


def test_both_are_the_two_single_transfers(
    zoo: Zoo,
    asked: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows, weights to the bit; and each model is asked once about each view, not twice."""
    found = kt_cli.transfer_both(zoo.vit, zoo.resnet, output="both", **SETTINGS)
    together = sum(asked)
    asked.clear()
    monkeypatch.setattr(runs, "TARGET_CACHES", dict(runs.TARGET_CACHES))
    ways = {"resnet": (zoo.vit, zoo.resnet), "vit": (zoo.resnet, zoo.vit)}
    for one, (student, way) in zip(found, ways.items(), strict=True):
        alone = single(*way, output=f"alone-{student}")
        assert {k: one.row[k] for k in RESULTS} == {k: alone.row[k] for k in RESULTS}
        assert one.path == Path("both") / student and one.row["student"] == student
        mine, other = (load_file(p.path / "model.safetensors") for p in (one, alone))
        assert mine.keys() == other.keys() and all(mine[k].equal(other[k]) for k in mine)
        identity = [json.loads((p.path / "config.json").read_text())["kt"]["run_id"]
                    for p in (one, alone)]  # fmt: skip
        assert identity[0] == identity[1]
    assert 0 < 2 * together == sum(asked)
    assert not (Path("both") / checkpoint.HOME).exists()


def test_a_student_that_was_finished_is_not_taught_again(
    zoo: Zoo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, taught = runs.transfer_run, []

    def fails(run: Any, *args: Any) -> Any:
        taught.append(run.models[-1].name)
        if len(taught) == 2:
            raise KtError("the machine went away")
        return plain(run, *args)

    monkeypatch.setattr(runs, "transfer_run", fails)
    with pytest.raises(KtError, match="went away"):
        kt_cli.transfer_both(zoo.vit, zoo.resnet, output="both", **SETTINGS)
    weights = Path("both/resnet/model.safetensors")
    first = weights.stat().st_mtime_ns
    with pytest.raises(UsageError, match="holds a model already"):  # that of other settings
        kt_cli.transfer_both(zoo.vit, zoo.resnet, output="both", **{**SETTINGS, "epochs": 1})
    found = kt_cli.transfer_both(zoo.vit, zoo.resnet, output="both", **SETTINGS)
    assert taught == ["resnet", "vit", "vit"] and weights.stat().st_mtime_ns == first
    assert [one.row["student"] for one in found] == ["resnet", "vit"]
    assert isinstance(found[0].delta, float) and found[1].path.is_dir()
    with pytest.raises(UsageError, match="holds a model already"):
        kt_cli.transfer_both(zoo.vit, zoo.resnet, output="both", **SETTINGS)


def test_the_screen_of_both(kt: Kt, zoo: Zoo) -> None:
    code, out, err = kt("transfer", zoo.vit, zoo.resnet, *QUICK, "--both")
    assert code == 0
    assert "vit → resnet by kl-dp" in out and "resnet → vit by kl-dp" in out
    assert "both directions, Δ: resnet " in out and "· vit " in out
    assert err.count("Saved the student to students/") == 2
    code, text, _ = kt("transfer", zoo.vit, zoo.resnet, *QUICK, "--both", "--json")
    assert code == 0 and [row["student"] for row in json.loads(text)] == ["resnet", "vit"]


def test_both_may_lose_too_much(kt: Kt, zoo: Zoo) -> None:
    """The gate is asked after both are taught and saved."""
    settings = {**SETTINGS, "lr": 50.0, "method": "kl", "fail_if_class_worse": 0.0}
    with pytest.raises(StudentLost) as caught:
        kt_cli.transfer_both(zoo.vit, zoo.resnet, output="both", **settings)
    found = caught.value.transferred
    assert len(found) == 2 and all(one.path.is_dir() for one in found)
    for one in found:
        assert (f"{one.row['student']} lost" in caught.value.message) == bool(one.row["worse"])
    ways = ("--both", "--fail-if-class-worse", "0", "-o", "cli", "-m", "kl", "--lr", "50")
    code, out, _ = kt("transfer", zoo.vit, zoo.resnet, *QUICK, *ways)
    assert code == 3 and "both directions" in out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("mambaout", "--both"), "--both is for two models"),
        (("--both", "--push-to-hub", "a/b"), "--push-to-hub is for one student"),
    ],
)
def test_what_both_is_not_for(kt: Kt, zoo: Zoo, more: tuple[str, ...], said: str) -> None:
    names = [getattr(zoo, m, m) for m in more]
    code, _, err = kt("transfer", zoo.vit, zoo.resnet, *names, *QUICK)
    assert code == 2 and said in err
