"""kt beside what people would use instead, each in a process of its own, start to end.

    python -m benchmarks.peers [--repeats 3] [--only "ten teachers"]

The peers are no dependencies of kt: `pip install torchdistill torchmetrics`; what is not installed
is left out, and said. Untrained small timm models at 112 pixels on made-up JPEGs; 3 epochs of 192
with flips, 16 to evaluate (of ImageNet in 20 epochs of a tenth, 50,000 are about as large a share).
A peer decodes, asks the teacher and trains at each step, and evaluates the student at the end. kt
does what its commands do: it also measures all models, and the student before, and writes its row.
One thread each, unless OMP_NUM_THREADS says otherwise; ratios are of processor seconds, which
others on the machine change less. Lines are those of the functions below, without their head.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.measure import in_own_process, peak_gb, record, seconds, show

TRAIN, EVAL, CLASSES, SIZE, SIDE = 192, 16, 8, 112, 128
EPOCHS, BATCH, LR = 3, 32, 0.01
STUDENT = "mobilenetv3_small_100"
TEACHERS = (
    "mobilenetv3_large_100", "resnet10t", "resnet14t", "mnasnet_small", "regnetx_002",
    "regnety_002", "lcnet_100", "ghostnet_100", "efficientnet_lite0", "hardcorenas_a",
)  # fmt: skip
MODELS_OF_PAIRS = 50
Solution = Callable[[Path, Sequence[str]], Any]


# --- distillation: the student `models[-1]` is taught by each other one --------------------------


def kt_transfers(folder: Path, models: Sequence[str]) -> None:
    import kt_cli as kt

    kt.sweep(
        name="peers", models=models, data=str(folder / "data"), students=[STUDENT], methods=["kl"],
        epochs=EPOCHS, lr=LR, batch_size=BATCH, micro_batch=BATCH, augment="flip", side=SIDE,
        eval_size="train", output=str(folder / "results"), executor="inline",
    )  # fmt: skip


def timm_task(folder: Path, models: Sequence[str]) -> None:
    import timm
    import torch
    from timm.task import LogitDistillationTask

    train, evaluated = _loaders(folder / "data")
    for teacher in models[:-1]:
        student = timm.create_model(models[-1], pretrained=True)
        task = LogitDistillationTask(
            student, timm.create_model(teacher, pretrained=True), torch.nn.CrossEntropyLoss(),
            distill_loss_weight=1.0, task_loss_weight=0.0, verbose=False,
        )  # fmt: skip
        optimizer = torch.optim.SGD(student.parameters(), LR * BATCH / 256, 0.9, weight_decay=1e-4)
        for _ in range(EPOCHS):
            task.train()
            for images, labels in train:
                optimizer.zero_grad()
                task(images, labels)["loss"].backward()
                optimizer.step()
        _accuracy(student, evaluated)
        torch.save(student.state_dict(), folder / "student.pth")


def torchdistill_box(folder: Path, models: Sequence[str]) -> None:
    import timm
    import torch
    import torchdistill.core.interfaces.forward_proc  # these register what the config names
    import torchdistill.losses.mid_level
    import torchdistill.losses.util  # noqa: F401
    from torch.utils.data import RandomSampler, SequentialSampler
    from torchdistill.core.distillation import get_distillation_box

    train, evaluated = _loaders(folder / "data")
    loaded = {"batch_size": BATCH, "num_workers": 0}
    config = {
        "num_epochs": EPOCHS,
        "train_data_loader": {"dataset_id": "train", "kwargs": loaded,
                              "sampler": {"class_or_func": RandomSampler}},
        "val_data_loader": {"dataset_id": "val", "kwargs": loaded,
                            "sampler": {"class_or_func": SequentialSampler}},
        "teacher": {"requires_grad": False, "forward_proc": "forward_batch_only"},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {"key": "SGD", "kwargs": {"lr": LR * BATCH / 256, "momentum": 0.9,
                                               "weight_decay": 1e-4}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {
            "weight": 1.0,
            "criterion": {"key": "KDLoss", "kwargs": {
                "student_module_path": ".", "student_module_io": "output",
                "teacher_module_path": ".", "teacher_module_io": "output",
                "temperature": 1.0, "alpha": 0.0}}}}}},
    }  # fmt: skip
    device = torch.device("cpu")
    sets = {"train": train.dataset, "val": evaluated.dataset}
    for teacher in models[:-1]:
        student = timm.create_model(models[-1], pretrained=True)
        asked = timm.create_model(teacher, pretrained=True)
        box = get_distillation_box(asked, student, sets, config, device, None, False, 1)
        for epoch in range(EPOCHS):
            box.pre_epoch_process(epoch=epoch)
            for images, labels, supplement in box.train_data_loader:
                box.post_forward_process(box.forward_process(images, labels, supplement))
            box.post_epoch_process()
        _accuracy(student, evaluated)
        torch.save(student.state_dict(), folder / "student.pth")


def _loaders(data: Path) -> Any:
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normal = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    square = [transforms.Resize(SIZE), transforms.CenterCrop(SIZE)]
    flipped = transforms.Compose([*square, transforms.RandomHorizontalFlip(), *normal])
    train = ImageFolder(str(data / "train"), flipped)
    evaluated = ImageFolder(str(data / "val"), transforms.Compose([*square, *normal]))
    return DataLoader(train, BATCH, shuffle=True), DataLoader(evaluated, BATCH)


def _accuracy(model: Any, images: Any) -> float:
    import torch

    model.eval()
    with torch.inference_mode():
        hits = [(model(x).argmax(dim=1) == y).float().mean().item() for x, y in images]
    return statistics.mean(hits)


# --- evaluation of all models on the same images -------------------------------------------------


def kt_evaluation(folder: Path, models: Sequence[str]) -> None:
    import kt_cli as kt

    kt.complementarity(models, data=str(folder / "data" / "train"))


def timm_validation(folder: Path, models: Sequence[str]) -> None:
    """As timm's validate.py, once for each model."""
    import timm
    import torch
    from timm.data import create_dataset, create_loader, resolve_data_config

    for name in models:
        model = timm.create_model(name, pretrained=True).eval()
        config = resolve_data_config({}, model=model, use_test_size=True)
        dataset = create_dataset("", root=str(folder / "data" / "train"))
        loader = create_loader(
            dataset, config["input_size"], 128, use_prefetcher=False, num_workers=0,
            interpolation=config["interpolation"], mean=config["mean"], std=config["std"],
            crop_pct=config["crop_pct"], crop_mode=config["crop_mode"], device=torch.device("cpu"),
        )  # fmt: skip
        with torch.inference_mode():
            right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in loader)
        right / len(dataset)


