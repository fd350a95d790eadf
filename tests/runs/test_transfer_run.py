"""A transfer's row and its student, against timm's own evaluation and NumPy."""

from __future__ import annotations

import gc
import os
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_dataset, create_loader, resolve_model_data_config
from torch import Tensor, nn

from kt_cli.data.sources import open_data
from kt_cli.data.views import preprocess, views_of
from kt_cli.distillation import batch_norm, checkpoint
from kt_cli.distillation.guard_rules import RULES, Flips, Prior
from kt_cli.distillation.teachers import TransferJob
from kt_cli.distillation.train import Diverged, NotFinite
from kt_cli.errors import KtError, UsageError
from kt_cli.rows import schema, store
from kt_cli.runs.transfer import transfer_run
from kt_cli.settings import DataSpec, TransferSpec
from kt_cli.spec import Model, Run
from kt_cli.zoo import load
from kt_cli.zoo.names import resolve

CLASSES, TRAIN, EVAL, GUARD = 4, 12, 15, 10  # images of a class
SPEC = TransferSpec(
    method="kl", epochs=2, lr=0.5, batch_size=16, micro_batch=8, augment="none", crop=1.0, side=32
)
ARCHS = {
    "resnet": "test_resnet", "mambaout": "test_mambaout", "vit": "test_vit", "norm": "test_resnet",
    "nfnet": "test_nfnet",
}  # fmt: skip
SEVERAL = ("resnet", "mambaout", "vit")


