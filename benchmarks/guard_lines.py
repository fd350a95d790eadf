"""What the guard's rules do to real transfers, of which many guard sets are drawn.

    kt sweep sweeps/demo.toml
    python -m benchmarks.guard_lines results/demo/zoo [--lines lines.npz]

Each ordered pair of the zoo whose student has no batch normalisation is transferred by `kl` and by
`kl-dp`, and its student is asked at each place of the line from before to after about all images
that nobody trained on. These images are the population: what a place gains and loses of them is
the truth, and guard sets are drawn from them with replacement, so that they can have any size. The
printed table is of docs/policies.md.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import kt_cli
from benchmarks.guards import MARGIN, Lines, outcome, places, show
from kt_cli.data.sources import open_data
from kt_cli.device import pick_device
from kt_cli.distillation.batch_norm import statistics
from kt_cli.distillation.guard_rules import ALPHAS, RULES, Flips
from kt_cli.distillation.weight_averaging import between, copied, load
from kt_cli.knowledge.evaluate import evaluate
from kt_cli.settings import DataSpec
from kt_cli.zoo import load as zoo
from kt_cli.zoo.names import single

DATA = DataSpec("digits", guard=0.1)
# As sweeps/demo.toml, at four times its rate, so that there is something to lose.
HOW = {
    "data": DATA.source, "guard_share": DATA.guard, "epochs": 6, "lr": 0.02, "batch_size": 64,
    "micro_batch": 64, "augment": "none", "crop": 1.0, "side": 32, "keep_targets": "memory",
}  # fmt: skip
METHODS = ("kl", "kl-dp")
DRAWS, SIZES = 20, (1000, 2500, 10_000)
Right = NDArray[np.bool_]


def lines(folder: Path) -> NDArray[np.int8]:
    """(transfers, 10, images): +1 where a place of a line gains an image, −1 where it loses it."""
    names = sorted(path.name for path in folder.iterdir() if (path / "config.json").exists())
    opened = {name: zoo.load(single(f"local-dir:{folder / name}")) for name in names}
    students = [name for name in names if not statistics(opened[name].module)]
    found = []
    for student, method, teacher in itertools.product(students, METHODS, names):
        if teacher == student:
            continue
        with tempfile.TemporaryDirectory() as place:
            moved = kt_cli.transfer(folder / teacher, folder / student, output=f"{place}/student",
                                    method=method, **HOW)  # fmt: skip
            end = copied(moved.student)
        found.append(along(opened[student], end))
        print(f"{student} ← {teacher} by {method}: Δ {moved.delta:+.2f}", flush=True)
    return np.stack(found)


def along(student: zoo.Loaded, end: dict[str, object]) -> NDArray[np.int8]:
    """(10, images): what each place gains and loses, and the student stays as it is."""
    data = open_data(DATA, training=True)
    assert data.guard is not None
    start, config, device = copied(student.module), student.config("test"), pick_device()

    def right() -> Right:
        asked = [evaluate(student.module.to(device), config, images, device, amp="")
                 for images in (data.eval, data.guard)]  # fmt: skip
        return np.concatenate([said.right for said in asked])

    before, after = right(), []
    for alpha in ALPHAS:
        load(student.module, between(start, end, alpha))
        after.append(right())
    load(student.module, start)
    return np.stack(after).astype(np.int8) - before


def drawn(changes: NDArray[np.int8], n: int, random: np.random.Generator) -> Flips:
    """Gains and losses (transfers, 10) on a guard set of n images of its own each."""
    count = changes.shape[2]
    times = random.multinomial(n, np.full(count, 1 / count), size=len(changes))
    gained, lost = (np.einsum("tan,tn->ta", changes == sign, times) for sign in (1, -1))
    return Flips(gained, lost, n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("zoo", type=Path, help="folder of models that a sweep trained")
    parser.add_argument("--lines", type=Path, help="where what was measured is kept")
    chosen = parser.parse_args()
    if chosen.lines and chosen.lines.exists():
        changes = np.load(chosen.lines)["changes"]
    else:
        changes = lines(chosen.zoo)
        if chosen.lines:
            np.savez_compressed(chosen.lines, changes=changes)
    gains, losses = ((changes == sign).mean(axis=2) for sign in (1, -1))
    truth, count = Lines(gains, losses), len(changes)
    print(f"\n{count} transfers, {changes.shape[2]} images, {DRAWS} guard sets of each size\n")
    repeated = Lines(np.tile(gains, (DRAWS, 1)), np.tile(losses, (DRAWS, 1)))
    teachers = len(list(chosen.zoo.glob("*/config.json"))) - 1
    rows = []
    for n in SIZES:
        random = np.random.default_rng(0)
        sets = [drawn(changes, n, random) for _ in range(DRAWS)]
        for rule in ("none", *RULES):
            place = np.concatenate([places(rule, flips, MARGIN, teachers) for flips in sets])
            rows.append({"images": f"{n:,}", "guard": rule, **outcome(repeated, place, MARGIN)})
    show(rows)
    deltas = 100 * truth.delta[:, -1]
    print(f"\nΔ of the whole way: {deltas.mean():+.2f} ± {deltas.std():.2f} points")


if __name__ == "__main__":
    main()