# --- what each of 50 models knows that each other does not ---------------------------------------


def kt_pairs(folder: Path, models: Sequence[str]) -> None:
    import kt_cli as kt

    outputs = _outputs()
    kt.complementarity(
        {f"m{i}": said for i, said in enumerate(outputs.preds)}, labels=outputs.labels
    )


def sklearn_pairs(folder: Path, models: Sequence[str]) -> None:
    from itertools import combinations

    import numpy as np
    from sklearn.metrics import cohen_kappa_score

    outputs = _outputs()
    right = outputs.preds == outputs.labels
    rows = []
    for a, b in combinations(range(len(right)), 2):
        ahead, behind = right[a] & ~right[b], right[b] & ~right[a]
        by_class = [np.bincount(outputs.labels, flips, 1000) for flips in (ahead, behind)]
        kappa = cohen_kappa_score(outputs.preds[a], outputs.preds[b])
        rows.append((ahead.mean(), behind.mean(), kappa, by_class))


def torchmetrics_pairs(folder: Path, models: Sequence[str]) -> None:
    from itertools import combinations

    import torch
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_cohen_kappa

    outputs = _outputs()
    labels = torch.from_numpy(outputs.labels)
    preds = torch.from_numpy(outputs.preds).long()
    right = preds == labels
    rows = []
    for a, b in combinations(range(len(right)), 2):
        kappa = multiclass_cohen_kappa(preds[a], preds[b], 1000)
        both = [multiclass_accuracy(torch.where(x & ~y, labels, 1000), labels, 1001, "none")
                for x, y in ((right[a], right[b]), (right[b], right[a]))]  # fmt: skip
        rows.append((kappa, both))


def _outputs() -> Any:
    from benchmarks.pairs import made_up

    return made_up(MODELS_OF_PAIRS)


