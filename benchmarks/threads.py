"""What waiting threads cost: torch's, that spin or sleep, beside processes that keep cores busy.

    python -m benchmarks.threads [--repeats 5] [--busy 0 1 2]

Forward passes, and steps of training, of a small convolutional network and a transformer, each way
in a process of its own, by turns: as libgomp waits by default (it spins), with
OMP_WAIT_POLICY=PASSIVE (as kt's commands do), after spinning shortly, and on one thread. Medians,
÷ spinning, of a turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from benchmarks.measure import ROOT, interleaved, show

POLICIES = {
    "spinning": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "short spin": {"GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
UNSET = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")
MODELS = ("resnet10t", "vit_tiny_patch16_224")
BATCH, SIDE, PASSES = 8, 224, 3


def work() -> dict[str, float]:
    """Seconds of a forward pass and of a step of training, by what it is."""
    import timm
    import torch

    found = {}
    for name in MODELS:
        torch.manual_seed(0)
        model, images = timm.create_model(name), torch.randn(BATCH, 3, SIDE, SIDE)

        def forward() -> None:
            with torch.inference_mode():
                model.eval()(images)  # noqa: B023

        def step() -> None:
            model.train()(images).sum().backward()  # noqa: B023
            model.zero_grad()  # noqa: B023

        works = {f"{name}, forward": forward, f"{name}, training": step}
        for each in works.values():
            each()
        found |= {what: median(took) for what, took in interleaved(works, PASSES).items()}
    return found


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes beside, that compute without end."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def one(policy: str) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    command = [sys.executable, "-m", "benchmarks.threads", "--one"]
    done = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        env={**environment, **POLICIES[policy], "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="processes beside")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.one:
        print(json.dumps(work()))
        return
    print(f"{os.cpu_count()} cores; batches of {BATCH}, {chosen.repeats} repeats")
    for count in chosen.busy:
        rows, turns = [], []
        for _ in range(chosen.repeats):
            with busy(count):
                turns.append({policy: one(policy) for policy in POLICIES})
        for what in turns[0]["spinning"]:
            base = 1000 * median(turn["spinning"][what] for turn in turns)
            ratios = (median(turn[policy][what] / turn["spinning"][what] for turn in turns)
                      for policy in list(POLICIES)[1:])  # fmt: skip
            rows.append([f"{what}, {count} busy", f"{base:.0f}", *(f"{r:.2f}" for r in ratios)])
        show(["", "ms, spinning", *(f"{policy} ÷" for policy in list(POLICIES)[1:])], rows)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