def picture(rng: np.random.Generator, label: int) -> Image.Image:
    """Stripes whose direction and colour tell the class, in noise; no square."""
    rows, columns = np.mgrid[:37, :45]
    wave = np.sin((rows if label % 2 else columns) / 2)[..., None]
    colour = np.array([200, 90, 40] if label // 2 else [60, 120, 220])
    pixels = 128 + 0.4 * wave * colour + rng.normal(0, 90, (37, 45, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and models that know a little about them."""
    home, rng = tmp_path_factory.mktemp("place"), np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("val", EVAL), ("guard", GUARD)):
        for label in range(CLASSES):
            folder = home / ("guard" if split == "guard" else f"data/{split}") / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                picture(rng, label).save(folder / f"{i}.png")
    for seed, name in enumerate(ARCHS):
        save_model(home, name, seed)
    return home


def save_model(home: Path, name: str, seed: int) -> None:
    """A model that knows a little: ten steps on the training images, batch by batch."""
    torch.manual_seed(seed)
    module, config = load.build(ARCHS[name], CLASSES, 32)
    config = {**config, "crop_pct": 0.9}
    images = open_data(DataSpec(str(home / "data")), training=True).training()
    prepared = [np.asarray(images.read(i).resize((32, 32))) for i in range(len(images))]
    inputs = torch.from_numpy(np.stack(prepared)).permute(0, 3, 1, 2) / 255 * 2 - 1
    for layer in batch_norm.layers(module):
        layer.momentum = None  # ten steps are few for a running mean
    optimizer = torch.optim.Adam(module.parameters(), 2e-3)
    for _ in range(10):
        chosen = torch.randperm(len(images))[:24]
        loss = nn.functional.cross_entropy(
            module(inputs[chosen]), torch.from_numpy(images.labels)[chosen]
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    load.save(module, home / name, data_config=config, num_classes=CLASSES,
              label_names=images.classes, card="", extra={"run_id": name})  # fmt: skip


def run_of(place: Path, *names: str, out: str = "student", **settings: Any) -> Run:
    more = {"guard_data": str(place / "guard"), **settings.pop("data", {})}
    data = DataSpec(str(place / "data"), **more)
    spec = replace(SPEC, **settings)
    models = tuple(resolve([str(place / name) for name in names]))
    data_id = open_data(data, training=True).transfer_id(spec.guarded)
    return Run("transfer", models, data_id, spec, data, out)


def transfer(place: Path, folder: Path, *names: str, **settings: Any) -> dict[str, Any]:
    (row,) = transfer_run(run_of(place, *names, **settings), folder)
    return row


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def by_timm(folder: Path, place: Path) -> NDArray[np.bool_]:
    """Which evaluation images a saved model has right, by timm's own transforms and loader."""
    module = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return right(module, place)


@torch.inference_mode()
def right(module: nn.Module, place: Path) -> NDArray[np.bool_]:
    config = resolve_model_data_config(module, use_test_size=True)
    images = create_dataset("", root=str(place / "data" / "val"))
    keep = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
    loader = create_loader(images, batch_size=20, use_prefetcher=False, num_workers=0,
                           persistent_workers=False, **{k: config[k] for k in keep})  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # timm leaves files open
        found = [module(batch).argmax(1) == labels for batch, labels in loader]
    return torch.cat(found).numpy()


def percent(mask: NDArray[np.bool_]) -> float:
    return 100 * float(mask.mean())


def rate(after: NDArray[np.bool_], known: NDArray[np.bool_]) -> Any:
    return pytest.approx(percent(after[known])) if known.any() else None


WAYS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "plain": (("resnet", "norm"), {"method": "kl", "bn": "recompute"}),
    "by class": (("resnet", "vit"), {"method": "kl-dp", "by_class": True}),
    "slow": (("resnet", "mambaout"), {"method": "xekl-mcl", "mcl_tau": 0.1, "mcl_every": 2}),
    "contrast": (("vit", "norm"), {"method": "crd", "lr": 0.1}),
    "similarity": (("norm", "vit"), {"method": "cd"}),
    "half": (("resnet", "vit"), {"method": "xekl", "amp": "float16"}),
    "half contrast": (("resnet", "norm"), {"method": "crd", "amp": "bfloat16", "lr": 0.1}),
    "guarded": (("norm", "mambaout"), {"method": "xekl+guard", "epochs": 6, "lr": 0.2}),
    "keeping": (
        ("resnet", "norm"),
        {
            "method": "kl-dp",
            "average": "last-half",
            "schedule": "cosine",
            "subtract_drift": True,
            "margin": 0.05,
            "lr": 0.2,
        },
    ),
    "soup": (SEVERAL, {"method": "kl", "together": "soup"}),
    "sequential": (SEVERAL, {"method": "kl-dp", "together": "sequential"}),
    "parallel": (SEVERAL, {"method": "kl-dp-u", "together": "parallel"}),
}


Finished = Callable[[str], tuple[dict[str, Any], Path]]


@pytest.fixture(scope="module")
def finished(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The row of a way and the folder with its student: done once, for all who look at it."""

    @cache
    def done(way: str) -> tuple[dict[str, Any], Path]:
        folder = tmp_path_factory.mktemp("finished")
        names, settings = WAYS[way]
        with pytest.MonkeyPatch.context() as own:  # who looks at it finds none of its drift
            own.setenv("KT_CACHE", str(folder / "cache"))
            return transfer(place, folder, *names, **settings), folder

    return done


@pytest.mark.parametrize("way", WAYS)
def test_the_row_is_what_timm_finds_of_the_saved_student(
    place: Path, finished: Finished, way: str
) -> None:
    names, settings = WAYS[way]
    row, folder = finished(way)
    *told, before = (by_timm(place / name, place) for name in names)
    after, teacher = by_timm(folder / "student", place), np.any(told, axis=0)
    found = {
        "student_acc": before, "after_acc": after, "teacher_acc": teacher,
        "gain": after & ~before, "loss": before & ~after,
        "pos_flips": teacher & ~before, "neg_flips": before & ~teacher,
        "pos_flips_after": teacher & ~after, "neg_flips_after": after & ~teacher,
    }  # fmt: skip
    for name, mask in found.items():
        assert row[name] == pytest.approx(percent(mask)), name
    assert row["delta"] == pytest.approx(row["gain"] - row["loss"])
    assert row["delta"] == pytest.approx(row["after_acc"] - row["student_acc"])
    assert row["gain"] + row["loss"] > 0, "nothing was learned, so nothing was tested"
    known = teacher & ~before
    assert row["transfer_rate"] == rate(after, known)
    assert row["teacher_accs"] == pytest.approx([percent(one) for one in told])
    assert row["teacher_rates"] == [rate(after, one & ~before) for one in told]
    if "by_class" in settings:
        labels = np.repeat(np.arange(CLASSES), EVAL)
        for name, mask in (("gain", after & ~before), ("loss", before & ~after)):
            counts = row[f"{name}_by_class"]
            assert counts == [int(mask[labels == c].sum()) for c in range(CLASSES)]
            assert 100 * sum(counts) / row["n"] == pytest.approx(row[name])


def test_nothing_is_kept_where_no_folder_is_named(place: Path, tmp_path: Path) -> None:
    assert transfer(place, tmp_path, "resnet", "norm", out="")["path"] is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("way", WAYS)
def test_the_row_fits_the_table_and_its_curves_are_whole(
    finished: Finished, tmp_path: Path, way: str
) -> None:
    names, settings = WAYS[way]
    row, _ = finished(way)
    turns = len(names) - 1 if row["together"] in ("soup", "sequential") else 1
    epochs = settings.get("epochs", SPEC.epochs)
    for name in ("curve_loss", "curve_acc", "curve_taught"):
        assert len(row[name]) == turns * epochs, name
    assert row["final_loss"] == row["curve_loss"][-1]
    assert len(row["teacher_shares"]) == len(names) - 1
    # Values: nobody takes the names apart again, which may hold any sign themselves.
    assert row["teacher_names"] == (list(names[:-1]) if len(names) > 2 else None)
    assert row["teacher"] == " + ".join(names[:-1])
    assert len(row["teacher_keys"] or [row["teacher_key"]]) == len(names) - 1
    assert row["share_taught"] == pytest.approx(sum(row["teacher_shares"]) / turns)
    assert row["share_taught"] == pytest.approx(np.mean(row["curve_taught"]))
    assert (row["step_accs"] is None) == (turns == 1)
    assert turns == 1 or len(row["step_accs"]) == turns
    assert ("gain_by_class" in row) == ("by_class" in settings)
    assert ("guard_alpha" in row) == (way == "guarded")
    assert (row["n"], row["n_train"]) == (CLASSES * EVAL, CLASSES * TRAIN)

    store.write(tmp_path, "transfer", [{**row, "run_id": "x", "status": store.OK, "attempt": 1}])
    (read,) = store.read([tmp_path], "transfer").to_dict("records")
    unset = {k for k in schema.TABLES["transfer"] if k not in row} - {"run_id", "status", "attempt"}
    maybe = {k for k in unset if k.endswith(("_by_class", "unguarded"))}
    guarded = {k for k in unset if k.startswith("guard_") and k != "guard_share"}
    assert unset - maybe - guarded <= {"error"}
    assert read["after_acc"] == row["after_acc"] and read["teacher"] == row["teacher"]
    assert list(read["curve_loss"]) == row["curve_loss"]


def test_the_order_of_sequential_teachers_is_by_accuracy_and_lists_are_as_named(
    place: Path, tmp_path: Path
) -> None:
    accuracy = {name: percent(by_timm(place / name, place)) for name in SEVERAL[:2]}
    weak, strong = sorted(accuracy, key=lambda name: accuracy[name])
    assert accuracy[weak] < accuracy[strong]
    one = {
        name: transfer(place, tmp_path, name, "vit", out="", method="kl") for name in (weak, strong)
    }
    for order, first in (("asc", weak), ("desc", strong), ("given", strong)):
        row = transfer(place, tmp_path, strong, weak, "vit", method="kl", out="",
                       together="sequential", order=order)  # fmt: skip
        assert row["teacher"] == f"{strong} + {weak}"
        assert row["teacher_accs"] == [accuracy[strong], accuracy[weak]]
        # The first turn is a transfer from the first teacher alone.
        assert row["step_accs"][0] == one[first]["after_acc"]
        assert row["curve_loss"][: SPEC.epochs] == one[first]["curve_loss"]
        assert row["step_accs"][1] == row["after_acc"]


def test_a_soup_is_the_mean_of_its_parts(place: Path, tmp_path: Path) -> None:
    for name in ("resnet", "mambaout"):
        transfer(place, tmp_path, name, "norm", method="kl", out=name)
    row = transfer(place, tmp_path, "resnet", "mambaout", "norm", method="kl", together="soup")
    parts = [weights(tmp_path / name) for name in ("resnet", "mambaout")]
    for name, value in weights(tmp_path / "student").items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2)
    accuracies = [percent(by_timm(tmp_path / n, place)) for n in ("resnet", "mambaout")]
    assert row["step_accs"] == pytest.approx(accuracies)


def test_the_guard_goes_some_way_on_the_line(place: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"lr": 0.2, "epochs": 6}
    free = transfer(place, tmp_path, "resnet", "mambaout", method="xekl", out="free", **settings)
    row = transfer(place, tmp_path, "resnet", "mambaout", method="xekl+guard", **settings)
    alpha = row["guard_alpha"]
    assert alpha in [i / 10 for i in range(11)] and alpha > 0 and row["guard_score"] > 0
    assert row["guard_n"] == CLASSES * GUARD and row["guard_data"]
    assert row["delta_unguarded"] == free["delta"] and row["curve_loss"] == free["curve_loss"]
    start, end = weights(place / "mambaout"), weights(tmp_path / "free")
    for name, value in weights(tmp_path / "student").items():
        torch.testing.assert_close(value, (1 - alpha) * start[name] + alpha * end[name])


def test_another_guard_judges_the_same_line(place: Path, tmp_path: Path) -> None:
    """What the images gain and lose is the same, so each rule can be asked about it again."""
    settings: dict[str, Any] = {"lr": 0.2, "epochs": 6}
    rows = {
        guard: transfer(place, tmp_path, "resnet", "mambaout", method=f"xekl+{guard}",
                        out=guard, **settings)
        for guard in ("guard", "safe:5", "shrink")
    }  # fmt: skip
    one = rows["guard"]
    flips = Flips(np.array(one["guard_gains"]), np.array(one["guard_losses"]), one["guard_n"])
    for guard, (rule, margin) in {"safe:5": ("safe", 0.05), "shrink": ("shrink", 0.0)}.items():
        row, verdict = rows[guard], RULES[rule](flips, margin, Prior.of([]))
        assert row["guard_gains"] == one["guard_gains"]
        assert row["guard_alpha"] == int(verdict.place) / 10 > 0
        assert row["guard_score"] == 100 * verdict.score[int(verdict.place) - 1]
        assert row["guard_p"] == verdict.p[int(verdict.place) - 1]
    assert rows["shrink"]["guard_pooled"] == 0 and "guard_pooled" not in one
    assert rows["safe:5"]["guard_alpha"] >= one["guard_alpha"]


def test_shrink_knows_of_the_students_other_transfers(place: Path, tmp_path: Path) -> None:
    """By the same method, from the folder's rows: with another teacher, or another seed."""
    asked: dict[str, Any] = {"lr": 0.2, "epochs": 1}
    others = [
        ("resnet", {"seed": 0}, "kl+guard"), ("resnet", {"seed": 0}, "kl+safe"),
        ("resnet", {"seed": 1}, "kl+safe"), ("norm", {"seed": 0}, "kl+shrink"),
        ("vit", {"seed": 1}, "self+guard"), ("vit", {"seed": 0, "lr": 0.1}, "kl+guard"),
    ]  # fmt: skip
    for i, (teacher, more, method) in enumerate(others):
        row = transfer(place, tmp_path, teacher, "mambaout", method=method, **{**asked, **more})
        ended = {"run_id": str(i), "status": store.OK, "attempt": 1}
        store.write(tmp_path, "transfer", [{**row, **ended}])
    last = partial(transfer, place, tmp_path, "vit", "mambaout", method="kl+shrink", **asked)
    assert last()["guard_pooled"] == 3  # resnet with two seeds, norm
    own = transfer(place, tmp_path, "norm", "mambaout", method="kl+shrink", **asked)
    assert own["guard_pooled"] == 2  # what norm did there is the very same transfer
    rows = store.read([tmp_path], "transfer")
    kept = rows[rows["run_id"].isin(["0", "2", "3"])]
    flips = [Flips(*map(np.array, one), int(n)) for *one, n in
             kept[["guard_gains", "guard_losses", "guard_n"]].itertuples(index=False)]  # fmt: skip
    found = last()
    mine = Flips(np.array(found["guard_gains"]), np.array(found["guard_losses"]), found["guard_n"])
    assert found["guard_alpha"] == int(RULES["shrink"](mine, 0.0, Prior.of(flips)).place) / 10


def test_a_guard_that_lets_nothing_pass_leaves_the_student_as_it_was(
    place: Path, tmp_path: Path
) -> None:
    row = transfer(place, tmp_path, "resnet", "norm", method="self+guard")
    assert (row["guard_alpha"], row["guard_score"], row["delta"], row["gain"]) == (0, 0, 0, 0)
    assert row["delta_statistics"] == 0.0
    assert_same(place / "norm", tmp_path / "student")


@pytest.mark.parametrize("method", ["self", "self+safe:50"])
@pytest.mark.parametrize("bn", ["train", "eval", "recompute"])
def test_what_the_running_statistics_do_alone(
    place: Path, tmp_path: Path, bn: str, method: str
) -> None:
    """Those of the student as it is saved, where a guard estimated them anew too."""
    row = transfer(place, tmp_path, "vit", "norm", method=method, bn=bn, lr=0.05)
    assert row.get("guard_alpha", 1.0) == 1.0
    module = timm.create_model(f"local-dir:{place / 'norm'}", pretrained=True).eval()
    before = right(module, place)
    state, after = weights(place / "norm"), weights(tmp_path / "student")
    running = {k: v for k, v in after.items() if "running_" in k or "num_batches" in k}
    assert running
    module.load_state_dict({**state, **running})
    if bn == "eval":
        assert row["delta_statistics"] == 0.0
        assert all(torch.equal(state[k], v) for k, v in running.items())
    else:
        wanted = percent(right(module, place)) - percent(before)
        assert row["delta_statistics"] == pytest.approx(wanted)
        assert any(not torch.equal(state[k], v) for k, v in running.items())


@pytest.mark.parametrize("bn", ["train", "eval"])
def test_the_control_is_the_student_with_other_statistics(
    place: Path, tmp_path: Path, bn: str
) -> None:
    """Nothing learned; once for all transfers into it."""
    rows = [
        transfer(place, tmp_path, name, "norm", bn=bn, lr=0.05, out="")
        for name in ("vit", "resnet")
    ]
    if bn == "eval":
        assert [row["delta_control"] for row in rows] == [None, None]
        return
    module = timm.create_model(f"local-dir:{place / 'norm'}", pretrained=True).eval()
    before = percent(right(module, place))
    views = views_of(DataSpec(str(place / "data")), SPEC.crop, SPEC.side, "none", 0)
    config = resolve_model_data_config(module)
    batch_norm.recompute(module, views, preprocess(config, torch.device("cpu")))
    wanted = percent(right(module, place)) - before
    assert [row["delta_control"] for row in rows] == pytest.approx([wanted, wanted])


def test_without_batch_normalisation_there_are_no_statistics(place: Path, tmp_path: Path) -> None:
    assert transfer(place, tmp_path, "norm", "vit", out="")["delta_statistics"] is None
    assert transfer(place, tmp_path, "norm", "vit", out="")["delta_control"] is None


class Stopped(Exception):
    pass


@pytest.fixture
def every_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints after each update, not only every few minutes."""
    of_run = checkpoint.of_run
    monkeypatch.setattr(checkpoint, "of_run", lambda *where: replace(of_run(*where), seconds=0.0))


@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_transfer_goes_on_to_the_same_student(
    place: Path, tmp_path: Path, finished: Finished, every_update: None, way: str
) -> None:
    names, settings = WAYS[way]
    whole, folder = finished(way)
    run = run_of(place, *names, **settings)
    # What the student drifts is one more training.
    drifts = settings.get("epochs", SPEC.epochs) * ("subtract_drift" in settings)
    total, epochs = len(whole["curve_loss"]) + drifts, list[int]()

    def stop(done: int, total: int, what: str) -> None:
        if what == "transfer":
            epochs.append(done)
            if done < total:
                raise Stopped

    for _ in range(total - 1):
        with pytest.raises(Stopped):
            transfer_run(run, tmp_path / "cut", stop)
        assert not (tmp_path / "cut" / "student").exists()
    (row,) = transfer_run(run, tmp_path / "cut", stop)
    assert epochs == list(range(1, total + 1)), "an epoch was done twice"
    assert_same(folder / "student", tmp_path / "cut" / "student")
    measured = {*schema.PROVENANCE, "waiting_share"}
    assert {k for k in whole if whole[k] != row[k]} <= measured
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["student"]


def assert_same(left: Path, right_: Path) -> None:
    ours, theirs = weights(left), weights(right_)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """[n]: a forward pass of training exhausts memory with more than n images."""
    most = [10**6]
    forward = nn.Module.__call__

    def bounded(module: nn.Module, *inputs: Any, **more: Any) -> Any:
        whole_model = hasattr(module, "pretrained_cfg") and module.training
        if whole_model and len(inputs[0]) > most[0]:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")
        return forward(module, *inputs, **more)

    monkeypatch.setattr(nn.Module, "__call__", bounded)
    yield most


def test_exhausted_memory_names_the_micro_batch_to_try(
    place: Path, tmp_path: Path, memory: list[int]
) -> None:
    memory[0] = 3
    with pytest.raises(KtError) as caught:
        transfer(place, tmp_path, "resnet", "vit")
    assert "micro-batches of 8" in caught.value.message and "--micro-batch 4" in caught.value.tip
    assert "--retry-oom" in caught.value.tip and caught.value.exit_code == 1
    assert not (tmp_path / "student").exists()


def test_the_micro_batch_is_halved_on_request_and_the_row_says_so(
    place: Path, tmp_path: Path, memory: list[int]
) -> None:
    wanted = transfer(place, tmp_path, "resnet", "norm", micro_batch=2, out="wanted")
    memory[0] = 3
    row = transfer(place, tmp_path, "resnet", "norm", retry_oom=True)
    assert row["micro_batch"] == 2 and row["curve_loss"] == wanted["curve_loss"]
    assert (row["micro_batch_asked"], wanted["micro_batch_asked"]) == (8, 2)
    # Rows compare by what ran; what was asked for stays another run.
    assert row["settings"] == wanted["settings"]
    asked = run_of(place, "resnet", "norm", retry_oom=True)
    assert row["settings"] != asked.settings.settings
    assert asked.id != run_of(place, "resnet", "norm", micro_batch=2).id
    assert_same(tmp_path / "wanted", tmp_path / "student")
    assert {path.name for path in tmp_path.iterdir()} == {"wanted", "student"}
    memory[0] = 0
    with pytest.raises(KtError, match="one image alone exhausts"):
        transfer(place, tmp_path, "resnet", "norm", retry_oom=True)


def test_another_try_begins_without_the_models_of_the_one_before(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would take the memory that it lacks."""
    students: list[weakref.ref[nn.Module]] = []

    def exhausted(job: TransferJob) -> None:
        assert all(student() is None for student in students)
        students.append(weakref.ref(job.module))
        raise MemoryError

    monkeypatch.setattr("kt_cli.runs.transfer.teach", exhausted)
    with pytest.raises(KtError, match="one image alone exhausts"):
        transfer(place, tmp_path, "resnet", "norm", retry_oom=True)
    assert len(students) == 4  # micro-batches of 8, 4, 2 and 1


def test_a_loss_that_is_not_finite_leaves_nothing(place: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFinite) as caught:
        transfer(place, tmp_path, "resnet", "vit", lr=1e12)
    assert "update" in caught.value.message and "learning rate" in caught.value.tip
    assert not list(tmp_path.iterdir())


def test_a_student_that_diverged_at_the_last_update_is_no_damaged_model(
    place: Path, tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match="after training") as caught:
        transfer(place, tmp_path, "resnet", "vit", lr=1e30, epochs=1, batch_size=500,
                 micro_batch=500)  # fmt: skip
    assert "learning rate" in caught.value.tip and not list(tmp_path.iterdir())


UNPOOLED = """
import torch
from torch import nn

class Net(nn.Module):
    num_classes = 4
    data_config = {"input_size": (3, 32, 32), "crop_pct": 0.9}
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 4))
    def forward(self, x):
        return self.net(x)
"""


def predicted(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file() and path.parent.name != "contents"]


@pytest.fixture
def unpooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    (tmp_path / "unpooled_net.py").write_text(UNPOOLED)
    monkeypatch.syspath_prepend(tmp_path)
    (model,) = resolve(["py:unpooled_net:Net"])
    return model


@pytest.mark.parametrize("method", ["crd", "cd"])
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_without_pooled_features_none_are_distilled_and_no_work_is_done(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unpooled: Model,
    method: str, role: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("KT_CACHE", str(tmp_path / "cache"))
    run = run_of(place, "resnet", "vit", method=method)
    models = (unpooled, run.models[1]) if role == "teacher" else (run.models[0], unpooled)
    with pytest.raises(KtError, match=r"Net.*no pooled features"):
        transfer_run(replace(run, models=models), tmp_path / "out")
    assert not predicted(tmp_path / "cache") and not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["kl", "kl-dp-u", "self"])
def test_a_model_of_ones_own_teaches_and_learns(
    place: Path, tmp_path: Path, unpooled: Model, method: str
) -> None:
    run = run_of(place, "resnet", "vit", method=method, out="")
    for models in ((unpooled, run.models[1]), (run.models[0], unpooled)):
        (row,) = transfer_run(replace(run, models=models), tmp_path)
        assert row["delta"] == pytest.approx(row["gain"] - row["loss"])


@pytest.fixture
def flat(place: Path, tmp_path: Path) -> str:
    """The training images in one folder, without labels."""
    (tmp_path / "flat").mkdir()
    for path in (place / "data" / "train").rglob("*.png"):
        target = tmp_path / "flat" / f"{path.parent.name}-{path.name}"
        target.write_bytes(path.read_bytes())
    return str(tmp_path / "flat")


@pytest.mark.parametrize("method", ["kl", "kl-dp-u", "self", "kl-dp-u+guard"])
def test_images_without_labels(place: Path, tmp_path: Path, flat: str, method: str) -> None:
    row = transfer(place, tmp_path, "resnet", "vit", method=method, data={"unlabelled": flat})
    assert row["curve_acc"] is None and row["n_train"] == CLASSES * TRAIN
    before, after = by_timm(place / "vit", place), by_timm(tmp_path / "student", place)
    assert row["delta"] == pytest.approx(percent(after) - percent(before))


def test_a_guard_on_images_without_labels(place: Path, tmp_path: Path, flat: str) -> None:
    """The slice set aside has none either, and nobody asks for what −1 has as probability."""
    data = {"unlabelled": flat, "guard": 0.25, "guard_data": None}
    row = transfer(place, tmp_path, "resnet", "vit", method="kl-dp-u+guard", force_guard=True,
                   data=data)  # fmt: skip
    held = CLASSES * TRAIN // 4
    assert (row["guard_n"], row["n_train"]) == (held, CLASSES * TRAIN - held)
    kept = [pq.read_table(path) for path in Path(os.environ["KT_CACHE"]).glob("predictions/*")]
    for table in kept:
        labels, given = table["label"].to_numpy(), table["label_prob"].to_numpy()
        assert (np.isnan(given) == (labels < 0)).all() and np.isin(len(labels), (held, 60))
    assert sum(len(table) == held for table in kept) == 1  # of the teacher


def test_labels_are_not_looked_at_where_none_are_needed(
    place: Path, tmp_path: Path, flat: str
) -> None:
    """Same images in the same order: the same student as with labels."""
    transfer(place, tmp_path, "resnet", "vit", method="kl-dp-u", out="with")
    transfer(place, tmp_path, "resnet", "vit", method="kl-dp-u", data={"unlabelled": flat})
    assert_same(tmp_path / "with", tmp_path / "student")


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (("resnet", "vit"), {"method": "kl-dp", "unlabelled": True}, "needs labels"),
        (("resnet", "vit"), {"method": "kl", "distil_on": "positive", "unlabelled": True},
         "needs labels"),
        (("resnet", "vit"), {"together": "soup"}, "at least two teachers"),
        (SEVERAL, {}, "a way to teach together"),
        (SEVERAL, {"together": "parallel"}, "cannot choose"),
        (("resnet", "vit"), {"method": "kl-dp", "reference_compat": True}, "changes nothing"),
        (("resnet", "vit"), {"method": "crd", "distil_on": "positive"}, "is for kl and xekl"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_any_work(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flat: str,
    names: tuple[str, ...], settings: dict[str, Any], message: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("KT_CACHE", str(tmp_path / "cache"))
    settings = dict(settings)
    data = {"unlabelled": flat} if settings.pop("unlabelled", False) else {}
    with pytest.raises(UsageError, match=message):
        transfer(place, tmp_path / "out", *names, **settings, data=data)
    assert not predicted(tmp_path / "cache") and not (tmp_path / "out").exists()


# --- memory --------------------------------------------------------------------------------------


def held() -> int:
    """Modules and optimizers that are alive."""
    kinds = (nn.Module, torch.optim.Optimizer)
    return sum(issubclass(type(found), kinds) for found in gc.get_objects())


@pytest.mark.parametrize("way", WAYS)
def test_a_run_lets_go_of_its_models_by_itself(place: Path, tmp_path: Path, way: str) -> None:
    """A GPU's memory would not wait for a collection of garbage."""
    names, settings = WAYS[way]
    settings = {"keep_targets": "online", **settings}
    transfer(place, tmp_path, *names, **settings)  # what is imported, and kept on purpose
    gc.collect()
    before = held()
    gc.disable()
    try:
        transfer(place, tmp_path, *names, **settings)
        assert held() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_a_guard_that_goes_nowhere_gives_back_the_student(
    place: Path, tmp_path: Path, amp: str
) -> None:
    """After mixed precision too: weights, statistics and counts are what they were."""
    row = transfer(place, tmp_path, "nfnet", "norm", method="kl+guard", lr=8.0, amp=amp,
                   augment="paper")  # fmt: skip
    assert row["guard_alpha"] == 0 and row["delta"] == 0 and row["delta_unguarded"] < 0
    found, wanted = weights(tmp_path / "student"), weights(place / "norm")
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name