# --- side by side --------------------------------------------------------------------------------

BY = {"kt": kt_transfers, "timm": timm_task, "torchdistill": torchdistill_box}
# Each work: how many models, and who does it; kt first. The least that kt shall be faster.
WORKS: dict[str, tuple[tuple[str, ...], dict[str, Solution], float]] = {
    "one pair": ((TEACHERS[0], STUDENT), BY, 1.0),
    "ten teachers": ((*TEACHERS, STUDENT), BY, 1.8),
    "ten evaluations": (TEACHERS, {"kt": kt_evaluation, "timm": timm_validation}, 1.8),
    "all pairs of 50 × 50,000": ((), {"kt": kt_pairs, "scikit-learn": sklearn_pairs,
                                      "torchmetrics": torchmetrics_pairs}, 20.0),
}  # fmt: skip
MODULES = {"scikit-learn": "sklearn", "timm": "timm", "kt": "kt_cli"}


def make(folder: Path) -> None:
    """The images, and the models as timm saves them."""
    from benchmarks.photos import photos
    from kt_cli.zoo.load import build, save

    photos(folder / "data" / "train", TRAIN, CLASSES, sides=(350, 500))
    photos(folder / "data" / "val", EVAL, CLASSES, seed=1, sides=(350, 500))
    names = tuple(f"class{i}" for i in range(CLASSES))
    for arch in (*TEACHERS, STUDENT):
        module, config = build(arch, CLASSES, SIZE)
        save(module, folder / arch, data_config=config, num_classes=CLASSES, label_names=names,
             card="", extra={})  # fmt: skip


def lines(solution: Solution) -> int:
    """That a user writes, with the helpers that it calls."""
    source = inspect.getsource(solution).splitlines()[1:]
    text = "\n".join(source)
    helpers = [h for h in (_loaders, _accuracy) if h.__name__ in text]
    own = [line for line in source if line.strip() and not line.strip().startswith('"""')]
    return len(own) + sum(len(inspect.getsource(h).splitlines()) for h in helpers)


def measure(work: str, who: str, folder: Path) -> dict[str, float]:
    archs, solutions, _ = WORKS[work]
    models = [f"local-dir:{folder / arch}" for arch in archs]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["KT_CACHE"] = cache
        (Path(cache) / "run").mkdir()
        (Path(cache) / "run" / "data").symlink_to(folder / "data")
        spent = seconds(lambda: solutions[who](Path(cache) / "run", models))
    return {"seconds": spent, "cpu": time.process_time(), "peak_gb": peak_gb()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=WORKS, action="append")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        sys.stdout = sys.stderr
        found = measure(chosen.measure[0], chosen.measure[1], Path(chosen.measure[2]))
        sys.__stdout__.write(json.dumps(found) + "\n")
        return
    with tempfile.TemporaryDirectory() as temporary:
        make(Path(temporary))
        for work in chosen.only or WORKS:
            side_by_side(work, Path(temporary), chosen.repeats)


def side_by_side(work: str, folder: Path, repeats: int) -> None:
    """Everyone who is installed, by turns; their table, and kt's limits."""
    _, solutions, least = WORKS[work]
    there = [who for who in solutions if find_spec(MODULES.get(who, who))]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of several would wait for each other
    turns = [{who: in_own_process("benchmarks.peers", "--measure", work, who, str(folder))
              for who in there} for _ in range(repeats)]  # fmt: skip
    table = []
    for who in solutions:
        if who not in there:
            table.append([who, "not installed", "", "", "", ""])
            continue
        spent = statistics.median(turn[who]["seconds"] for turn in turns)
        busy = statistics.median(turn[who]["cpu"] for turn in turns)
        slower = statistics.median(turn[who]["cpu"] / turn["kt"]["cpu"] for turn in turns)
        peak = max(turn[who]["peak_gb"] for turn in turns)
        table.append([who, f"{spent:.1f}", f"{busy:.1f}", f"{slower:.2f}", f"{peak:.2f}",
                      str(lines(solutions[who]))])  # fmt: skip
        if who != "kt":
            record(f"peers: {work}, {who} ÷ kt", slower, least, at_least=True)
    show([work, "seconds", "CPU seconds", "÷ kt", "peak GB", "lines"], table)
    print()


if __name__ == "__main__":
    main()
